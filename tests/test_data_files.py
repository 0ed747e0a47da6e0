"""Reading published files: what is damaged, foreign or hostile is named and refused; downloads resume and are checked."""

import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from limits import most_memory

from odefend.data import SOURCES, cifar, fetch, local_copy, mnist, wrong_files
from odefend.data.cifar import read_batch
from odefend.data.mnist import read_idx
from odefend.data.sources import locate
from odefend.download import download, unpack
from odefend.errors import DataError, DownloadError, UnknownName

PICTURES = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def mnist_folder(folder):
    """A tiny data set in MNIST's format: 6,000 pictures to train on and 3 to test."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for prefix, count in (("train", 6000), ("t10k", 3)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images), 1))
        labels = rng.integers(0, 10, count).astype(np.uint8)
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels), 1))
    return folder


def test_an_idx_file_is_read_packed_or_not(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(PICTURES)))
    (tmp_path / "b").write_bytes(idx(PICTURES))
    assert np.array_equal(read_idx(tmp_path / "a.gz", 3), PICTURES)
    assert np.array_equal(read_idx(tmp_path / "b.gz", 3), PICTURES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(idx(PICTURES), mtime=0)[:-30], "truncated or damaged"),
        (gzip.compress(idx(PICTURES)[:-1], mtime=0), "expected 2x28x28 bytes after its head, got 1567"),
        (gzip.compress(idx(PICTURES) + b"x", mtime=0), "got more"),
        (gzip.compress(idx(PICTURES)[:4] + b"\xff" * 12, mtime=0), "expected at most 536,870,912 bytes"),
        (gzip.compress(idx(PICTURES[0]), mtime=0), "expected an IDX file of bytes with 3 axes, got 00000802"),
        (gzip.compress(b"", mtime=0), "got nothing"),
        (b"<html>not found</html>", "truncated or damaged"),
    ],
)
def test_a_wrong_idx_file_is_named_with_the_reason(content, message, tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path, 3)
    assert str(path) in str(caught.value)


def test_no_more_is_unpacked_than_an_idx_file_announces(tmp_path):
    """512 MiB of zeros in half a megabyte, behind a head that speaks of 1,568 bytes, or of more than any data set has."""
    path, before = tmp_path / "images.gz", most_memory()
    packer = zlib.compressobj(1, wbits=31)
    parts = [packer.compress(idx(PICTURES)[:16])] + [packer.compress(bytes(1 << 22)) for _ in range(128)]
    path.write_bytes(b"".join(parts) + packer.flush())
    with pytest.raises(DataError, match="expected 2x28x28 bytes after its head, got more"):
        read_idx(path, 3)
    assert most_memory() - before < 100


def test_splits_of_mnist_are_disjoint_and_validation_is_cut_from_train(tmp_path):
    mnist_folder(tmp_path / "mnist")
    parts = {split: mnist(split, tmp_path) for split in ("train", "validation", "test")}
    ids = {split: set(part.ids) for split, part in parts.items()}
    assert [len(part) for part in ids.values()] == [1000, 5000, 3]
    assert not ids["train"] & ids["validation"] and all(name.startswith("mnist/train/") for name in ids["validation"])
    assert ids["train"] | ids["validation"] == {f"mnist/train/{i:05d}" for i in range(6000)}
    assert parts["test"].ids == ("mnist/test/00000", "mnist/test/00001", "mnist/test/00002")
    assert parts["train"].digest == mnist("train", tmp_path).digest
    whole = read_idx(tmp_path / "mnist" / "train-images-idx3-ubyte.gz", 3)
    for part in (parts["train"], parts["validation"]):
        row = int(part.ids[7][-5:])
        assert np.array_equal(part.pixels[7, 0], whole[row]), "an id is the row of the published file"
    with pytest.raises(UnknownName, match="validation"):
        mnist("validate", tmp_path)
    labels = tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx(np.array([1, 2, 77], np.uint8))))
    with pytest.raises(DataError, match="expected labels of 10 classes, got 77"):
        mnist("test", tmp_path)
    labels.write_bytes(gzip.compress(idx(np.zeros(2, np.uint8))))
    with pytest.raises(DataError, match="as many labels as images, got 2 and 3"):
        mnist("test", tmp_path)


def batch(pixels=None, labels=None, dtype=b"u1"):
    """A pickled batch as the publisher's Python 2 wrote it, opcode by opcode."""
    pixels = np.zeros((10_000, 3072), np.uint8) if pixels is None else pixels
    labels = [0] * 10_000 if labels is None else labels

    def text(value):
        return b"U" + bytes([len(value)]) + value

    array = b"".join(
        (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R",
            b"(K\x01M" + struct.pack("<H", len(pixels)) + b"M" + struct.pack("<H", 3072) + b"\x86",
            b"cnumpy\ndtype\n"
            + text(dtype)
            + b"K\x00K\x01\x87R(K\x03"
            + text(b"|")
            + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff",
            b"K\x00tb\x89T" + struct.pack("<I", pixels.nbytes) + pixels.tobytes() + b"tb",
        )
    )
    return (
        b"\x80\x02}("
        + text(b"data")
        + array
        + text(b"labels")
        + b"]("
        + b"".join(b"K" + bytes([label]) for label in labels)
        + b"eu."
    )


