"""The digits: stable, disjoint, in range."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

import odefend
from odefend.data import SPLITS, batches, folder, named_data, pictures_below
from odefend.errors import DataError, InvalidInput, OdefendWarning, UnknownName


def test_splits_are_disjoint_and_complete():
    ids = [set(odefend.digits(split).ids) for split in SPLITS]
    assert [len(part) for part in ids] == [1097, 200, 500]
    assert len(set.union(*ids)) == 1797
    images = torch.cat([odefend.digits(split).images.flatten(1) for split in SPLITS])
    assert len(torch.unique(images, dim=0)) == 1797, "an image stands in two splits"


def test_splits_never_change():
    assert [odefend.digits(split).digest for split in SPLITS] == [
        "08a2d73477108fae",
        "939bf1b161629f47",
        "55dc7ac71da8a3d2",
    ]


def test_images_are_in_range_and_slices_keep_ids():
    data = odefend.digits("test")
    assert data.images.shape == (500, 1, 8, 8) and data.images.min() == 0 and data.images.max() == 1
    part = data[[5, 2]]
    assert part.ids == (data.ids[5], data.ids[2]) and torch.equal(part.images[1], data.images[2])
    assert data[data.labels == 3].labels.unique().tolist() == [3]
    assert data[:10].digest != data[1:11].digest


def test_a_sample_is_random_and_stays():
    """Of a data set whose second half alone has label 1, as many of it as of the first; its beginning is a smaller sample."""
    labels = torch.arange(1000) // 500
    ordered = odefend.LabelledImages(torch.zeros(1000, 1, 1, 1), labels, tuple(f"set/{i:05d}" for i in range(1000)))
    some = ordered.sample(200, seed=3)
    assert len(set(some.ids)) == 200 and 0.4 < some.labels.double().mean() < 0.6
    assert some.labels.tolist() == [labels[int(name[-5:])] for name in some.ids], "each keeps its label"
    assert ordered.sample(50, seed=3).ids == some.ids[:50] != ordered.sample(50, seed=4).ids
    assert set(ordered.sample(2000).ids) == set(ordered.ids)


def test_wrong_use():
    with pytest.raises(UnknownName, match="Did you mean 'test'"):
        odefend.digits("tests")
    data = odefend.digits("test")
    with pytest.raises(InvalidInput, match="as many images as labels"):
        odefend.LabelledImages(data.images, data.labels, data.ids[:3])


def save(path, colour, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_a_folder_of_classes_is_split_by_names(tmp_path):
    for i in range(40):
        save(tmp_path / "mine" / ("cat" if i % 4 else "dog") / f"{i:02d}.png", (i, 2 * i, 3 * i))
    (tmp_path / "mine" / "notes.txt").write_text("no picture")
    with pytest.warns(OdefendWarning) as told:
        parts = {split: folder(split, tmp_path / "mine") for split in SPLITS}
    assert [str(one.message).split("so ")[1].split(" of")[0] for one in told] == ["32", "4", "4"]
    whole = folder("all", tmp_path / "mine")
    assert set(whole.ids) == {name for part in parts.values() for name in part.ids} and len(whole) == 40
    assert [len(part) for part in parts.values()] == [32, 4, 4]
    assert len({name for part in parts.values() for name in part.ids}) == 40
    for part in parts.values():
        for row, name in enumerate(part.ids):
            _, kind, file = name.split("/")
            assert part.labels[row] == (kind == "dog")
            assert part.pixels[row, :, 5, 7].tolist() == [int(file[:2]) * c for c in (1, 2, 3)]
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "mine").rename(tmp_path / "elsewhere" / "mine")
    with pytest.warns(OdefendWarning, match="4 of its 40 pictures, drawn by their names, are the split test"):
        assert folder("test", moved).digest == parts["test"].digest
    assert folder("all", moved, grey=True, size=4).pixels.shape == (40, 1, 4, 4)


def test_names_that_are_no_utf_8_are_told_as_escapes(tmp_path):
    """Rows of a ledger, and hashes of ids, take characters alone."""
    save(tmp_path / "1.png", "red")
    try:
        (tmp_path / "1.png").rename(tmp_path / os.fsdecode(b"caf\xe9.png"))
    except OSError:
        pytest.skip("a file system of UTF-8 names")
    (name,) = folder("all", tmp_path).ids
    assert name == f"{tmp_path.name}/caf\\xe9.png" and name.encode()
    (group,) = batches(pictures_below([tmp_path]), 9, lambda name, why: None)
    assert group.ids == (f"{tmp_path}/caf\\xe9.png",)


def test_data_sets_by_name_options_and_path(tmp_path, monkeypatch):
    save(tmp_path / "mine" / "1.png", "red")
    monkeypatch.chdir(tmp_path)
    whole = folder("all", tmp_path / "mine", size=(4, 4), grey=True)
    for name, options in (("mine", {}), ("folder", {"path": "mine"}), (str(tmp_path / "mine"), {})):
        assert named_data(name, "all", options | {"size": [4, 4], "grey": "yes"}).digest == whole.digest
    assert named_data("digits", "test").digest == odefend.digits("test").digest
    for name, options, kind, told in (
        ("digit", {}, UnknownName, "Did you mean 'digits'"),
        ("digits", {"size": 8}, UnknownName, "option of the data set 'digits'"),
        ("folder", {}, InvalidInput, "expected the option path.*can also be named itself"),
        ("folder", {"path": 3}, InvalidInput, "path: "),
        ("mine", {"size": "big"}, InvalidInput, "size: .*got 'big'"),
        ("mine", {"sise": 8}, UnknownName, "Did you mean 'size'"),
    ):
        with pytest.raises(kind, match=told):
            named_data(name, "all", options)


def test_a_folder_with_parts_keeps_them(tmp_path):
    save(tmp_path / "train" / "b" / "1.png", "red")
    save(tmp_path / "train" / "a" / "2.png", "red")
    save(tmp_path / "test" / "b" / "3.png", "red")
    assert folder("train", tmp_path).labels.tolist() == [0, 1]
    assert folder("test", tmp_path).labels.tolist() == [1], "a class has one number in all parts"
    with pytest.raises(DataError, match="validation: expected pictures"):
        folder("validation", tmp_path)


def test_a_folder_that_cannot_be_a_data_set_is_named(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        folder("train", tmp_path / "none")
    save(tmp_path / "1.png", "red")
    save(tmp_path / "2.png", "red", size=(9, 6))
    with pytest.raises(DataError, match=r"2\.png: expected 8x6 pixels as in 1\.png, got 9x6.*size"):
        folder("train", tmp_path)
    assert folder("all", tmp_path, size=(6, 8)).labels.tolist() == [0, 0]


def test_only_folders_with_pictures_are_classes_and_strays_are_named(tmp_path, monkeypatch):
    for i in range(20):
        save(tmp_path / "mine" / "ab"[i % 2] / f"{i}.png", "red")
    (tmp_path / "mine" / ".thumbs").mkdir()
    assert folder("all", tmp_path / "mine").labels.unique().tolist() == [0, 1]
    digest = folder("all", tmp_path / "mine").digest
    monkeypatch.chdir(tmp_path / "mine")
    assert folder("all", ".").digest == digest, "the same folder, however it is called"
    save(tmp_path / "mine" / "stray.png", "red")
    with pytest.raises(DataError, match=r"stray\.png: lies beside folders of classes"):
        folder("train", tmp_path / "mine")
    save(tmp_path / "few" / "1.png", "red")
    with pytest.raises(DataError, match="for the split test, found 1, too few to split: take the split all"):
        folder("test", tmp_path / "few")
    with pytest.raises(DataError, match=r"\.thumbs: expected pictures .* found none"):
        folder("all", tmp_path / "mine" / ".thumbs")
    for size in (0, (8, -1)):
        with pytest.raises(InvalidInput, match="size: expected"):
            folder("train", tmp_path / "few", size=size)


def test_pictures_of_more_than_8_bits_are_refused_not_clipped(tmp_path):
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png: expected 8 bits"):
        folder("train", tmp_path)


def test_bytes_in_memory_are_floats_at_the_edge():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    data = odefend.LabelledImages(pixels, torch.zeros(3).long(), ("a", "b", "c"))
    assert data.images.dtype == torch.float32 and data.images.flatten().tolist() == [0, pytest.approx(0.2), 1]
    assert data[[1]].pixels.dtype == torch.uint8
    with pytest.raises(InvalidInput, match=r"uint8 in 0\.\.255 or floats"):
        odefend.LabelledImages(pixels.long(), torch.zeros(3).long(), ("a", "b", "c"))
