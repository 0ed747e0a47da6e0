"""The measurements as Markdown: every time beside odefend's, and the contract with whether it was kept."""

from collections.abc import Iterable
from typing import Any

ORDER = (
    "odefend",
    "torchdiffeq",
    "torchode",
    "odefend, checkpoint",
    "odefend, exact",
    "odefend, adjoint",
    "torchdiffeq, adjoint",
)
FLOOR = "one evaluation of f"
Row = dict[str, Any]


def median(row: Row, who: str) -> float:
    """Its median ms in a row."""
    return row["ms"][who]["median"]


def floor(row: Row) -> float:
    """Mean NFE times one evaluation of the folded field on the whole batch, ms."""
    return row["nfe"] * median(row, FLOOR)


def cell(row: Row, who: str) -> str:
    if who not in row["ms"]:
        return ""
    ms = median(row, who)
    text = f"{ms:,.0f}" if ms >= 10 else f"{ms:.1f}"
    return text if who == "odefend" else f"{text} ({ms / median(row, 'odefend'):.2f}x)"


def table(head: Iterable[str], body: Iterable[Iterable[str]]) -> list[str]:
    head = list(head)
    return ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *body)]


def described(machine: Row) -> str:
    """A line on what it ran on."""
    return f"Machine: {', '.join(f'{name} {value}' for name, value in machine.items())}."


def times(rows: list[Row]) -> list[str]:
    """The rows of one net and one kind of work."""
    there = [who for who in ORDER if any(who in row["ms"] for row in rows)]
    body = [
        [
            str(row["threads"]),
            f"{row['batch']}{', spread' * row['spread']}{', beside other work' * row['loaded']}",
            f"{row['tolerance']:g}",
            f"{row['nfe']:.1f}",
            *(cell(row, who) for who in there),
            f"{floor(row):,.0f} ({median(row, 'odefend') / floor(row):.2f})",
        ]
        for row in sorted(
            rows, key=lambda row: (row["threads"], row["loaded"], row["spread"], row["batch"], row["tolerance"])
        )
    ]
    return table(["threads", "B", "tolerance", "mean NFE", *there, "floor (odefend over it)"], body)


def contract(rows: list[Row], mib: dict[str, float]) -> list[str]:
    """The performance contract, line by line."""
    body = []
    for row in rows:
        if not row["main"]:
            continue
        ours, threads = median(row, "odefend"), f"{row['threads']} thread{'s' * (row['threads'] > 1)}"
        ratios = [f"{median(row, peer) / ours:.2f}" for peer in ("torchdiffeq", "torchode")]
        over = ours / floor(row)
        met = "met" if over <= 1.1 else "**missed**"
        body.append([f"{row['work']}, {threads}", f"{over:.2f}", "<= 1.10", met, *ratios])
    if {"checkpoint", "torchdiffeq"} <= set(mib):
        share = mib["checkpoint"] / mib["torchdiffeq"]
        met = "met" if share <= 0.2 else "**missed**"
        body.append(["peak memory of checkpoint, of torchdiffeq's", f"{share:.2f}", "<= 0.2", met, "", ""])
    head = ["mnist-oon, B = 128, tolerance 1e-3", "odefend / floor", "target", "", "torchdiffeq / odefend"]
    return table([*head, "torchode / odefend"], body)


def written(found: Row) -> str:
    """The whole page, of what there is so far."""
    rows, mib = found["rows"], found["memory_mib"]
    lines = [
        "# The solver beside its peers",
        "",
        "Made by `make bench`; see README.md here.",
        "",
        described({name: value for name, value in found["machine"].items() if name != "threads"}),
        "",
        "Medians in ms; in brackets, the time over odefend's in the same run.",
        "",
        "## The contract",
        "",
        *contract(rows, mib),
    ]
    for net in dict.fromkeys(row["net"] for row in rows):
        for work in dict.fromkeys(row["work"] for row in rows):
            some = [row for row in rows if row["net"] == net and row["work"] == work]
            lines += ["", f"## {net}: {work}", "", *(times(some) if some else [])]
    if mib:
        lines += ["", "## Peak memory of forward + backward", ""]
        lines += table(["mnist-oon, B = 128, 1e-3", "MiB added"], [[k, f"{v:,.0f}"] for k, v in mib.items()])
    for work, operations in found["profiles"].items():
        lines += ["", f"## Where odefend's time goes: {work}, mnist-oon, B = 128, 1e-3, one thread", ""]
        lines += table(["operation", "share", "calls"], [[f"`{k}`", f"{v:.1%}", str(n)] for k, v, n in operations])
    return "\n".join(lines) + "\n"
