"""The measurements as Markdown: every time beside odefend's, and the targets with whether they were met."""

from collections.abc import Iterable
from typing import Any

ORDER = (
    "odefend",
    "torchdiffeq",
    "torchdiffeq, one by one",
    "torchdiffeq, adjoint",
    "torchode",
    "odefend, checkpoint",
    "odefend, exact",
    "odefend, adjoint",
)
FLOOR = "one evaluation of f"


def median(row: dict[str, Any], who: str) -> float | None:
    """Its median ms in a row; None where it did not take part."""
    return row["ms"][who]["median"] if who in row["ms"] else None


def floor(row: dict[str, Any]) -> float:
    """Mean NFE times one evaluation of the folded field on the whole batch, ms."""
    return row["nfe"] * row["ms"][FLOOR]["median"]


def cell(row: dict[str, Any], who: str) -> str:
    ms, ours = median(row, who), row["ms"]["odefend"]["median"]
    if ms is None:
        return ""
    text = f"{ms:,.0f}" if ms >= 10 else f"{ms:.1f}"
    return text if who == "odefend" else f"{text} ({ms / ours:.2f}x)"


def table(head: Iterable[str], body: Iterable[Iterable[str]]) -> list[str]:
    head = list(head)
    return ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *body)]


def described(machine: dict[str, Any]) -> str:
    """A line on what it ran on."""
    return f"Machine: {', '.join(f'{name} {value}' for name, value in machine.items())}."


def times(rows: list[dict[str, Any]]) -> list[str]:
    """The rows of one net and one kind of work."""
    there = [who for who in ORDER if any(who in row["ms"] for row in rows)]
    body = [
        [
            f"{row['batch']}{', spread' * row['spread']}",
            f"{row['tolerance']:g}",
            f"{row['nfe']:.1f}",
            *(cell(row, who) for who in there),
            f"{floor(row):,.0f} ({row['ms']['odefend']['median'] / floor(row):.2f})",
        ]
        for row in sorted(rows, key=lambda row: (row["batch"], row["spread"], row["tolerance"]))
    ]
    return table(["B", "tolerance", "mean NFE", *there, "floor (odefend over it)"], body)


def targets(found: dict[str, Any]) -> list[str]:
    """The performance contract, line by line."""
    forward, both = (
        next(
            row
            for row in found["rows"]
            if row["net"].startswith("OON") and row["work"] == work and row["batch"] == 128
            and row["tolerance"] == 1e-3 and not row["spread"] and row["precision"] == "float32"
        )
        for work in ("forward", "forward + backward")
    )  # fmt: skip
    spread = next(row for row in found["rows"] if row["spread"] and row["work"] == "forward")
    ours, mib = forward["ms"]["odefend"]["median"], found["memory_mib"]

    def over(row: dict[str, Any], who: str) -> tuple[float, str]:
        """How much faster than a peer, and how much faster the floor is."""
        theirs = row["ms"][who]["median"]
        return theirs / row["ms"]["odefend"]["median"], f"{theirs / floor(row):.2f}"

    lines = [
        ("forward, over torchdiffeq", over(forward, "torchdiffeq"), ">=", 2.5),
        ("forward, over torchode", over(forward, "torchode"), ">=", 1.5),
        ("forward, over torchdiffeq one by one", over(forward, "torchdiffeq, one by one"), ">=", 5.0),
        ("forward, of mean NFE x folded f", (ours / floor(forward), "1"), "<=", 1.1),
        ("forward + backward, over torchdiffeq", over(both, "torchdiffeq"), ">=", 2.5),
        ("forward + backward, over its adjoint", over(both, "torchdiffeq, adjoint"), ">=", 4.0),
        ("peak memory of checkpoint, of torchdiffeq's", (mib["checkpoint"] / mib["torchdiffeq"], ""), "<=", 0.5),
        ("forward, amplitudes from 0.1 to 10, over torchdiffeq", over(spread, "torchdiffeq"), ">=", 4.0),
    ]
    body = []
    for name, (value, attainable), sign, target in lines:
        met = value >= target if sign == ">=" else value <= target
        body.append([name, f"{value:.2f}", f"{sign} {target:g}", "met" if met else "**missed**", attainable])
    head = ["OON, K = 64, B = 128, tolerance 1e-3, float32", "measured", "target", "", "the floor itself"]
    return table(head, body)


def written(found: dict[str, Any]) -> str:
    """The whole page."""
    lines = [
        "# The solver beside its peers",
        "",
        "Made by `make bench`; see README.md here.",
        "",
        described(found["machine"]),
    ]
    lines += ["", "Medians in ms; in brackets, the time over odefend's in the same run.", "", "## Targets", ""]
    lines += [*targets(found), ""]
    plain = [row for row in found["rows"] if row["precision"] == "float32"]
    for net in dict.fromkeys(row["net"] for row in plain):
        for work in dict.fromkeys(row["work"] for row in plain):
            lines += [f"## {net}: {work}", ""]
            lines += [*times([row for row in plain if row["net"] == net and row["work"] == work]), ""]
    lines += ["## f in bfloat16", ""]
    low = [row for row in found["rows"] if row["precision"] == "bfloat16"]
    body = [
        [
            row["work"],
            *(f"{row['ms'][who]['median']:,.0f}" for who in ("odefend", "odefend, f in bfloat16")),
            f"{row['nfe']:.1f}",
            f"{row['low_nfe']:.1f}",
            f"{row['error']:.2g}",
            f"{row['low_error']:.2g}",
        ]
        for row in low
    ]
    head = ["K = 64, B = 128, 1e-3", "float32", "bfloat16", "NFE", "NFE, bfloat16", "state error", "in bfloat16"]
    lines += [*table(head, body), "", "The error is relative, against the solve at 1e-6 in float32.", ""]
    lines += ["## Peak memory of forward + backward", ""]
    lines += [
        *table(["K = 64, B = 128, 1e-3", "MiB added"], [[k, f"{v:,.0f}"] for k, v in found["memory_mib"].items()])
    ]
    for work, operations in found["profiles"].items():
        lines += ["", f"## Where odefend's time goes: {work}, K = 64, B = 128, 1e-3", ""]
        lines += table(["operation", "share", "calls"], [[f"`{k}`", f"{v:.1%}", str(n)] for k, v, n in operations])
    return "\n".join(lines) + "\n"
