"""Fill the tables of docs/detectors.md, and draw docs/detectors.svg, from the rows in results/detectors*.

python docs/detectors.py                            write the tables and the figure anew
python docs/detectors.py odefend-study-detectors    first take the rows of that study, of whatever net it is
"""

import sys
from pathlib import Path

from kept import RESULTS, keep
from pages import fill

from odefend.evaluation import Ledger
from odefend.report.figures import roc
from odefend.studies import detectors_report
from odefend.studies.detectors import SETUPS

HERE = Path(__file__).parent
PAGE, FIGURE = HERE / "detectors.md", HERE / "detectors.svg"
PLACES = {setup.net: "detectors" if name == "digits" else f"detectors-{name}" for name, setup in SETUPS.items()}
DRAWN = "mnist-oon"


def rows_of(net: str) -> detectors_report.Rows:
    """The committed rows of the study of that net."""
    return detectors_report.Rows.of(Ledger(RESULTS / PLACES[net]))


def figure() -> str:
    """The ROC of the detectors that watch the solver of the net on MNIST, beside margin and noise, as C&W pushes on."""
    rows = rows_of(DRAWN)
    drawn = roc(rows.before(detectors_report.PLAIN), rows.detectors, rows.scales)
    return drawn.replace("<svg ", '<svg style="background: white" ', 1) + "\n"


def parts() -> dict[str, str]:
    """The page's tables, by the net and their titles."""
    return {
        f"{net}: {table.title}": table.markdown
        for net, place in PLACES.items()
        if (RESULTS / place).exists()
        for table in detectors_report.summary(rows_of(net))
    }


def main() -> None:
    """Write what is generated."""
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
        keep(folder, PLACES[Ledger(folder).read("scored")["net"][0]])
    fill(PAGE, parts())
    FIGURE.write_text(figure(), encoding="utf-8")


if __name__ == "__main__":
    main()
