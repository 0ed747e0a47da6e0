"""The tables and the figure of the study of the detectors."""

from collections.abc import Sequence

from odefend.experiments import Cell, ClaimPart, Column, FigurePart, Line, Row, TablePart

ALARMS = (0.01, 0.05)
"""Shares of clean images that a detector may refuse."""
SCALES = (1.0, 1.05, 1.1, 1.25)
"""By which attackers multiply their perturbation."""
FIRST, LAST = SCALES[0], SCALES[-1]
BASELINE, NOISE, VOTE = "one-pass-margin", "noise-drop, sigma 0.1, draws 19", "tolerance-vote, votes 20"
"""A single pass, and noise of as many passes as the vote over tolerances, which has to beat both."""


def ranking(net: str, tried: Sequence[str], images: str) -> TablePart:
    """Area under the ROC of each detector, as the attacker scales the perturbation."""
    areas = [Column(head=f"AUROC, s = {scale:g}", metric="AUROC", scale=scale) for scale in SCALES]
    more = Column(head=f"minus {BASELINE}, s = {LAST:g}", metric="AUROC", scale=LAST, minus="other", show="signed")
    return TablePart(
        title=f"How detectors of {net} rank images of an oblivious attacker",
        heads=("detector",),
        rows=tuple(
            Row(label=one, detector=one, other=None if one == BASELINE else Cell(detector=BASELINE)) for one in tried
        ),
        where=Cell(attack="C&W"),
        columns=(Column(head="passes", metric="passes"), *areas, more),
        sort=areas[0].head,
        note=f"{images}, among them the originals, against those images of C&W that fool the net. s: its perturbation is "
        "multiplied by this. Passes: through the net, for one score.",
    )


def caught(net: str, calibration: int) -> TablePart:
    """What each detector catches of the same images at conformal thresholds, and its false alarms."""
    columns = list[Column]()
    for share in ALARMS:
        columns.append(Column(head=f"false alarms, {100 * share:g} % allowed", metric="false alarms", alarms=share))
        for scale in (FIRST, LAST):
            columns.append(Column(head=f"detected, s = {scale:g}", metric="detected", alarms=share, scale=scale))
    return TablePart(
        title=f"Alarms of detectors of {net} at calibrated thresholds",
        rows=("detector",),
        where=Cell(attack="C&W"),
        columns=tuple(columns),
        note=f"Thresholds: conformal, from {calibration} other clean images. A score of few values alarms less than allowed.",
    )


def everyday(net: str, changes: Sequence[str]) -> TablePart:
    """False alarms on clean images changed as in everyday use, and how many alarms are attacks where few images are."""
    columns, attacked = list[Column](), {"attack": "C&W", "scale": LAST}
    for share in ALARMS:
        told = f", {100 * share:g} % allowed"
        columns.append(Column(head=f"precision{told}", metric="precision", alarms=share, **attacked))
        columns += [
            Column(head=f"alarms on {change}{told}", metric="benign alarms", alarms=share, data=change)
            for change in changes
        ]
    return TablePart(
        title=f"Everyday alarms of detectors of {net}",
        rows=("detector",),
        columns=tuple(columns),
        note=f"Precision: the share of alarms that are attacks, where 1 % of all images is attacked, by C&W at s = {LAST:g}; in "
        'brackets with either rate at its bound; "-": no alarm. The other columns: alarms on clean images after a change that is '
        "no attack, at thresholds that were set without it.",
    )


def success(net: str, attack: str, tried: Sequence[str], size: str) -> TablePart:
    """Share of images that end up misclassified and accepted, by what the attacker knows."""
    adaptive = f"{attack}, adaptive"
    further = Column(head="extra L2, adaptive", metric="L2", attack=adaptive, over=Cell(attack=attack), show="change")
    extra = [further] if attack == "C&W" else []
    return TablePart(
        title=f"Success of {attack} past detectors of {net}",
        heads=("detector", "alarms allowed"),
        rows=tuple(
            # Who passes a detector that may alarm more often also passes one that may alarm less.
            Row(label=(one, f"{100 * share:g} %"), detector=one, alarms=ALARMS[number:])
            for one in tried
            for number, share in enumerate(ALARMS)
        ),
        columns=(
            Column(head="no detector", metric="success", attack=attack),
            Column(head="oblivious", metric="evasion", attack=attack, scale=1.0),
            Column(head="adaptive", metric="adaptive evasion", attack=(attack, adaptive), scale=1.0),
            *extra,
        ),
        same_images="row",
        note=f"{size}: misclassified and accepted, of the images that the net has right. Oblivious: does not know of the detector. "
        "Adaptive: the worst case per image of the oblivious attack and of those that have the detector, its threshold, and its "
        'gradient or that of a stand-in, judged under draws that no attack has seen; "-": not tried. Robust accuracy with reject '
        "is at most 100 % minus this."
        + (
            " Extra L2: ratio of the means over images that both broke, the adaptive attack past the detector."
            if extra
            else ""
        ),
    )


def roc(net: str, shown: Sequence[str]) -> FigurePart:
    """The ROC of some detectors."""
    return FigurePart(
        title=f"ROC of detectors of {net}",
        kind="roc",
        lines=tuple(Line(label=one, detector=one) for one in shown),
        where=Cell(attack="C&W"),
        caption="Attacked images against clean images accepted, as C&W's perturbation is multiplied by s.",
    )


def claims(tried: Sequence[str]) -> tuple[ClaimPart, ...]:
    """What a vote over tolerances is worth beside the controls, as far as they are tried."""

    def area(detector: str, scale: float) -> Cell:
        return Cell(metric="AUROC", attack="C&W", detector=detector, scale=scale)

    told = (
        (
            "A vote over tolerances ranks images of an oblivious attacker worse than the margin of one pass",
            BASELINE,
            LAST,
        ),
        (
            "A vote over tolerances ranks images of an oblivious attacker worse than noise of as many passes",
            NOISE,
            SCALES[1],
        ),
    )
    return tuple(
        ClaimPart(
            sentence=f"{sentence}, at s = {scale:g}.", left=area(VOTE, scale), relation="<", right=area(control, scale)
        )
        for sentence, control, scale in told
        if {VOTE, control} <= set(tried)
    )
