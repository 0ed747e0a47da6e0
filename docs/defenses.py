"""Fill the tables of defenses at test time in docs/defenses.md, and draw its figure, from the rows in results/defenses*.

python docs/defenses.py                                    write them anew
python docs/defenses.py FOLDER defenses-mnist              first take the rows of that study from its folder
"""

import json
import shutil
import sys
from pathlib import Path

from kept import RESULTS, keep
from pages import fill

from odefend.evaluation import Ledger
from odefend.report.tuning import operating_points
from odefend.report.withstood import withstood
from odefend.studies import defenses, defenses_report

HERE = Path(__file__).parent
PAGE, WITHSTOOD = HERE / "defenses.md", HERE / "defenses.svg"


def place(study: str, name: str) -> Path:
    """Where the rows of a study are kept."""
    return RESULTS / (study if name == "digits" else f"{study}-{name}")


def on_trial() -> dict[str, tuple[defenses.Setup, defenses_report.Rows, list[defenses.Subject]]]:
    """The committed studies of the defenses."""
    found = {}
    for name, setup in defenses.SETUPS.items():
        folder = place("defenses", name)
        if folder.exists():
            tried = defenses.subjects(setup, defenses.points(folder, setup))
            found[name] = (setup, defenses_report.Rows.of(Ledger(folder)), tried)
    return found


def parts() -> dict[str, str]:
    """The page's tables, by study, data and title."""
    found = {}
    for name, (setup, rows, tried) in on_trial().items():
        for table in defenses_report.summary(rows, setup, tried):
            found[table.title] = table.markdown
        paths = [place("defenses", name) / "points" / f"{defense}.json" for defense in setup.defenses]
        points = operating_points([json.loads(path.read_text(encoding="utf-8")) for path in paths])
        found[points.title] = points.markdown
    return found


def figures() -> dict[Path, str]:
    """The page's figure, on white so that it reads on dark pages as well."""
    trials = {setup.net: defenses_report.withstood(rows, tried) for setup, rows, tried in on_trial().values()}
    drawn = {WITHSTOOD: withstood(trials)}
    return {path: text.replace("<svg ", '<svg style="background: white" ', 1) + "\n" for path, text in drawn.items()}


def main() -> None:
    """Write what is generated."""
    if len(sys.argv) > 1:
        folder, name = Path(sys.argv[1]), sys.argv[2]
        keep(folder, name, f"{name.split('-')[0]}-")
        if (folder / "points").exists():
            shutil.copytree(folder / "points", RESULTS / name / "points", dirs_exist_ok=True)
    fill(PAGE, parts())
    for path, text in figures().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