def test_a_batch_of_cifar_is_read_as_numpy_reads_it(tmp_path):
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (10_000, 3072), dtype=np.uint8), rng.integers(0, 10, 10_000).tolist()
    path = tmp_path / "data_batch_1"
    path.write_bytes(batch(pixels, labels))
    plain = pickle.loads(path.read_bytes(), encoding="bytes")
    found, told = read_batch(path)
    assert np.array_equal(found, plain[b"data"].reshape(-1, 3, 32, 32)) and told.tolist() == plain[b"labels"] == labels


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("owned",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cposix\nmkdir\nU\x05owned\x85R.", "asks for posix.mkdir"),
        (pickle.dumps({"data": Hostile()}, 4), "has an instruction FRAME"),
        (pickle.dumps(Hostile(), 2), "has an instruction BINUNICODE"),
        (b"cbuiltins\neval\n(U\x02()tR.", "asks for builtins.eval"),
        (b"}r\xff\xff\xff\x7f.", "numbers an object 2147483647"),
        (b"}(U\x04datacnumpy\nndarray\n)Ru.", "not a batch"),
        (batch()[:20_000] + bytes(50_000_000), "about 31 MB, got 50 MB"),
        (batch()[:-20_000], "damaged"),
        (b"<html>", "not a batch of CIFAR-10"),
        (b"", "not a batch of CIFAR-10"),
        (b"](K\x01K\x02e.", "not a batch of CIFAR-10"),
        (batch(labels=[0] * 9_999 + [10]), "label in 0..9"),
        (batch(labels=[0] * 9_999), "label in 0..9"),
        (batch(pixels=np.zeros((9_999, 3072), np.uint8)), "10000 pictures of 3072 bytes"),
        (batch().replace(b"K\x00tb\x89T", b"K\x00tb\x88T"), "NEWTRUE"),
        (batch(dtype=b"O8"), "10000 pictures of 3072 bytes"),
    ],
    ids=[
        "mkdir",
        "nested",
        "class",
        "eval",
        "memory",
        "bare",
        "large",
        "truncated",
        "html",
        "empty",
        "list",
        "label",
        "labels",
        "pixels",
        "columns",
        "objects",
    ],
)
def test_a_hostile_or_damaged_batch_is_refused_and_executes_nothing(content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_batch(path)
    assert str(path) in str(caught.value) and not (tmp_path / "owned").exists()


class Server(HTTPServer):
    """Serves `content` by path; breaks off each answer after `most` bytes; remembers which ranges were asked for."""

    content: dict
    ranges: list
    address: str
    most = 1 << 30
    knows_ranges = True


class Handler(BaseHTTPRequestHandler):
    server: Server  # type: ignore[assignment]

    def do_GET(self):
        content = self.server.content.get(self.path)
        if content is None:
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.knows_ranges else 0
        self.send_response(206 if asked and self.server.knows_ranges else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : start + self.server.most])

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as server:
        server.content, server.ranges = {}, []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        server.address = f"http://127.0.0.1:{server.server_port}/"
        yield server
        server.shutdown()
        thread.join()


def seen(folder):
    """What is in a folder but for locks."""
    return [path.name for path in folder.iterdir() if path.suffix != ".lock"]


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(server, knows_ranges, tmp_path):
    content = np.random.default_rng(0).bytes(1_000_000)
    server.content["/file.bin"], server.most, server.knows_ranges = content, 600_000, knows_ranges
    with pytest.raises(DownloadError, match=r"file\.bin: cannot be downloaded"):
        download(server.address + "file.bin", f"md5:{md5(content)}", tmp_path)
    assert not (tmp_path / "file.bin").exists() and (tmp_path / "file.bin.part").stat().st_size > 0
    server.most = 1 << 30
    path = download(server.address + "file.bin", f"md5:{md5(content)}", tmp_path)
    assert path.read_bytes() == content and seen(tmp_path) == ["file.bin"]
    assert server.ranges[0] is None and server.ranges[1].startswith("bytes=")
    download(server.address + "file.bin", f"md5:{md5(content)}", tmp_path)
    assert len(server.ranges) == 2, "what is there and right is not fetched again"


