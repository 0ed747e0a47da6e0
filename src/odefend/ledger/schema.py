"""The ledger's columns: their types and what they mean."""

from typing import Any

import polars as pl

SCHEMA_VERSION = 7

ADDED = ("model_spec",)
"""Columns that rows of older versions lack; they are null there."""

Column = tuple[Any, str]

_SHARED: dict[str, Column] = {
    "key": (pl.String, "of the shard: a digest of everything that decides its rows"),
    "image": (pl.String, "its id, such as mnist/test/00042"),
    "label": (pl.Int64, "the true class"),
    "data_digest": (pl.String, "of the shard's images and labels"),
    "net": (pl.String, "under attack, or judging"),
    "net_digest": (pl.String, "of its weights"),
    "training_seed": (pl.Int64, "of the net, by its card"),
    "gradient": (
        pl.String,
        "how the net's solver is differentiated; null without a solver, as the next six are",
    ),
    "end": (pl.String, "how the solver ends: interpolate or clip"),
    "method": (pl.String, "the Runge-Kutta method"),
    "coupling": (pl.String, "whether a step size is chosen per sample or per batch"),
    "max_steps": (pl.Int64, "attempted steps after which an answer is given up"),
    "precision": (pl.String, "of judgements"),
    "defense": (
        pl.String,
        "that the net is behind, with its settings, as canonical JSON; null without one",
    ),
    "sigma": (pl.Float64, "standard deviation of the noise of such a defense; null where it adds none"),
    "rtol": (pl.Float64, "relative tolerance of the net's solver; a defense may choose another: see its settings"),
    "atol": (pl.Float64, "absolute tolerance, likewise"),
    "model_spec": (pl.String, "all of how the net was opened, solved and defended, as canonical JSON"),
    "code_version": (pl.String, "of odefend: its version and a digest of its sources"),
    "schema_version": (pl.Int64, "of these columns"),
}

