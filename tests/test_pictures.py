"""Opening pictures: only in the formats that are named, and none that takes more memory or time than a picture may."""

import ast
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

import odefend
from odefend.data import batches
from odefend.data.pictures import MOST_BYTES, SUFFIXES, decode
from odefend.detectors import Calibrated, OnePassMargin, save_detector
from odefend.errors import DataError
from odefend.rng import content_ids

GREY = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n{ } loop\n"


def refused(content, folder, match):
    """Said within a second, in one line that names the file."""
    path, started = folder / "picture.png", time.process_time()
    path.write_bytes(content)
    with pytest.raises(DataError, match=match) as caught:
        decode(path)
    assert time.process_time() - started < 1 and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_postscript_is_no_picture(tmp_path, monkeypatch):
    """Pillow would hand it to Ghostscript, which runs it."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    refused(POSTSCRIPT, tmp_path, "not a picture in JPEG, PNG")
    assert not (tmp_path / "ran").exists()


def test_no_picture_is_opened_without_naming_its_formats():
    found = 0
    for path in Path(odefend.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open":
                assert "formats" in {keyword.arg for keyword in node.keywords}, f"{path}:{node.lineno}"
                found += 1
    assert found >= 3


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_each_format_that_a_folder_is_searched_for_is_opened(suffix, tmp_path):
    path = tmp_path / f"picture{suffix}"
    GREY.convert("RGB" if suffix == ".ppm" else "L").save(path)
    assert decode(path, grey=True).shape == (1, 8, 8) and decode(path).shape == (3, 8, 8)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height):
    """A PNG that says so many pixels and has none."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_000, 10_000, 30_000])
def test_pixels_are_counted_before_they_are_decoded(side, tmp_path):
    """Also beyond the numbers where Pillow warns or raises by itself."""
    refused(png(side, side), tmp_path, "expected at most 67,108,864 pixels")


