"""Data sets: where they are, fetching them, checking them."""

from typing import Any

from odefend.cli.output import print_json, say, show, table_json
from odefend.cli.progress import showing
from odefend.data import SOURCES, SPLITS, fetch, local_copy, named_data, unchecked_files, wrong_files
from odefend.errors import DataError, InvalidInput, OdefendError, unknown
from odefend.report import Table

MADE = "made of tiny-imagenet-200 when asked for. That can be fetched: odefend data fetch tiny-imagenet-200."
NOTHING_TO_FETCH = {
    "digits": "comes with scikit-learn, so there is nothing to fetch.",
    "forensic-pairs": MADE,
    "forensic-kinds": MADE,
    "folder": "your own pictures, so there is nothing to fetch.",
}
"""What the data sets are that nobody publishes for download."""


def run_list(as_json: bool) -> None:
    """The data sets."""
    rows = [("digits", "1,797 grey pictures of 8x8 pixels, 10 digits", "comes with scikit-learn")]
    for name, source in SOURCES.items():
        here = local_copy(name)
        rows.append((name, source.what, str(here) if here else f"not here; a download of {source.megabytes} MB"))
    rows.append(
        ("forensic-pairs", "pristine and tampered pictures, made from tiny-imagenet-200", "made when asked for")
    )
    rows.append(("forensic-kinds", "the same under all tamperings, labelled by kind", "made when asked for"))
    rows.append(("folder", "your own pictures: folder(split, path=...), one folder for each class", "yours"))
    note = "Looked for below --data-dir or $ODEFEND_DATA, then among downloads. odefend data fetch NAME gets one."
    table = Table("Data sets", ("name", "what", "where"), tuple(rows), note)
    if as_json:
        print_json(table_json(table))
        return
    show(table)


def run_fetch(name: str, quiet: bool) -> None:
    """A download."""
    if name in NOTHING_TO_FETCH:
        say(f"{name}: {NOTHING_TO_FETCH[name]}")
        return
    with showing(quiet) as progress:
        here = fetch(name, progress)
    say(f"{name}: {here}")


def run_check(names: list[str], as_json: bool) -> int:
    """What the files are; 1 if anything is wrong with them."""
    for name in names:
        if name in NOTHING_TO_FETCH and name != "digits":
            raise InvalidInput(
                f"{name}: expected a published data set, whose checksums are known, got one {NOTHING_TO_FETCH[name]}"
            )
        if name not in ("digits", *SOURCES):
            raise unknown("data set", name, ("digits", *SOURCES))
    names = names or [name for name in SOURCES if local_copy(name)]
    if not names:
        raise DataError(
            "data sets: expected one or more on this machine, found none. Fetch one: odefend data fetch mnist."
        )
    found = [_checked(name) for name in names]
    if as_json:
        print_json(found)
    else:
        rows = tuple((one["name"], one["where"], one["splits"], one["verdict"]) for one in found)
        note = "Splits: number of pictures and digest of ids, labels and pixels, the same on every machine."
        show(Table("Data sets checked", ("name", "where", "splits", "verdict"), rows, note))
    return int(not all(one["right"] for one in found))


def _checked(name: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": name,
        "where": "scikit-learn",
        "splits": "",
        "verdict": "as published",
        "right": True,
    }
    try:
        if name in SOURCES:
            here = local_copy(name) or fetch(name)
            told["where"] = str(here)
            wrong, unchecked = wrong_files(name, here), unchecked_files(name, here)
            if unchecked:
                told["verdict"] = f"readable, but there is no checksum for {', '.join(unchecked)}"
            if wrong:
                told["verdict"], told["right"] = f"not as published: {', '.join(wrong)}", False
        for split in SPLITS:
            part = named_data(name, split)
            told["splits"] += f"{split} {len(part):,} ({part.digest}) "
    except OdefendError as error:
        told["verdict"], told["right"] = str(error), False
    return told
