"""What the README shows is run."""

import importlib.util
import re
from pathlib import Path

import make
import pytest
import torch
from pages import fill, filled

from odefend.defenses import DEFENSES
from odefend.ledger import Label, Ledger
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


def test_the_example_on_defenses_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "defenses.md").read_text(), re.S)
    exec(compile(example, "defenses.md", "exec"), {})
    certified, of, abstain = map(int, re.findall(r"(\d+)(?: of| right| abstain)", capsys.readouterr().out))
    assert of == 20 and certified >= 10 and certified + abstain <= 20


def test_the_page_on_defenses_names_all_of_them():
    page = (ROOT / "docs" / "defenses.md").read_text()
    assert all(f"`{defense.__name__}(" in page for defense in DEFENSES.values())


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


@pytest.mark.parametrize("page", make.PAGES)
def test_a_page_is_made_of_the_committed_rows(page):
    path = ROOT / "docs" / page
    parts = make.parts(page)
    assert parts and filled(path, parts) == path.read_text()


def test_figures_are_drawn_of_the_committed_rows():
    for path, text in make.figures().items():
        assert path.read_text() == text


def test_the_page_of_the_zoo_is_made_of_the_cards():
    script = script_of("zoo")
    assert filled(script.PAGE, script.parts(cards())) == script.PAGE.read_text()
    assert (ROOT / "docs" / "training.svg").read_text() == script.figure(cards())


def test_the_page_on_scale_is_made_of_the_measured_costs():
    script = script_of("scale")
    assert filled(script.PAGE, script.parts()) == script.PAGE.read_text()


def test_a_page_is_filled_between_its_markers_and_nowhere_else(tmp_path):
    page, parts = tmp_path / "page.md", {"a (1)": r"| \1 |", "b": "two\nlines"}
    page.write_text("before\n<!-- a (1) -->\nold\n<!-- end -->\nbetween\n<!-- b -->\n<!-- end -->\nafter\n")
    fill(page, parts)
    done = "before\n<!-- a (1) -->\n| \\1 |\n<!-- end -->\nbetween\n<!-- b -->\ntwo\nlines\n<!-- end -->\nafter\n"
    assert page.read_text() == done
    assert filled(page, parts) == done


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("<!-- b -->\n<!-- end -->\n", 0),
        ("<!-- a -->\nno end\n", 0),
        ("<!-- a -->\nno end\n<!-- b -->\n<!-- end -->\n", 0),
        ("<!-- a -->\n<!-- end -->\n" * 2, 2),
    ],
    ids=["no marker", "no end", "the end of another", "twice"],
)
def test_a_part_without_its_one_place_is_refused(text, count, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=rf"page\.md: expected one pair of markers <!-- a -->.*, got {count}\."):
        fill(page, {"a": "new"})
    assert page.read_text() == text


def test_rows_of_a_study_are_kept_without_its_images_in_place_of_older_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(make, "RESULTS", tmp_path / "results")
    ledger, study = Ledger(tmp_path / "run" / "ledger"), Label("clean", "net")
    for number, name in enumerate(("presets", "other")):
        ledger.write("judged", f"{number}" * 20, {"image": ["a", "b"], "net": "x"})
        ledger.label(name, [("judged", f"{number}" * 20, study)])
    ledger.write_images("0" * 20, torch.zeros(2, 1, 8, 8))
    there = Ledger(tmp_path / "results" / "presets")
    for _ in range(2):
        make.keep(tmp_path / "run", "presets")
        assert there.read("judged")["key"].to_list() == ["0" * 20] * 2 and there.labels()["experiment"].to_list() == [
            "presets"
        ]
        assert not (there.folder / "images").exists()
    with pytest.raises(ValueError, match="expected the rows of presets, found none"):
        make.keep(tmp_path / "mistyped", "presets")
    assert there.read("judged").height == 2
