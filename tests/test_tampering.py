"""Tampering: each kind does what its name says, whatever else is in the batch; and sets of pairs that never straddle."""

import hashlib
import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps

from odefend.data import (
    DATASETS,
    PUBLISHED,
    SPLITS,
    TAMPERINGS,
    LabelledImages,
    forensic_kinds,
    forensic_pairs,
    tamper,
    tampering,
    tiny_imagenet,
    tiny_imagenet_part,
    with_tampered,
)
from odefend.data.pictures import to_array, to_picture
from odefend.data.tamper import FAMILIES, name_of
from odefend.errors import DataError, InvalidInput, UnknownName

IDS = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def pictures():
    """Four pictures of 48x64 pixels with smooth parts, edges and noise, the same everywhere."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :64]
    rows = []
    for i in range(4):
        base = np.stack([127 + 100 * np.sin((x * (c + 1) + y * i) / 9) for c in range(3)])
        base[:, 10 : 20 + i, 15:40] = 40 * i
        rows.append(np.rint(base + rng.integers(-6, 7, base.shape)).clip(0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(rows))


HASHES = {
    "median-3": "749ff92e9f8c8eea",
    "median-5": "d2e241add79029fb",
    "median-7": "6920d6209256ac58",
    "mean-3": "5656cd68b849f8e1",
    "mean-5": "39049efaf26412a6",
    "mean-7": "e2511e9ef48a088b",
    "equalize": "b6ee3dd9fad99bef",
    "jpeg-60-444": "23ab3ae208e8de92",
    "jpeg-90-420": "17a89bd9bbf8130b",
    "double-jpeg-60-90-420": "9b966e749453dc94",
    "resize-0.8": "649d0e67c6db40a2",
    "rotate-5": "28e65f88722c1d16",
    "blur-1": "52470b8a283a01b5",
    "noise-4": "e6c5a0487905232b",
    "sharpen-150": "ff725968ba58b7b1",
    "gamma-0.8": "aa22f58856c928b1",
    "copy-move-0.3": "e10f3c12388b44a7",
    "splice-0.3": "8273836c60882f8b",
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_each_tampering_of_a_fixed_picture_has_a_known_hash(name, pictures):
    found = tamper(pictures, IDS, name)
    assert hashlib.sha256(found.numpy().tobytes()).hexdigest()[:16] == HASHES[name]


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_changes_a_picture_and_depends_on_nothing_but_it(name, pictures):
    found = tamper(pictures, IDS, name, donors=pictures[2:])
    assert found.shape == pictures.shape and found.dtype == torch.uint8
    assert all(bool((one != other).any()) for one, other in zip(found, pictures, strict=True))
    some = tamper(pictures[[2, 0]], ("c", "a"), name, donors=pictures[2:])
    assert torch.equal(some, found[[2, 0]])
    turned = tamper(pictures[[3, 1, 0, 2]], ("d", "b", "a", "c"), name)
    assert torch.equal(turned, tamper(pictures, IDS, name)[[3, 1, 0, 2]]), "donors are found whatever the order"
    grey = pictures[:, :1]
    assert tamper(grey, IDS, name, donors=grey[2:]).shape == grey.shape


@pytest.mark.parametrize("name", ["noise-4", "rotate-5", "copy-move-0.3", "splice-0.3"])
def test_what_is_random_follows_the_seed_and_the_id(name, pictures):
    same, other = tamper(pictures, IDS, name), tamper(pictures, IDS, name, seed=1)
    assert torch.equal(same, tamper(pictures, IDS, name)) and not torch.equal(same, other)
    twins = tamper(pictures[[0, 0, 0, 0]], IDS, name, donors=pictures[1:])
    assert len(torch.unique(twins.flatten(1), dim=0)) > 1


def test_the_published_ones_are_pillows(pictures):
    row = to_picture(pictures[0].numpy())
    expected = {
        "median-5": row.filter(ImageFilter.MedianFilter(5)),
        "mean-5": row.filter(ImageFilter.BoxBlur(2)),
        "equalize": ImageOps.equalize(row),
    }
    for name, picture in expected.items():
        assert np.array_equal(tamper(pictures[:1], ("a",), name)[0].numpy(), to_array(picture))
    assert len(PUBLISHED) == 8 and set(PUBLISHED) <= set(TAMPERINGS)
    mean = tamper(pictures[:1], ("a",), "mean-3")[0].double()
    inner = torch.nn.functional.avg_pool2d(pictures[:1].double(), 3, stride=1)[0]
    assert (mean[:, 1:-1, 1:-1] - inner).abs().max() <= 1


def test_what_the_others_do(pictures):
    assert tamper(pictures, IDS, "gamma-0.5")[0, 0, 3, 4] == np.rint(255 * (pictures[0, 0, 3, 4].item() / 255) ** 0.5)
    flat = torch.full((1, 3, 64, 64), 128, dtype=torch.uint8)
    noise = tamper(flat, ("flat",), "noise-4").double() - 128
    assert abs(noise.std().item() - 4) < 0.15 and abs(noise.mean().item()) < 0.15
    assert torch.equal(tamper(flat, ("flat",), "rotate-10"), flat), "no empty corners"
    rough = [(tamper(pictures, IDS, f"jpeg-{q}-444").double() - pictures).abs().mean().item() for q in (95, 60, 20)]
    assert rough == sorted(rough)
    twice = tamper(pictures, IDS, "double-jpeg-60-90-420")
    assert torch.equal(twice, tamper(tamper(pictures, IDS, "jpeg-60-420"), IDS, "jpeg-90-420"))
    detail = {
        name: tamper(pictures, IDS, name).double().diff(dim=3).abs().mean().item()
        for name in ("blur-1", "resize-0.5", "sharpen-150")
    }
    before = pictures.double().diff(dim=3).abs().mean().item()
    assert detail["blur-1"] < before and detail["resize-0.5"] < before < detail["sharpen-150"]


@pytest.mark.parametrize("share", [0.1, 0.3, 1 / 3])
def test_copy_move_repeats_a_rectangle_elsewhere(share):
    width, height = int(60 * share), int(48 * share)
    # Every pixel differs from every other, so that each tells where it comes from.
    pixels = torch.arange(48 * 60).view(48, 60)
    picture = torch.stack([pixels // 256, pixels % 256, torch.zeros_like(pixels)]).to(torch.uint8)
    for i in range(30):
        changed = tamper(picture[None], (f"{i}",), f"copy-move-{share}")[0].long()
        source = changed[0] * 256 + changed[1]
        rows, columns = torch.nonzero(source != pixels, as_tuple=True)
        assert len(rows) == width * height, "one rectangle is new, and no pixel of it stays"
        moved_by = source[rows, columns] - pixels[rows, columns]
        assert len(moved_by.unique()) == 1, "it comes from one place"
        assert rows.max() - rows.min() == height - 1 and columns.max() - columns.min() == width - 1


def test_splice_pastes_from_another_picture(pictures):
    black, white = torch.zeros(1, 3, 40, 40, dtype=torch.uint8), torch.full((5, 3, 90, 50), 255, dtype=torch.uint8)
    assert (tamper(black, ("a",), "splice-0.5", donors=white) == 255).sum() == 3 * 20 * 20
    with pytest.raises(InvalidInput, match="donors"):
        tamper(black, ("a",), "splice-0.5")
    with pytest.raises(InvalidInput, match="donor: expected at least 20x20"):
        tamper(black, ("a",), "splice-0.5", donors=white[:, :, :10])
    for i in range(2):
        pair = torch.cat([black, black + 255])
        assert (tamper(pair, ("a", "b"), "splice-0.5")[i] != pair[i]).any(), "never spliced with itself"


@pytest.mark.parametrize("name", [*TAMPERINGS, "jpeg-1-422", "blur-0.75", "median-9"])
def test_names_say_everything(name):
    assert name_of(tampering(name)) == name


def test_there_is_an_example_of_each_kind():
    assert {tampering(name).family for name in TAMPERINGS} == set(FAMILIES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("median", "1 values, as in 'median-3'"),
        ("median-4", "odd number"),
        ("median-3-3", "1 values"),
        ("median-x", "median-x"),
        ("jpeg-60", "2 values, as in 'jpeg-60-444'"),
        ("jpeg-101-444", r"1 \.\.\. 100"),
        ("resize-1", "not 1"),
        ("copy-move-0.5", r"0\.01 \.\.\. 1/3"),
        ("blur-0", r"0\.01 \.\.\. 100"),
        ("noise-nan", "got nan"),
        ("gamma-inf", "got inf"),
        ("median-99999999999", "odd number"),
        ("sharpen-2147483648", r"1 \.\.\. 1000"),
    ],
)
def test_wrong_names_are_refused(name, message):
    with pytest.raises(InvalidInput, match=message):
        tampering(name)


def test_wrong_use(pictures):
    with pytest.raises(UnknownName, match="Did you mean 'median-3'"):
        tampering("mediann-3")
    with pytest.raises(UnknownName, match="subsampling"):
        tampering("jpeg-60-440")
    for wrong in (pictures.float(), pictures[0], pictures[:, :2]):
        with pytest.raises(InvalidInput, match="expected uint8 pictures"):
            tamper(wrong, IDS, "median-3")
    for ids in (IDS[:3], ("a", "b", "c", "c")):
        with pytest.raises(InvalidInput, match="expected 4 different ones"):
            tamper(pictures, ids, "median-3")
    for donors in (pictures.float(), pictures[:0], pictures[:, :1]):
        with pytest.raises(InvalidInput, match="donors: expected"):
            tamper(pictures, IDS, "splice-0.3", donors=donors)
    with pytest.raises(InvalidInput, match="at least 3x3"):
        tamper(pictures[:, :, :2, :2], IDS, "copy-move-0.3")
    with pytest.raises(InvalidInput, match="different ones"):
        with_tampered(LabelledImages(pictures, torch.zeros(4).long(), IDS), ["median-3", "median-3"])


def tiny(folder, classes=3, count=12):
    """A data set in Tiny-ImageNet's layout; in train, pictures are numbered with gaps, as in a subset."""
    rng = np.random.default_rng(0)

    def save(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path, "JPEG", quality=75)

    root, names = folder / "tiny-imagenet-200", [f"n{i:08d}" for i in range(classes)]
    for name in names:
        for i in range(count):
            save(root / "train" / name / "images" / f"{name}_{7 * i}.JPEG")
    lines = []
    for i in range(classes * count):
        save(root / "val" / "images" / f"val_{i}.JPEG")
        save(root / "test" / "images" / f"test_{i}.JPEG")
        lines.append(f"val_{i}.JPEG\t{names[i % classes]}\t0\t0\t9\t9\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("\n".join(reversed(names)))
    return folder


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("ODEFEND_CACHE", str(tmp_path / "cache"))
    return tiny(tmp_path / "data")


def test_tiny_imagenet_is_ordered_by_class_and_number_and_decoded_once(small, tmp_path, monkeypatch):
    part = tiny_imagenet_part("train", small)
    assert part.pixels.shape == (36, 3, 64, 64) and part.labels.tolist() == [0] * 12 + [1] * 12 + [2] * 12
    numbers = [int(name.rsplit("_", 1)[1]) for name in part.ids[:12]]
    assert numbers == sorted(numbers) and part.ids[0] == "tiny-imagenet-200/train/n00000002_0"
    plain = np.asarray(Image.open(small / "tiny-imagenet-200/train/n00000002/images/n00000002_7.JPEG"))
    assert np.array_equal(part.pixels[1].permute(1, 2, 0).numpy(), plain)
    assert tiny_imagenet_part("test", small).labels.unique().tolist() == [-1]
    val = tiny_imagenet_part("val", small)
    assert all(int(name.rsplit("_", 1)[1]) % 3 == 2 - label for name, label in zip(val.ids, val.labels, strict=True))

    with monkeypatch.context() as patch:
        patch.setattr("odefend.data.pictures.decode", lambda *_, **__: 1 / 0)
        assert tiny_imagenet_part("train", small).digest == part.digest
    kept = next((tmp_path / "cache" / "decoded").glob("*-train-*.npy"))
    kept.write_bytes(kept.read_bytes()[:100])
    assert tiny_imagenet_part("train", small).digest == part.digest, "a damaged cache is made anew"

    parts = {split: tiny_imagenet(split, small) for split in SPLITS}
    assert set(parts["train"].ids) | set(parts["validation"].ids) == set(part.ids)
    assert len(parts["train"]) + len(parts["validation"]) == 36 and parts["test"].digest == val.digest


def test_a_damaged_or_stray_picture_is_named(small):
    root = small / "tiny-imagenet-200"
    damaged = root / "test" / "images" / "test_3.JPEG"
    damaged.write_bytes(damaged.read_bytes()[:300])
    with pytest.raises(DataError, match=r"test_3\.JPEG: truncated or damaged"):
        tiny_imagenet_part("test", small)
    damaged.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"test_3\.JPEG: not a picture"):
        tiny_imagenet_part("test", small)
    (root / "val" / "images" / "val_99.JPEG").write_bytes(b"")
    with pytest.raises(DataError, match=r"val_99\.JPEG: has no label"):
        tiny_imagenet_part("val", small)
    with pytest.raises(UnknownName, match="Did you mean 'val'"):
        tiny_imagenet_part("vall", small)


