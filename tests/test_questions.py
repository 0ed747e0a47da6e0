"""Whether attacks were weak is asked of every evaluation, also where nobody looked."""

from pathlib import Path

import polars as pl
import pytest

from odefend.evaluation import Ledger, read_evaluation
from odefend.evaluation.schema import TABLES
from odefend.report import evaluation_page
from odefend.report.questions import GRADIENTS, MORE, NONE, OTHER_NET, doubts
from odefend.report.rows import Rows

CARELESS = """
name = "careless"
net = "digits-oon"
data = "digits"
images = 200
epsilon = 0.1
[[trials]]
name = "BIM"
attack = "bim"
settings = { steps = 5 }
epsilon = [0.1]
[[trials]]
name = "PGD"
attack = "pgd"
settings = { steps = 5 }
epsilon = [0.1]
beside = "BIM"
"""

CAREFUL = """
name = "careful"
net = "digits-oon"
data = "digits"
images = 200
epsilon = 0.1
[[trials]]
name = "PGD"
attack = "pgd"
settings = { steps = 40 }
epsilon = [0.1, 1.0]
[[trials]]
name = "twice"
attack = "pgd"
settings = { steps = 80 }
epsilon = [0.1]
beside = "PGD"
[[trials]]
name = "tight"
attack = "pgd"
settings = { steps = 40 }
epsilon = [0.1]
source = { tolerance = 1e-5 }
beside = "PGD"
[[trials]]
name = "from the ResNet"
attack = "pgd"
settings = { steps = 40 }
epsilon = [0.1]
source = { net = "digits-res" }
beside = "PGD"
[[trials]]
name = "blind"
attack = "pgd"
settings = { steps = 41 }
epsilon = [0.1]
beside = "PGD"
"""


def told(text, images=1000, broken=250):
    """Rows as if each attack had broken the same images, and those of radius 1 all; "blind" asked for no gradients."""
    evaluation, frames = read_evaluation(text), []
    for trial in evaluation.trials:
        for attack in trial.made():
            settings = attack.record()
            columns = {
                "key": f"{trial.name} {attack.budget}",
                "image": [f"i{number}" for number in range(images)],
                "net": "digits-oon",
                "code_version": "1",
                "rtol": 1e-3,
                "attack": settings["attack"],
                "settings": str(settings),
                "norm": "linf",
                "epsilon": attack.budget,
                "success": [attack.budget == 1 or number < broken for number in range(images)],
                "initially_wrong": False,
                "gradient_calls": 0 if trial.name == "blind" else 10,
                "forward_calls": 10,
                "zero_gradients": 0,
                "status": 0,
                "source_gradient": trial.name,
                "experiment": "beside" if trial.beside else "epsilon curve",
                "trial": trial.name,
            }
            frames.append(pl.DataFrame(columns))
    schema = TABLES["crafted"] | {"experiment": pl.String, "trial": pl.String}
    crafted = pl.concat([pl.DataFrame(schema=schema), *frames], how="diagonal_relaxed")
    empty = {"experiment": pl.String, "trial": pl.String}
    judged, scored, traced = (pl.DataFrame(schema=TABLES[name] | empty) for name in ("judged", "scored", "traced"))
    return Rows(evaluation, Ledger(Path("nowhere")), crafted, judged.with_columns(attacked_at=1.0), scored, traced)


def verdicts(rows):
    return {doubt.question: doubt.verdict for doubt in doubts(rows, "digits-oon")}


def test_what_nobody_asked_is_unknown():
    """Five steps beside five steps agree, and tell nothing: no question is left out, and nothing is called more than a bound."""
    asked = verdicts(told(CARELESS))
    missing = [question for question, verdict in asked.items() if verdict == "unknown"]
    for what in (MORE, GRADIENTS, OTHER_NET, NONE):
        assert f"Does {what} break images that these do not at tolerance 0.001?" in missing
    assert {"Does a larger epsilon ever help less?", "Does an unbounded attack break every image?"} <= set(missing)
    assert asked['Does "PGD" break images that BIM at tolerance 0.001 does not?'] == "clear"
    assert "Nothing here supports a claim of security" in evaluation_page.lessons(told(CARELESS))[0]


def test_what_was_asked_of_enough_images_is_clear():
    asked = verdicts(told(CAREFUL))
    assert set(asked.values()) == {"clear"}, asked
    assert "no sign of a weak attack" in evaluation_page.lessons(told(CAREFUL))[0]
    few = verdicts(told(CAREFUL, images=40, broken=10))
    assert set(few.values()) == {"unknown"} and few.keys() == asked.keys()


@pytest.mark.parametrize(
    ("name", "what"), [("twice", MORE), ("tight", GRADIENTS), ("from the ResNet", OTHER_NET), ("blind", NONE)]
)
def test_each_question_has_an_attack_that_asks_it(name, what):
    start = CAREFUL.index(f'[[trials]]\nname = "{name}"')
    end = CAREFUL.find("[[trials]]", start + 1)
    without = CAREFUL[:start] + (CAREFUL[end:] if end > 0 else "")
    (unknown,) = (question for question, verdict in verdicts(told(without)).items() if verdict != "clear")
    assert unknown == f"Does {what} break images that these do not at tolerance 0.001?"