def test_large_files_are_not_read(tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(DataError, match="expected a picture of at most 268,435,456 bytes"):
        decode(path)


def stored(form, mode="L", side=64, **how):
    packed = io.BytesIO()
    Image.new(mode, (side, side)).save(packed, form, **how)
    return packed.getvalue()


def with_many_scans():
    content = stored("JPEG", side=4000, progressive=True)
    return content[:-2] + content[content.rindex(b"\xff\xda") : -2] * 500 + content[-2:]


def with_runs():
    content = bytearray(stored("BMP", "P"))
    content[18:26], content[30:34] = struct.pack("<ii", 8000, 8000), struct.pack("<I", 1)
    return bytes(content[: struct.unpack("<I", content[10:14])[0]]) + b"\1\0\0\0" * 8000


@pytest.mark.parametrize(
    "content",
    [
        with_many_scans,
        with_runs,
        lambda: b"P3 1000 1000 255\n" + b"#\n" * 500_000,
        lambda: b"P5 2000 2000 9\n" + bytes(10),
    ],
    ids=["scans of a JPEG", "runs of a BMP", "comments of a PPM", "levels of a PGM"],
)
def test_what_takes_minutes_to_decode_is_refused(content, tmp_path):
    refused(content(), tmp_path, "takes too long to decode")


def test_small_pictures_in_the_same_formats_are_read(tmp_path):
    path = tmp_path / "plain.pgm"
    path.write_bytes(b"P2 2 2 3\n# comment\n0 1 2 3\n")
    assert decode(path, grey=True).ravel().tolist() == [0, 85, 170, 255]


def test_pictures_come_in_groups_of_one_size_in_their_order(tmp_path):
    files = [tmp_path / f"{place}.png" for place in range(7)]
    for file, side in zip(files, (8, 8, 8, 8, 9, 8, 8), strict=True):
        GREY.resize((side, side)).save(file)
    bad, unread = tmp_path / "bad.png", list[tuple[str, str]]()
    bad.write_bytes(files[0].read_bytes()[:45])
    groups = list(batches([*files[:2], bad, *files[2:]], 3, lambda *told: unread.append(told), grey=True))
    assert [len(group) for group in groups] == [3, 1, 1, 2]
    assert [name for group in groups for name in group.ids] == [str(file) for file in files]
    ((name, why),) = unread
    assert name == str(bad) and why.startswith("truncated or damaged")
    assert list(batches([bad], 3, lambda *told: None)) == []


def deep(colours, channels, bits):
    """Of 2 x 2 pixels."""
    rows = (b"\0" + bytes(2 * channels * bits // 8)) * 2
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, bits, colours, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(bits):
    """Of 2 x 2 pixels in three channels, uncompressed."""
    depths = 8 + 2 + 12 * 9 + 4
    tags = {256: 2, 257: 2, 258: depths, 259: 1, 262: 2, 273: depths + 6, 277: 3, 278: 2, 279: 12 * bits // 8}
    listed = b"".join(struct.pack("<HHII", tag, 3, 3 if tag == 258 else 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, 9) + listed + struct.pack("<IHHH", 0, *(bits,) * 3) + bytes(12 * bits // 8)


@pytest.mark.parametrize(
    "content",
    [
        deep(2, 3, 16),
        deep(6, 4, 16),
        deep(4, 2, 16),
        deep(0, 1, 16),
        tiff(16),
        b"P6 2 2 65535\n" + bytes(24),
        b"P3 1 1 1023 1 2 3\n",
    ],
    ids=["RGB", "RGBA", "LA", "L", "TIFF", "PPM", "plain PPM"],
)
def test_more_than_8_bits_for_a_channel_are_refused_in_colour_too(content, tmp_path):
    refused(content, tmp_path, "expected 8 bits for each channel, got more")


def test_fewer_bits_are_read(tmp_path):
    """Also a BMP of 16 bits for a pixel, 5 of them for red."""
    bmp = struct.pack(
        "<2sIHHIIiiHHIIiiII3I", b"BM", 74, 0, 0, 66, 40, 2, 2, 1, 16, 3, 8, 0, 0, 0, 0, 0xF800, 0x7E0, 0x1F
    ) + bytes(8)
    for content in (deep(2, 3, 8), tiff(8), b"P6 2 2 127\n" + bytes(12), bmp):
        (tmp_path / "picture").write_bytes(content)
        assert decode(tmp_path / "picture").shape == (3, 2, 2)


def test_the_id_of_a_large_image_is_that_of_all_its_numbers():
    image = torch.rand(1, 1, 1100, 1000, generator=torch.Generator().manual_seed(0))
    assert content_ids(image) == [hashlib.blake2b(image.double().numpy().tobytes(), digest_size=12).hexdigest()]


@pytest.mark.slow
def test_the_largest_pictures_are_scored_within_bounds(oon, test_digits, tmp_path):
    """By the command line, in 1.5 GiB together with all libraries."""
    some, folder = test_digits[:100], tmp_path / "pictures"
    file = save_detector(Calibrated.on(OnePassMargin(oon), some.images, some.ids), tmp_path / "margin")
    folder.mkdir()
    for name, mode, size, how in (
        ("a.png", "RGB", (8192, 8192), {}),
        ("b.jpg", "RGB", (8000, 8000), {"progressive": True}),
        ("c.png", "RGBA", (8192, 8192), {}),
        ("d.tif", "CMYK", (8000, 8000), {"compression": "tiff_lzw"}),
    ):
        Image.new(mode, size).save(folder / name, None, **how)
    program = "import sys; from odefend.cli import main; sys.argv[0] = 'odefend'; main()"
    with (tmp_path / "told.json").open("w") as told:
        process = subprocess.Popen(
            [sys.executable, "-c", program, "detector", "score", file, folder, "--json", "-q"], stdout=told
        )
        _, process.returncode, used = os.wait4(process.pid, 0)
    assert process.returncode == 0 and used.ru_maxrss / 1024 < 1536
    assert len(json.loads((tmp_path / "told.json").read_text())) == 4