def test_what_is_not_the_published_file_is_refused_and_removed(server, tmp_path):
    server.content["/file.bin"] = b"something else"
    with pytest.raises(DownloadError, match="not the file that was published"):
        download(server.address + "file.bin", f"md5:{md5(b'right')}", tmp_path)
    assert seen(tmp_path) == []
    with pytest.raises(DownloadError, match="404"):
        download(server.address + "none.bin", f"md5:{md5(b'right')}", tmp_path)


@pytest.fixture
def published(server, tmp_path, monkeypatch):
    """A small MNIST that the server publishes, and nothing on this machine."""
    folder = mnist_folder(tmp_path / "publisher")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server.content = {f"/{name}": content for name, content in files.items()}
    source = replace(SOURCES["mnist"], at=server.address, files={name: md5(content) for name, content in files.items()})
    monkeypatch.setitem(SOURCES, "mnist", source)
    monkeypatch.delenv("ODEFEND_DATA", raising=False)
    monkeypatch.setenv("ODEFEND_CACHE", str(tmp_path / "cache"))
    return server


def test_a_local_copy_comes_first_and_a_download_after(published, tmp_path, monkeypatch):
    assert local_copy("mnist") is None
    assert len(mnist("test")) == 3 and local_copy("mnist") == tmp_path / "cache" / "data" / "mnist"
    asked = len(published.ranges)
    local = mnist_folder(tmp_path / "mine" / "MNIST" / "raw")
    monkeypatch.setenv("ODEFEND_DATA", str(tmp_path / "mine"))
    assert locate("mnist") == local and len(mnist("test")) == 3
    assert locate("mnist", tmp_path / "mine") == local
    assert len(published.ranges) == asked == 4
    with pytest.raises(DataError, match=r"holds no mnist with .*odefend data fetch mnist"):
        locate("mnist", tmp_path / "publisher")


def test_a_damaged_download_is_noticed_and_fetched_again(published, tmp_path):
    here = fetch("mnist")
    assert wrong_files("mnist", here) == []
    damaged = here / "t10k-images-idx3-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert wrong_files("mnist", here) == [damaged.name]
    assert wrong_files("mnist", fetch("mnist")) == []


def test_an_unreachable_publisher_is_one_message_that_says_what_to_do(published):
    published.content = {}
    with pytest.raises(DataError, match=r"404.*--data-dir FOLDER or ODEFEND_DATA"):
        mnist("test")
    with pytest.raises(UnknownName, match="Did you mean 'mnist'"):
        fetch("mnits")


def test_processes_that_want_one_file_wait_for_each_other(server, tmp_path):
    content = np.random.default_rng(0).bytes(3_000_000)
    server.content["/file.bin"] = content
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(download, server.address + "file.bin", f"md5:{md5(content)}", tmp_path) for _ in range(4)]
        assert {call.result().read_bytes() == content for call in calls} == {True}
    assert len(server.ranges) == 1 and seen(tmp_path) == ["file.bin"]


def packed(files):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return content.getvalue()


def test_an_archive_appears_as_a_whole_or_not_at_all(server, tmp_path, monkeypatch):
    names = list(SOURCES["cifar10"].files)
    good = packed({f"cifar-10-batches-py/{name}": name.encode() for name in names})
    archive = ("cifar-10-python.tar.gz", md5(good))
    monkeypatch.setitem(SOURCES, "cifar10", replace(SOURCES["cifar10"], at=server.address, archive=archive))
    monkeypatch.setenv("ODEFEND_CACHE", str(tmp_path))
    server.content["/cifar-10-python.tar.gz"] = good
    here = fetch("cifar10")
    assert sorted(path.name for path in here.iterdir()) == sorted(names)
    with pytest.raises(DataError, match="data_batch_1: not a batch"):
        cifar.read_batch(here / "data_batch_1")

    archive_here = here.parent / "cifar-10-python.tar.gz"
    with ThreadPoolExecutor(4) as pool:
        again = [pool.submit(unpack, archive_here, here.name, here.parent) for _ in range(8)]
        assert {call.result() for call in again} == {here}
    assert sorted(seen(here)) == sorted(names)

    place = tmp_path / "other"
    for content in (good[:-200], b"rubbish", packed({"elsewhere/file": b""}), packed({"../file": b""})):
        (tmp_path / "bad.tar.gz").write_bytes(content)
        with pytest.raises(DownloadError, match=r"bad\.tar\.gz"):
            unpack(tmp_path / "bad.tar.gz", "cifar-10-batches-py", place)
        assert seen(place) == [], "nothing half-written stays"
