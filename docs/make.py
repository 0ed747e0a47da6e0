"""Make the tables and figures of the pages from the rows in results/.

python docs/make.py                    write all pages anew
python docs/make.py FOLDER NAME        first take the rows of that study from the folder that `odefend study NAME` wrote
"""

import sys
from pathlib import Path

from pages import fill

from odefend.ledger import Label, Ledger
from odefend.ledger.schema import TABLES
from odefend.metrics import Rows
from odefend.report.claims import judge
from odefend.report.drawn import figure
from odefend.report.experiment_page import told
from odefend.report.filled import table
from odefend.studies import STUDIES

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
README = "../README.md"
PAGES = {
    README: ("demo",),
    "attacks.md": ("presets", "attacks", "distances"),
    "defenses.md": ("defenses", "defenses-mnist", "hardened", "hardened-mnist"),
    "detectors.md": ("detectors-mnist", "detectors"),
    "mnist.md": ("wifs2019", "icprw2020"),
}
"""The studies that fill each page; parts are marked by the title of the table, or as the claims of a study."""
FIGURES = {
    "certified.svg": ("hardened", "Certified accuracy by radius on digits"),
    "certified-mnist.svg": ("hardened-mnist", "Certified accuracy by radius on mnist"),
    "defenses.svg": ("defenses", "Accuracy of defenses of digits-oon under attack"),
    "defenses-mnist.svg": ("defenses-mnist", "Accuracy of defenses of mnist-oon under attack"),
    "detectors.svg": ("detectors-mnist", "ROC of detectors of mnist-oon"),
    "tolerance.svg": ("demo", "Accuracy by tolerance"),
    "mnist.svg": ("wifs2019", "BIM beside the published numbers"),
}
"""The study and the title of each figure that is a file of its own."""


def rows_of(study: str) -> Rows:
    """The committed rows of a study."""
    return Rows.read(Ledger(RESULTS / study), STUDIES[study]().name)


def parts(page: str) -> dict[str, str]:
    """The tables of a page, by their titles, none of what was not run; of the README those that it has a place for, as of all pages
    the claims of studies."""
    found, text = {}, (HERE / page).read_text(encoding="utf-8")
    for study in PAGES[page]:
        experiment, rows = STUDIES[study](), rows_of(study)
        for part in experiment.tables:
            filled = table(part, rows, experiment)
            wanted = page != README or f"<!-- {part.title} -->" in text
            if wanted and any(one["n"] for line in filled.numbers for one in line.values()):
                found[part.title] = filled.markdown
        if f"<!-- claims of {study} -->" in text:
            claims = (told(judge(claim, rows)) for claim in experiment.claims)
            found[f"claims of {study}"] = "\n".join(f"- {claim}" for claim in claims)
    return found


def figures() -> dict[Path, str]:
    """The figures, on white so that they read on dark pages as well."""
    drawn = {}
    for name, (study, title) in FIGURES.items():
        (part,) = (one for one in STUDIES[study]().figures if one.title == title)
        text = figure(part, rows_of(study))
        drawn[HERE / name] = text.replace("<svg ", '<svg style="background: white" ', 1) + "\n"
    return drawn


def keep(folder: Path, study: str) -> None:
    """Copy the rows of a finished study to results/STUDY, without its images, in place of what is there."""
    source, name, kept = Ledger(folder / "ledger"), STUDIES[study]().name, RESULTS / study
    labels = source.labels(name)
    if not labels.height:
        raise ValueError(
            f"{folder}: expected the rows of {name}, found none. Name a folder of `odefend study {study}`."
        )
    for old in kept.rglob("*.parquet"):
        old.unlink()
    target = Ledger(kept)
    for one in TABLES:
        rows = source.rows(one).join(labels.filter(table=one).select("key").unique(), on="key", how="semi")
        for (key,), part in rows.group_by("key", maintain_order=True):
            target.write(one, str(key), part.drop("key", "schema_version").to_dict(as_series=False))
    target.label(name, ((row[0], row[1], Label(*row[3:])) for row in labels.iter_rows()))
    target.pack()


def main() -> None:
    """Write everything that is generated."""
    if len(sys.argv) > 1:
        keep(Path(sys.argv[1]), sys.argv[2])
    for page in PAGES:
        fill(HERE / page, parts(page))
    for path, text in figures().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
