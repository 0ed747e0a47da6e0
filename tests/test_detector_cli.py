"""`odefend detector`, in this process: fitted, calibrated, put to use on a data set and on pictures, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from odefend.data import as_floats
from odefend.detectors import DETECTORS, Calibrated, Detector, load_detector
from odefend.models.settings import pair


@pytest.fixture
def run(cli):
    def command(arguments, status=0):
        done = cli("detector", *arguments)
        assert done.returncode == status, done.stderr
        return done

    return command


@pytest.fixture
def calibrated(run, tmp_path):
    file = tmp_path / "trace.safetensors"
    run(["fit", "step-trace", "digits-oon", "--set", "steps=2", "--images", 100, "--out", file, "-q"])
    run(["calibrate", file, "--images", 60, "-q"])
    return file


def test_list_has_every_detector(run):
    assert [one["name"] for one in json.loads(run(["list", "--json"]).stdout)] == list(DETECTORS)
    assert "settings" in run(["list"]).stdout


def test_a_detector_goes_from_fit_to_scores(run, calibrated, test_digits):
    detector = load_detector(calibrated)
    assert isinstance(detector, Calibrated) and len(detector.calibration.scores) == 60
    told = json.loads(run(["score", calibrated, "--images", 30, "--allowed", 0.1, "--json", "-q"]).stdout)
    some = test_digits[:30]
    found = detector.screen(some.images, some.ids, 0.1)
    assert [one["image"] for one in told] == list(some.ids)
    assert [one["score"] for one in told] == pytest.approx(found.scores.tolist())
    for one, p, alarm, known in zip(told, found.p_values, found.alarms, found.calibrated, strict=True):
        expected = "alarm" if alarm else "accepted" if known else "not calibrated for this kind of image"
        assert one["verdict"] == expected and (not known or one["p_value"] == pytest.approx(p.item()))
    shown = run(["score", calibrated, "--images", 50, "-q"]).stdout
    assert "most suspicious of 50" in " ".join(shown.split())


def test_pictures_of_any_size_are_scored_or_refused(run, calibrated, tmp_path, test_digits, monkeypatch):
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    pixels = (test_digits.images[0, 0].numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(folder / "digit.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "below" / "black.png")
    Image.fromarray(np.zeros((20, 9), np.uint8)).save(folder / "other.png")
    seen = list[tuple[int, ...]]()
    monkeypatch.setattr("odefend.data.images.as_floats", lambda pixels: seen.append(pixels.shape) or as_floats(pixels))
    told = {one["image"]: one for one in json.loads(run(["score", calibrated, folder, "--json", "-q"]).stdout)}
    assert {shape[2:] for shape in seen} == {(8, 8)}, (
        "a picture of another size is not made floats, eight times as large"
    )
    strange = "not calibrated for this kind of image"
    assert told[str(folder / "digit.png")]["verdict"] in ("accepted", "alarm")
    black, other = (told[str(folder / name)] for name in ("below/black.png", "other.png"))
    assert black["verdict"] == other["verdict"] == strange and told[str(folder / "digit.png")]["why"] == ""
    assert other["why"] == "expected 8 x 8 pixels in grey, got 9 x 20 pixels in grey"
    assert "expected mean 0." in black["why"] and "got 0" in black["why"]
    assert "2 are of another kind" in " ".join(run(["score", calibrated, folder, "-q"]).stdout.split())
    alone = " ".join(run(["score", calibrated, folder / "other.png", "-q"]).stdout.split())
    assert "nothing is said of any" in alone and "no data" not in alone and "9 x 20" in alone


def test_a_picture_that_cannot_be_read_costs_no_other_its_score(run, calibrated, tmp_path, test_digits):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for row in range(3):
        pixels = (test_digits.images[row, 0].numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{row}.png")
    (folder / "0.jpg").write_bytes((folder / "0.png").read_bytes()[:45])
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).save(folder / "1-deep.png")
    told = {
        Path(one["image"]).name: one for one in json.loads(run(["score", calibrated, folder, "--json", "-q"], 1).stdout)
    }
    assert [one["verdict"] != "not read" for _, one in sorted(told.items())] == [False, True, False, True, True]
    assert told["0.jpg"]["why"].startswith("truncated or damaged") and "8 bits" in told["1-deep.png"]["why"]
    assert "2 could not be read." in " ".join(run(["score", calibrated, folder, "-q"], 1).stdout.split())
    assert "no such file" in run(["score", calibrated, folder, folder / "9.png", "-q"], 2).stderr


def test_detectors_learn_from_and_score_folders(run, tmp_path):
    """Of pictures as they come: colour, of any size."""
    for number in range(20):
        place = tmp_path / "mine" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((9, 11), 5 * number).convert("RGB").save(place)
    file, data = tmp_path / "margin.safetensors", ["--data", tmp_path / "mine", "--data-set", "size=8"]
    run(["fit", "step-trace", "digits-oon", "--out", file, *data, "--images", 16, "-q"])
    told = run(["calibrate", file, *data, "-q"])
    assert (
        "500 asked for, 2 taken" in told.stderr
        and "2 of its 20 pictures" in told.stderr
        and "Calibrated" in told.stdout
    )
    assert len(json.loads(run(["score", file, *data, "--images", 2, "--allowed", 0.5, "--json", "-q"]).stdout)) == 2
    assert "expected 1 x 8 x 8" in run(["calibrate", file, "--data", tmp_path / "mine", "-q"], 2).stderr
    assert "option path" in run(["calibrate", file, "--data", "folder", "-q"], 2).stderr


def test_a_supervised_detector_is_shown_an_attack(run, tmp_path):
    file = tmp_path / "net.safetensors"
    common = ["fit", "separate-network", "digits-oon", "--set", "epochs=1", "--images", 40, "--out", file, "-q"]
    assert "fitted to 40 images" in run([*common, "--attack-set", "epsilon=0.5", "--attack-set", "steps=2"]).stdout
    assert "broke none" in run([*common, "--attack-set", "epsilon=0.0001", "--attack-set", "steps=1"], 2).stderr


def test_the_net_is_solved_as_it_was_then(run, tmp_path):
    file = tmp_path / "spread.safetensors"
    assert (
        "nothing to learn"
        in run(["fit", "embedded-error", "digits-oon", "--tolerance", 0.1, "--out", file, "-q"]).stdout
    )
    detector = load_detector(file)
    assert isinstance(detector, Detector) and pair(detector.net.settings.tolerance) == (0.1, 0.1)


def test_what_is_wrong_is_said(run, calibrated, tmp_path):
    bare = tmp_path / "margin.safetensors"
    run(["fit", "one-pass-margin", "digits-res", "--out", bare, "-q"])
    for arguments, told in (
        (["fit", "one-pass-margins", "digits-oon"], "Did you mean 'one-pass-margin'"),
        (["fit", "tolerance-vote", "digits-res"], "tolerance-vote: expected a net that solves an ODE"),
        (["fit", "one-pass-margin", "digits-res", "--tolerance", 0.1], "which solves nothing"),
        (["fit", "tolerance-vote", "digits-oon", "--set", "vote=3"], "Did you mean 'votes'"),
        (["fit", "step-trace", "digits-oon", "--data", "digit"], "Did you mean 'digits'"),
        (["score", bare], "expected a calibrated detector. Run: odefend detector calibrate"),
        (["score", tmp_path / "none.safetensors"], "missing or damaged"),
        (["score", calibrated, "--net", "digits-res"], "one of other weights"),
        (["score", calibrated, "--allowed", 0.001], "at least 1 / 61"),
        (["score", calibrated, tmp_path / "nothing.png"], "no such file"),
    ):
        assert told in run([*arguments, "-q"], 2).stderr
