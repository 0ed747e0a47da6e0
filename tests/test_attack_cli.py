"""`odefend attack` and `odefend attacks`, in this process: what is written, what is said, and what is refused."""

import json
from pathlib import Path

import pytest
from PIL import Image

import odefend
from odefend.attacks import ATTACKS, PRESETS
from odefend.ledger import Ledger


@pytest.fixture
def run(cli):
    def command(arguments, status=0):
        done = cli(*arguments)
        assert done.returncode == status, done.stderr
        return done

    return command


def test_attack_crafts_once_and_goes_on(tmp_path, run):
    out = tmp_path / "found"
    command = [
        "attack",
        "digits-oon",
        "--attack",
        "pgd",
        "--set",
        "epsilon=0.2",
        "--set",
        "steps=3",
        "--set",
        "norm=linf",
    ]
    command += ["--images", "6", "--shard", "3", "--workers", "1", "--out", str(out), "--json"]
    first = json.loads(run(command).stdout)
    ledger = Ledger(out)
    rows = ledger.read("crafted")
    assert rows.height == 6 and rows["search_precision"].unique().to_list() == ["full"] and rows["epsilon"][0] == 0.2
    for key in first["keys"]:
        assert ledger.read_images(key).shape == (3, 1, 8, 8)
    assert Path(first["figure"]).read_text(encoding="utf-8").startswith("<svg")
    assert first["tables"][0]["rows"][0]["images"] == "6" and first["warnings"] == []
    # A shard that is lost is crafted again, the same; the other is left alone.
    gone, kept = (out / "crafted" / f"{key}.parquet" for key in first["keys"])
    gone.unlink()
    before = kept.stat().st_mtime_ns
    assert json.loads(run(command).stdout) == first
    assert kept.stat().st_mtime_ns == before and ledger.read("crafted").equals(rows)
    other = json.loads(run([*command, "--seed", "1"]).stdout)
    assert set(other["keys"]).isdisjoint(first["keys"])


def test_attack_on_images_drawn_at_random(tmp_path, run):
    sized = ["attack", "digits-res", "--attack", "fgsm", "--set", "epsilon=0.1", "--images", "5", "--shard", "3"]
    run([*sized, "--sample", "7", "--workers", "1", "--out", str(tmp_path), "-q"])
    assert set(Ledger(tmp_path).read("crafted")["image"]) == set(odefend.digits("test").sample(5, seed=7).ids)


def test_a_folder_of_pictures_is_attacked(tmp_path, run):
    for number in range(18):
        place = tmp_path / "mine" / "0123456789"[number % 10] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((8, 8), 5 * number).convert("RGB").save(place)
    common = [
        "--attack",
        "fgsm",
        "--set",
        "epsilon=0.2",
        "--workers",
        "1",
        "--out",
        str(tmp_path / "out"),
        "--json",
        "-q",
    ]
    data = ["--data", str(tmp_path / "mine")]
    two = run(["attack", "digits-res", *data, *common])
    assert "2 of its 18 pictures" in two.stderr and "100 asked for, 2 taken" in two.stderr
    assert json.loads(two.stdout)["tables"][0]["rows"][0]["images"] == "2"
    every = run(["attack", "digits-res", *data, "--split", "all", "--images", "18", *common])
    assert every.stderr == "" and json.loads(every.stdout)["tables"][0]["rows"][0]["images"] == "18"
    other = ["--data", "folder", "--data-set", f"path={tmp_path / 'mine'}", "--data-set", "grey=true"]
    again = run(["attack", "digits-res", *other, "--split", "all", "--images", "18", *common])
    assert json.loads(again.stdout)["keys"] == json.loads(every.stdout)["keys"]
    assert "option path" in run(["attack", "digits-res", "--data", "folder", *common], 2).stderr