_COLUMNS: dict[str, dict[str, Column]] = {
    "crafted": _SHARED
    | {
        "algorithm": (pl.String, "the attack's own name"),
        "settings": (pl.String, "of the attack, as canonical JSON"),
        "norm": (pl.String, "that the attack measures in"),
        "epsilon": (pl.Float64, "radius of the ball; null for an attack of smallest norm"),
        "steps": (pl.Int64, "of the attack, or of each of its rounds"),
        "target": (pl.Int64, "class aimed at; null where any other class counts"),
        "search_precision": (pl.String, "of the gradients: full (the net's own) or bfloat16"),
        "source": (pl.String, "net whose gradients were followed"),
        "source_rtol": (pl.Float64, "relative tolerance of that net"),
        "source_atol": (pl.Float64, "absolute tolerance of that net"),
        "source_gradient": (
            pl.String,
            "how that net's solver is differentiated, and with what, as in unrolled, rk4 in steps of 0.1",
        ),
        "source_draws": (
            pl.Int64,
            "of a random defense, whose answers are averaged for the gradient; null where there are none",
        ),
        "guard": (pl.String, "the detector that had to be passed as well, as canonical JSON; null without one"),
        "combination": (pl.String, "how the gradients of net and detector were combined; null without a detector"),
        "seed": (pl.Int64, "of the attack's random draws"),
        "batch": (pl.Int64, "images in the shard"),
        "position": (pl.Int64, "of the image in the shard's stored images"),
        "success": (
            pl.Boolean,
            "whether the attacked net takes the image for another class, judged anew after the attack",
        ),
        "initially_wrong": (pl.Boolean, "whether it did so before; such images are not attacked and not counted"),
        "distance": (pl.Float64, "of the change, in `norm`; inf where an attack of smallest norm found nothing"),
        "l2": (pl.Float64, "root of the sum of squares of the change"),
        "linf": (pl.Float64, "largest change of a pixel"),
        "mse": (pl.Float64, "mean square of the change"),
        "gradient_calls": (pl.Int64, "gradients computed for the image"),
        "forward_calls": (pl.Int64, "answers asked for the image"),
        "zero_gradients": (pl.Int64, "gradients that were zero or not finite"),
        "status": (pl.Int64, "how the solver ended on the result: 0 is well"),
        "history": (pl.List(pl.Float64), "smallest adversarial distance after each outer step; inf before the first"),
    },
    "judged": _SHARED
    | {
        "kind": (pl.String, "clean or adversarial"),
        "split": (pl.String, "of the data set"),
        "crafted": (pl.String, "key of the shard the image was crafted in; null for a clean image"),
        "initially_wrong": (pl.Boolean, "by the attacked net; null for a clean image"),
        "attack_success": (pl.Boolean, "by the attacked net; null for a clean image"),
        "change": (pl.String, "the everyday change or tampering of a clean image; null without one"),
        "scale": (pl.Float64, "s in x + s (x_adv - x), by which the perturbation is scaled"),
        "to_epsilon": (pl.Float64, "L-inf size that the perturbation is rescaled to; null where it is not"),
        "rounded": (pl.Boolean, "whether the image is rounded to 8 bits"),
        "draw": (pl.Int64, "index of the random draw"),
        "prediction": (pl.Int64, "the net's answer"),
        "correct": (pl.Boolean, "whether it is the label, and the solver ended well"),
        "margin": (pl.Float64, "largest minus second largest logit"),
        "true_margin": (pl.Float64, "logit of the true class minus the largest other"),
        "nfe": (pl.Int64, "evaluations of the vector field"),
        "accepted": (pl.Int64, "steps of the solver that were taken"),
        "rejected": (pl.Int64, "steps that were tried and not taken"),
        "status": (pl.Int64, "0 success, 1 too many steps, 2 step size underflow, 3 not finite"),
    },
    "scored": _SHARED
    | {
        "kind": (
            pl.String,
            "clean, adversarial, benign (changed as in everyday use), or calibration (to set thresholds on)",
        ),
        "crafted": (pl.String, "key of the shard the image was crafted in; null for a clean image"),
        "change": (pl.String, "as in judged"),
        "scale": (pl.Float64, "as in judged"),
        "to_epsilon": (pl.Float64, "as in judged"),
        "rounded": (pl.Boolean, "as in judged"),
        "detector": (pl.String, "what the experiment calls it"),
        "settings": (pl.String, "of the detector, as canonical JSON"),
        "cost": (pl.Int64, "passes through the net for one score"),
        "score": (pl.Float64, "higher is more suspicious"),
    },
    "certified": _SHARED
    | {
        "selecting": (pl.Int64, "draws that select the class"),
        "draws": (pl.Int64, "draws that bound its probability"),
        "alpha": (pl.Float64, "largest probability, for an image, that the certificate is wrong"),
        "prediction": (pl.Int64, "the class; -1 where the smoothed net abstains"),
        "correct": (pl.Boolean, "whether it is the label"),
        "radius": (pl.Float64, "L2 distance within which the answer is proven to stay; 0 where it abstains"),
        "nfe": (pl.Int64, "evaluations of the vector field, in all draws"),
    },
    "traced": _SHARED
    | {
        "crafted": (pl.String, "key of the shard the image was crafted in"),
        "attack_success": (pl.Boolean, "by the attacked net"),
        "time": (pl.List(pl.Float64), "of the ODE, from 0 to its end"),
        "raw": (pl.List(pl.Float64), "L2 distance of the attacked image's state from its original's, at each time"),
        "head_features": (pl.List(pl.Float64), "the same of ReLU(GroupNorm(state)), as the head sees it"),
        "cosine": (pl.List(pl.Float64), "1 minus the cosine of the angle between the two states"),
    },
    "labels": {
        "table": (pl.String, "crafted, judged, scored, certified or traced"),
        "key": (pl.String, "of the shard that is labelled"),
        "experiment": (pl.String, "the experiment's name"),
        "measure": (pl.String, "the measure by the experiment's name for it; craft or calibrate"),
        "model": (pl.String, "the model that is attacked, judges or certifies, or that the detector is beside"),
        "attack": (pl.String, "the attack; null for clean images"),
        "data": (pl.String, "the data"),
        "role": (pl.String, "what the attacker knows: oblivious, transfer, white-box, adaptive or black-box"),
        "past": (pl.String, "the detector that the attack had to pass as well; null without one"),
        "alarms": (pl.Float64, "the false alarms that its threshold is set for"),
    },
}

COLUMNS = {table: {name: meaning for name, (_, meaning) in columns.items()} for table, columns in _COLUMNS.items()}
"""What each column means, by table."""

LABELS: dict[str, Any] = {name: kind for name, (kind, _) in _COLUMNS["labels"].items()}
"""The types of the labels' columns."""

TABLES: dict[str, dict[str, Any]] = {
    table: {name: kind for name, (kind, _) in columns.items()}
    for table, columns in _COLUMNS.items()
    if table != "labels"
}
"""The types of each table's columns."""
