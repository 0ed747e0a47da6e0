"""The formats that are read, each with good files of it and the function of odefend that reads them."""

import gzip
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from test_data_files import batch, idx
from test_experiments import TOML as EXPERIMENT
from toys import small_ode_net

import odefend
from fuzzing.mutate import mutated, mutated_tensors, mutated_text, resealed
from odefend.cli.experiment import experiments_in
from odefend.data.cifar import read_batch
from odefend.data.mnist import read_idx
from odefend.data.pictures import decode
from odefend.detectors import Calibrated, PrincipalComponents, load_detector, save_detector
from odefend.experiments import read_experiment
from odefend.experiments.manifest import read_manifest
from odefend.ledger import Label, Ledger
from odefend.models import ODENet, save, weights_digest
from odefend.models.layers import ODEField, convolution_stem, pooling_head
from odefend.training import read_recipe
from odefend.training.recipe import RECIPES
from odefend.training.state import Saver, State

ROOT = Path(__file__).parent.parent.parent
KEY = "0123456789abcdef" + "0123"


@dataclass
class Format:
    """Good `files`, of which one is damaged by `change` at a time; `read` is then asked for what is in the file at that path.

    Of `sealed` files any damage must be seen, unless `forge` makes their checksums right again. `good`: whether the files can be
    read as they are.
    """

    files: dict[Path, bytes]
    read: Callable[[Path], Any]
    change: Callable[[bytes, Random], bytes] = mutated
    forge: Callable[[Path, bytes, Random], dict[Path, bytes]] | None = None
    sealed: frozenset[Path] = field(default_factory=frozenset)
    good: bool = True


def pictures(kind: str, *variants: tuple[str, dict[str, Any]]) -> Callable[[Path], Format]:
    """Pictures of a format of Pillow's: (mode, how they are saved)."""

    def make(folder: Path) -> Format:
        pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
        files = {}
        for place, (mode, how) in enumerate(variants):
            packed = io.BytesIO()
            Image.fromarray(pixels).convert(mode).save(packed, kind, **how)
            files[folder / f"{place}.png"] = packed.getvalue()
        if kind == "PPM":
            files[folder / "plain.png"] = b"P3 4 4 255\n# no comment\n" + b"1 2 3 " * 16
        return Format(files, lambda path: decode(path, (8, 8) if path.stem == "0" else None, grey=path.stem == "1"))

    return make


def other_pictures(folder: Path) -> Format:
    """What Pillow knows beyond the formats that are opened, PostScript first of all."""
    files = {folder / "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n{ } loop\n"}
    for kind in ("EPS", "TGA", "PCX", "ICO", "DDS", "SGI", "JPEG2000", "PDF", "XBM", "IM", "SPIDER", "BLP", "MSP"):
        packed = io.BytesIO()
        mode = {"XBM": "1", "MSP": "1", "SPIDER": "F", "BLP": "P"}.get(kind, "RGB")
        try:
            Image.new(mode, (16, 16)).save(packed, kind)
        except (OSError, KeyError):  # not in this build of Pillow
            continue
        files[folder / f"{kind}.png"] = packed.getvalue()

    def read(path: Path) -> None:
        raise AssertionError(f"{path}: decoded as {decode(path).shape}")

    return Format(files, read, good=False)


def checkpoint(folder: Path) -> Format:
    torch.manual_seed(0)
    net = ODENet(convolution_stem(1, 4), ODEField(4), pooling_head(4, 3), in_channels=1, classes=3)
    card = odefend.load("digits-oon").card
    assert card is not None
    options = {"in_channels": 1, "width": 4, "classes": 3}
    weights = save(net, card.model_copy(update={"options": options}), folder / "net")
    described = weights.with_suffix(".json")

    def forge(path: Path, content: bytes, random: Random) -> dict[Path, bytes]:
        if path == described:
            return {path: mutated_text(content, random)}
        changed = mutated_tensors(content, random)
        said = json.loads(described.read_bytes()) | {"sha256": hashlib.sha256(changed).hexdigest()}
        return {path: changed, described: json.dumps(said).encode()}

    files = {path: path.read_bytes() for path in (weights, described)}
    return Format(files, lambda _: weights_digest(odefend.load(weights)), forge=forge, sealed=frozenset({weights}))


def detector(folder: Path) -> Format:
    net = small_ode_net(4, dtype=torch.float32)
    images = torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    names = [str(i) for i in range(40)]
    path = save_detector(
        Calibrated.on(PrincipalComponents(net).fit(images[:20]), images[20:], names[20:]), folder / "pca"
    )

    def read(path: Path) -> list[list[float]]:
        found = load_detector(path, net)
        assert isinstance(found, Calibrated | PrincipalComponents)
        if isinstance(found, PrincipalComponents):
            return [found.score(images, names).tolist()]
        told = found.screen(images, names, 0.1)
        return [told.scores.tolist(), told.p_values.tolist()]

    def forge(path: Path, content: bytes, random: Random) -> dict[Path, bytes]:
        return {path: resealed(content, random, mutated_tensors)}

    return Format({path: path.read_bytes()}, read, forge=forge, sealed=frozenset({path}))


