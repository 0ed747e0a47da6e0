"""What the README shows is run."""

import importlib.util
import json
import re
from pathlib import Path

from odefend.models import cards

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_examples_run(capsys):
    first, own = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len([line for line in first.splitlines() if line.strip()]) <= 12
    for example, says in ((first, "judged at tolerance"), (own, "how: broadcast_column sample")):
        exec(compile(example, "README.md", "exec"), {})
        assert says in capsys.readouterr().out


def test_the_example_on_detectors_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "detectors.md").read_text(), re.S)
    exec(compile(example, "detectors.md", "exec"), {})
    assert re.match(r"\d+ of \d+ alarm; p-values from 0\.\d{3}\n$", capsys.readouterr().out)


def test_its_commands_are_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for command in set(re.findall(r"make (\w[\w-]*)", README)):
        assert re.search(rf"^{command}:", makefile, re.M), command


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def script_of(name):
    spec = importlib.util.spec_from_file_location(f"{name}_script", ROOT / "docs" / f"{name}.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_its_table_and_figure_are_made_of_the_committed_rows():
    script = script_of("figures")
    rows = script.kept()
    assert script.filled(README, rows) == README
    assert "| --- |" in script.block(rows)
    assert (ROOT / "docs" / "tolerance.svg").read_text() == script.figure(rows)


def test_the_page_of_the_zoo_is_made_of_the_cards():
    script, page = script_of("zoo"), (ROOT / "docs" / "zoo.md").read_text()
    assert script.filled(page, cards()) == page
    assert (ROOT / "docs" / "training.svg").read_text() == script.figure(cards())


def test_the_page_on_scale_is_made_of_the_measured_costs():
    script, page = script_of("scale"), (ROOT / "docs" / "scale.md").read_text()
    assert script.filled(page, script.tables(json.loads(script.MEASURED.read_text()))) == page


def test_the_page_on_mnist_is_made_of_the_committed_rows():
    script, page = script_of("mnist"), (ROOT / "docs" / "mnist.md").read_text()
    rows = script.kept()
    assert script.filled(page, rows) == page
    assert (ROOT / "docs" / "mnist.svg").read_text() == script.figure(rows)


def test_the_page_of_the_attacks_is_made_of_the_committed_rows():
    script, page = script_of("attacks"), (ROOT / "docs" / "attacks.md").read_text()
    assert script.filled(page) == page
    assert page.count("| --- |") >= 7
