"""What importing odefend and asking for help costs, and that its names are there all the same."""

import subprocess
import sys

import pytest

import odefend
from odefend import attacks, solver

HEAVY = {"torch", "numpy", "polars", "scipy", "sklearn", "matplotlib", "lightning_fabric", "requests"}
LOADED = f"print('loaded:', *sorted({HEAVY} & sys.modules.keys()))"


def loaded_by(code: str) -> str:
    """The heavy packages that a fresh Python has loaded after some code."""
    told = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{LOADED}"], capture_output=True, text=True, check=True
    )
    return told.stdout.splitlines()[-1].removeprefix("loaded:")


def test_importing_loads_nothing_heavy():
    assert loaded_by("import odefend; dir(odefend), odefend.__version__, odefend.OdefendError") == ""
    assert "torch" in loaded_by("import odefend; odefend.solve")


@pytest.mark.parametrize("arguments", [["--help"], ["evaluate", "--help"], ["ledger", "verify", "--help"]])
def test_help_loads_nothing_heavy(arguments):
    code = f"sys.argv[1:] = {arguments}\nfrom odefend.cli import main\ntry: main()\nexcept SystemExit as end: assert not end.code"
    assert loaded_by(code) == ""


def test_every_public_name_is_there_and_no_other():
    everything = {name: getattr(odefend, name) for name in dir(odefend)}
    assert everything["PGD"] is attacks.PGD and everything["solve"] is solver.solve
    starred = {}
    exec("from odefend import *", starred)
    assert starred.keys() - {"__builtins__"} == {*vars(odefend)["__all__"]} <= everything.keys()
    with pytest.raises(AttributeError, match=r"unknown attribute of odefend 'PDG'\. Did you mean 'PGD'"):
        odefend.PDG  # noqa: B018 # type: ignore[attr-defined]