def ledger(folder: Path) -> Format:
    made = Ledger(folder / "ledger")
    rows = {
        "image": [f"digits/{i}" for i in range(30)],
        "label": list(range(30)),
        "history": [[1.0, 2.0]] * 30,
        "net": "x",
    }
    made.write("crafted", KEY, rows)
    made.write("judged", KEY, {"image": rows["image"], "margin": [i / 7 for i in range(30)]})
    made.write_images(KEY, torch.rand(2, 1, 4, 4))
    made.label("first", [("crafted", KEY, Label("craft", "ode", "PGD")), ("judged", KEY, Label("clean", "ode"))])
    older = folder / "ledger" / "scored" / "all.parquet"
    older.parent.mkdir()
    frame = Ledger(folder / "other")
    frame.write("scored", KEY, {"image": rows["image"], "score": [i / 3 for i in range(30)]})
    frame.rows("scored").write_parquet(older)

    def read(_: Path) -> list[Any]:
        target = Ledger(folder / "target")
        shutil.rmtree(target.folder, ignore_errors=True)
        target.merge(made)
        found = [made.read(table, "first") for table in ("crafted", "judged")] + [made.rows("scored"), made.labels()]
        made.query("select count(*), max(label) from crafted")
        return [[part.rows() for part in found], made.read_images(KEY).tolist()]

    return _of_ledger(folder / "ledger", read, older)


def packed(folder: Path) -> Format:
    made = Ledger(folder / "ledger")
    for key in (KEY, KEY[::-1]):
        made.write("crafted", key, {"image": [f"digits/{i}" for i in range(30)], "history": [[1.0, 2.0]] * 30})
        made.label("first", [("crafted", key, Label("craft", "ode", "PGD"))])
    made.pack()
    return _of_ledger(folder / "ledger", lambda _: [made.read("crafted", "first").rows(), made.labels().rows()])


def _of_ledger(folder: Path, read: Callable[[Path], Any], *older: Path) -> Format:
    files = {path: path.read_bytes() for path in sorted(folder.rglob("*.*"))}

    def forge(path: Path, content: bytes, random: Random) -> dict[Path, bytes]:
        if path in older:
            return {path: mutated(content, random)}
        return {path: resealed(content, random)}

    return Format(files, read, forge=forge, sealed=frozenset({*files} - {*older}))


def mnist(folder: Path) -> Format:
    content = idx(np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28))
    files = {folder / "images.gz": gzip.compress(content, mtime=0), folder / "plain": content}
    return Format(files, lambda path: read_idx(path, 3).shape)


def cifar(folder: Path) -> Format:
    return Format({folder / "data_batch_1": batch()}, lambda path: read_batch(path)[0].shape)


def experiments(folder: Path) -> Format:
    files = {folder / path.name: path.read_bytes() for path in sorted((ROOT / "examples").glob("*.toml"))}
    return Format(files, read_experiment, mutated_text)


def recipes(folder: Path) -> Format:
    files = {folder / path.name: path.read_bytes() for path in sorted(RECIPES.glob("*.toml"))}
    return Format(files, lambda path: read_recipe(str(path)), mutated_text)


def manifests(folder: Path) -> Format:
    (folder / "folder.json").mkdir()
    (folder / "foreign.json").write_bytes(b"\xff\xfe")
    experiment = read_experiment(EXPERIMENT).model_dump(mode="json")
    told = dict.fromkeys(("code", "nets", "finished"), "x") | {"experiment": experiment}
    path = folder / "trial.json"
    path.write_text(json.dumps(told))
    assert experiments_in(folder) == ["trial"]
    return Format(
        {path: path.read_bytes()}, lambda _: (read_experiment(path), read_manifest(folder, "trial")), mutated_text
    )


def training_state(folder: Path) -> Format:
    net, recipe = small_ode_net(4, dtype=torch.float32), read_recipe("digits-oon")

    def parts() -> tuple[Any, Any, Any]:
        optimizer = torch.optim.Adam(net.parameters())
        return net, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer)

    saver = Saver(folder / "net.state", recipe)
    saver.save(*parts(), State())
    return Format({saver.path: saver.path.read_bytes()}, lambda _: saver.resume(*parts()))


FORMATS: dict[str, Callable[[Path], Format]] = {
    "jpeg": pictures("JPEG", ("RGB", {}), ("L", {}), ("RGB", {"progressive": True}), ("CMYK", {})),
    "png": pictures("PNG", *((mode, {}) for mode in ("RGB", "L", "P", "RGBA", "LA", "1"))),
    "bmp": pictures("BMP", *((mode, {}) for mode in ("RGB", "L", "P", "1"))),
    "tiff": pictures(
        "TIFF",
        ("RGB", {}),
        ("L", {}),
        *(("RGB", {"compression": how}) for how in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")),
        ("CMYK", {}),
        ("1", {"compression": "group4"}),
    ),
    "webp": pictures("WEBP", ("RGB", {}), ("RGB", {"lossless": True}), ("RGBA", {})),
    "gif": pictures(
        "GIF", ("P", {}), ("L", {}), ("P", {"save_all": True, "append_images": [Image.new("P", (20, 24), 3)]})
    ),
    "ppm": pictures("PPM", *((mode, {}) for mode in ("RGB", "L", "1"))),
    "other pictures": other_pictures,
    "checkpoint": checkpoint,
    "detector": detector,
    "ledger": ledger,
    "packed ledger": packed,
    "idx": mnist,
    "cifar": cifar,
    "experiment": experiments,
    "recipe": recipes,
    "manifest": manifests,
    "training state": training_state,
}
