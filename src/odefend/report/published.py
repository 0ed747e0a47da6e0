"""What was measured beside what is in print."""

from collections.abc import Iterator
from dataclasses import dataclass

from odefend import intervals
from odefend.evaluation.robustness import attacked
from odefend.evaluation.spec import Published
from odefend.intervals import Interval
from odefend.report import figures
from odefend.report.page import Section
from odefend.report.rows import Rows
from odefend.report.table import Table


@dataclass(frozen=True)
class Pair:
    """One printed success, and the measured one with its interval; the tolerance is None for a net without a solver."""

    printed: Published
    net: str
    tolerance: float | None
    success: float
    mse: float | None
    measured: Interval
    measured_mse: Interval


def pairs(rows: Rows) -> Iterator[Pair]:
    """All printed numbers that something was measured beside."""
    about = rows.evaluation
    for printed in about.published:
        net = about.control if printed.control and about.control else about.net
        at = (None,) if printed.control else printed.at or about.attacked_at(about.trial(printed.trial))
        for place, (success, tolerance) in enumerate(zip(printed.success, at, strict=True)):
            made = attacked(rows.made(printed.trial, net, printed.epsilon, tolerance))
            hits = made.filter("success")
            if made.height:
                yield Pair(
                    printed,
                    net,
                    made["rtol"].first(),  # type: ignore[arg-type]
                    success,
                    printed.mse[place] if printed.mse else None,
                    intervals.rate(hits.height, made.height),
                    intervals.mean(hits["mse"].to_numpy()),
                )


def published_table(rows: Rows) -> Table:
    """Each printed number and the measured one."""
    cells, found = list[tuple[str, ...]](), list(pairs(rows))
    distances = any(pair.mse is not None for pair in found)
    for pair in found:
        radius, tolerance = pair.printed.epsilon, pair.tolerance
        cells.append(
            (
                pair.printed.trial,
                pair.net,
                "-" if radius is None else f"{radius:g}",
                "-" if tolerance is None else f"{tolerance:g}",
                f"{100 * pair.success:.1f} %",
                pair.measured.percent,
                f"{100 * (pair.measured.value - pair.success):+.1f}",
                *(("-" if pair.mse is None else f"{pair.mse:.3g}", _short(pair.measured_mse)) if distances else ()),
            )
        )
    return Table(
        "Beside the published numbers",
        (
            "attack",
            "net",
            "radius",
            "tolerance",
            "published success",
            "measured success",
            "measured minus published, points",
            *(("published mean MSE", "measured mean MSE") if distances else ()),
        ),
        tuple(cells),
        f"Published by: {'; '.join(dict.fromkeys(pair.printed.source for pair in found))}. Theirs are other trained nets and "
        "more images; the intervals are over the images here alone, and of one net each.",
    )


def _line(pair: Pair, others: list[Pair]) -> str:
    """What a line of the figure is called: by radius, and by source where several print the same."""
    radius = pair.printed.trial if pair.printed.epsilon is None else f"radius {pair.printed.epsilon:g}"
    sources = {
        one.printed.source
        for one in others
        if (one.printed.trial, one.printed.epsilon) == (pair.printed.trial, pair.printed.epsilon)
    }
    return radius if len(sources) == 1 else f"{radius}, {pair.printed.source}"


def _short(value: Interval) -> str:
    """With three digits that count, however small."""
    return f"{value.value:.3g} [{value.low:.3g}, {value.high:.3g}]" if value.n else "no data"


def published_lessons(rows: Rows) -> list[str]:
    """For each attack that was printed at several tolerances, where it changes most over them in print: how much it does here."""
    found, told = list(pairs(rows)), list[str]()
    for trial in dict.fromkeys(pair.printed.trial for pair in found):
        series = [
            sorted((pair for pair in found if pair.printed is printed), key=lambda pair: pair.tolerance or 0.0)
            for printed in rows.evaluation.published
            if printed.trial == trial and len(printed.at) > 1
        ]
        series = [one for one in series if len(one) > 1]
        if not series:
            continue
        first, *_, last = max(series, key=lambda one: abs(one[0].success - one[-1].success))
        radius = "" if first.printed.epsilon is None else f" of radius {first.printed.epsilon:g}"
        told.append(
            f"In print ({first.printed.source}), {trial}{radius} breaks {100 * first.success:.1f} % of the images at tolerance "
            f"{first.tolerance:g} and {100 * last.success:.1f} % at {last.tolerance:g}; here it breaks "
            f"{first.measured.percent} and {last.measured.percent} of {first.net}, another net of the same design."
        )
    return told


def published_section(rows: Rows) -> Section | None:
    """The printed numbers as points beside the measured curves."""
    found = list(pairs(rows))
    if not found:
        return None
    return Section(
        "Beside the published numbers",
        (),
        tuple(
            (
                figures.published(
                    [
                        (_line(pair, found), pair.tolerance, pair.success, pair.measured)
                        for pair in found
                        if pair.printed.trial == trial and pair.tolerance is not None
                    ],
                    trial,
                ),
                f"{trial}, attacked and judged at the same tolerance: measured with 95 % intervals (lines), and in print "
                "(squares).",
            )
            for trial in dict.fromkeys(pair.printed.trial for pair in found if pair.tolerance is not None)
        ),
        (published_table(rows),),
    )