def test_forensic_pairs_are_balanced_and_stay_together(small):
    parts = {split: forensic_pairs(split, "jpeg-60-444", folder=small) for split in SPLITS}
    assert [len(part) for part in parts.values()] == [60, 60, 72], "10 of each class, 10 of each class, at most 400"
    originals = []
    for part in parts.values():
        assert part.labels.tolist() == [0, 1] * (len(part) // 2)
        names = [name.rsplit("/", 1) for name in part.ids]
        assert [kind for _, kind in names] == ["pristine", "jpeg-60-444"] * (len(part) // 2)
        assert [one for one, _ in names[::2]] == [other for other, _ in names[1::2]]
        assert torch.equal(part.pixels[1::2], tamper(part.pixels[::2], [one for one, _ in names[::2]], "jpeg-60-444"))
        originals.append({one for one, _ in names})
    assert sum(map(len, originals)) == len(set.union(*originals)), "no picture stands in two splits"


def test_kinds_are_labels(small):
    part = forensic_kinds("validation", folder=small)
    assert len(part) == 30 * 9 and part.labels.tolist() == list(range(9)) * 30
    assert [name.rsplit("/", 1)[1] for name in part.ids[:9]] == ["pristine", *PUBLISHED]


@pytest.mark.parametrize("name", ["mnist", "cifar10", "tiny-imagenet-200"])
def test_real_data_has_known_digests(name, real_data):
    known = {
        "mnist": ["c835cd2250c2a0dd", "0e27d54414128c5f", "162a4bb09ca9642d"],
        "cifar10": ["5b764bea7c626e59", "e23f714204c4e3ed", "c358f180a69d04ce"],
        # Of the subset of 50 pictures of each class in train.
        "tiny-imagenet-200": ["99691805424ec05e", "40c1d4dd0b799daa", "6a91ab5784cbf30d"],
    }
    if name == "tiny-imagenet-200" and sum(1 for _ in (real_data / name / "train").glob("*/images/*")) != 10_000:
        pytest.skip("another subset of Tiny-ImageNet than the one with known digests")
    parts = [DATASETS[name](split, real_data) for split in SPLITS]
    assert [part.digest for part in parts] == known[name]
    assert len(set(parts[0].ids) | set(parts[1].ids) | set(parts[2].ids)) == sum(map(len, parts))


def test_the_real_forensic_set_is_the_papers(real_data):
    parts = {split: forensic_pairs(split, "median-3", folder=real_data) for split in SPLITS}
    assert [len(part) for part in parts.values()] == [4000, 4000, 800]
    assert all(part.labels.double().mean() == 0.5 for part in parts.values())
    originals = [{name.rsplit("/", 1)[0] for name in part.ids} for part in parts.values()]
    assert [len(names) for names in originals] == [2000, 2000, 400] and len(set.union(*originals)) == 4400
    classes = [name.split("/")[2].split("_")[0] for name in originals[0]]
    assert {classes.count(one) for one in classes} == {10} and len(set(classes)) == 200


@pytest.mark.slow
def test_real_data_is_ready_in_time(real_data, tmp_path, monkeypatch):
    monkeypatch.setenv("ODEFEND_CACHE", str(tmp_path))
    took = {}
    for name, parts in (("mnist", SPLITS), ("cifar10", SPLITS), ("first", None), ("cached", None)):
        began = time.perf_counter()
        for part in parts or ("train", "val", "test"):
            DATASETS[name](part, real_data) if parts else tiny_imagenet_part(part, real_data)
        took[name] = time.perf_counter() - began
    assert took["mnist"] < 2 and took["cifar10"] < 2 and took["first"] < 20 and took["cached"] < 2, took