def test_a_net_trained_on_a_folder_knows_its_pictures(tmp_path, run):
    mine = tmp_path / "mine"
    for number in range(20):
        place = mine / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((8, 8), 5 * number).convert("RGB").save(place)
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        f'name = "mine"\nmodel = "oon-matched"\noptions = {{ width = 4, classes = 2, in_channels = 3 }}\ndata = "folder"\n'
        f'data_options = {{ path = "{mine}", size = 6 }}\nepochs = 1\nbatch_size = 8\n'
    )
    run(["train", str(recipe), "--out", str(tmp_path), "-q"])
    command = [
        "attack",
        str(tmp_path / "mine.safetensors"),
        "--attack",
        "fgsm",
        "--set",
        "epsilon=0.2",
        "--workers",
        "1",
    ]
    run([*command, "--images", "2", "--out", str(tmp_path / "out"), "-q"])
    (key,) = (path.stem for path in (tmp_path / "out" / "images").iterdir())
    assert Ledger(tmp_path / "out").read_images(key).shape == (2, 3, 6, 6)
    with mine.joinpath("a", "0.png").open("wb") as file:
        file.write(b"no picture")
    assert "0.png: not a picture" in run([*command, "--split", "all", "--out", str(tmp_path / "out"), "-q"], 2).stderr


def test_an_attack_where_no_image_was_right_before_is_told(tmp_path, run):
    command = ["attack", "digits-oon", "--start", "25", "--images", "1", "--workers", "1", "--out", str(tmp_path)]
    told = json.loads(run([*command, "--json"]).stdout)
    (row,) = told["tables"][0]["rows"]
    assert (row["images"], row["wrong before"], row["broken"]) == ("1", "1", "no data")
    assert "no image was right before" in Path(told["figure"]).read_text(encoding="utf-8")


def test_attack_with_a_source_in_bfloat16_pushed_on(tmp_path, run):
    command = ["attack", "digits-oon", "--attack", "fast", "--set", "steps=4", "--set", "search_precision=bfloat16"]
    command += [
        "--source-tolerance",
        "1e-5",
        "--push",
        "1.1",
        "--images",
        "2",
        "--workers",
        "1",
        "--out",
        str(tmp_path),
    ]
    told = json.loads(run([*command, "--json"]).stdout)
    row = Ledger(tmp_path).read("crafted").row(0, named=True)
    assert row["search_precision"] == "bfloat16" and row["source_rtol"] == 1e-5 and row["rtol"] == 1e-3
    assert row["attack"] == "CarliniWagner x 1.1" and "converged" in str(told["tables"][1])


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        ("digits-oon", ["--source-method", "rk4"], "step: expected a positive step size, which rk4 needs"),
        ("digits-oon", ["--source-adjoint-tolerance", "1e-5"], "expected adjoint gradients with it"),
        ("digits-res", ["--source-method", "rk4", "--source-step", "0.1"], "method: expected none for digits-res"),
    ],
)
def test_sources_that_cannot_be_are_refused(net, options, message, tmp_path, run):
    told = run(["attack", net, "--images", "2", "--out", str(tmp_path), *options], status=2)
    assert message in " ".join(told.stderr.split())


def test_attacks_lists_all_of_them(run):
    told = json.loads(run(["attacks", "--json"]).stdout)
    assert {row["name"] for row in told[0]["rows"]} == set(ATTACKS)
    assert {row["name"] for row in told[1]["rows"]} == set(PRESETS)
    assert "epsilon, " in told[0]["rows"][1]["settings"] and "steps=10" in told[0]["rows"][1]["settings"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "unknown trained net"),
        (["digits-oon", "--attack", "pdg"], "Did you mean 'pgd'"),
        (["digits-oon", "--attack", "pgd"], "epsilon"),
        (["digits-oon", "--set", "steps"], "NAME=VALUE"),
        (["digits-oon", "--set", "stepz=3"], "Did you mean 'steps'"),
        (["digits-oon", "--start", "5000"], "the split ends before"),
        (["digits-res", "--tolerance", "1e-3"], "solves nothing"),
        (["digits-oon", "--data", "digit"], "unknown data set"),
        (["digits-oon", "--gradient", "adjont"], "adjoint"),
        (["digits-oon", "--tolerance", "0"], "tolerance: expected positive finite numbers, got 0"),
        (["digits-oon", "--source-tolerance", "0"], "tolerance: expected positive finite numbers, got 0"),
    ],
)
def test_attack_refuses(arguments, message, tmp_path, run):
    assert message in run(["attack", *arguments, "--out", str(tmp_path), "--quiet"], 2).stderr
    assert not list(tmp_path.rglob("*.parquet"))
