"""The command line in this process: what a shell sees of it, without the seconds that a new interpreter takes to load torch."""

import os
import subprocess
import sys
from unittest import mock

import pytest
from typecheck import unchecked

from odefend.cli import main


@pytest.fixture
def cli(capsys):
    """`odefend ARGUMENTS`, as subprocess.run gives it: the exit status, standard output and standard error of `main`.

    Without the run-time checks of types, which do not know that Typer hands commands a context of another class.
    """

    def run(*arguments, cwd=".", env=None):
        capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch, mock.patch.dict(os.environ, {"COLUMNS": "80", **(env or {})}):
            patch.setattr(sys, "argv", ["odefend", *map(str, arguments)])
            patch.chdir(cwd)
            with unchecked(), pytest.raises(SystemExit) as ended:
                main()
        told, status = capsys.readouterr(), ended.value.code or 0
        assert isinstance(status, int)
        return subprocess.CompletedProcess(sys.argv, status, told.out, told.err)

    return run
