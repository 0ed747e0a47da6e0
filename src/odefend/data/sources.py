"""Where data sets come from: a local copy first, else a checked download from their publishers."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from odefend.download import cache, download, unpack
from odefend.errors import DataError, DownloadError, unknown
from odefend.progress import Progress

VARIABLE = "ODEFEND_DATA"


@dataclass(frozen=True)
class Source:
    """A published data set: `what` is in it, `folder` is its place in a folder of data sets, `files` the MD5 of files below it.

    `at` is the address that the files are below; where `archive` is given, that file is fetched instead, and unpacked
    into the folder of data sets.
    """

    what: str
    folder: str
    at: str
    files: dict[str, str]
    megabytes: int
    archive: tuple[str, str] | None = None
    also: str = ""  # the folder that other tools give it

    def found(self, folder: Path) -> Path | None:
        """Where it is in a folder of data sets, if it is there as a whole."""
        for place in filter(None, (self.folder, self.also)):
            if all((folder / place / name).exists() or _bare(folder / place / name).exists() for name in self.files):
                return folder / place
        return None


def _bare(path: Path) -> Path:
    """The file without its compression."""
    return path.with_suffix("") if path.suffix == ".gz" else path


SOURCES = {
    "mnist": Source(
        "70,000 grey pictures of 28x28 pixels, 10 digits",
        "mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        12,
        also="MNIST/raw",
    ),
    "fashion-mnist": Source(
        "70,000 grey pictures of 28x28 pixels, 10 kinds of clothing",
        "fashion-mnist",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        31,
        also="FashionMNIST/raw",
    ),
    "cifar10": Source(
        "60,000 colour pictures of 32x32 pixels, 10 classes",
        "cifar-10-batches-py",
        "https://www.cs.toronto.edu/~kriz/",
        {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        },
        171,
        archive=("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
    ),
    "tiny-imagenet-200": Source(
        "120,000 colour pictures of 64x64 pixels, 200 classes",
        "tiny-imagenet-200",
        "http://cs231n.stanford.edu/",
        # The pictures themselves have no published checksums; these two say which data set it is.
        {"wnids.txt": "", "val/val_annotations.txt": ""},
        248,
        archive=("tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"),
    ),
}


def folders(folder: Path | None = None) -> list[Path]:
    """Where data sets are looked for: in `folder` alone, or else in $ODEFEND_DATA and then among the downloads."""
    if folder is not None:
        return [Path(folder)]
    chosen = os.environ.get(VARIABLE)
    return [*([Path(chosen)] if chosen else []), cache() / "data"]


def local_copy(name: str, folder: Path | None = None) -> Path | None:
    """The folder of a data set's files, if it is on this machine."""
    if name not in SOURCES:
        raise unknown("data set", name, SOURCES)
    return next((found for place in folders(folder) if (found := SOURCES[name].found(place))), None)


def locate(name: str, folder: Path | None = None) -> Path:
    """The folder of a data set's files: a local copy if there is one (see `folders`), else downloaded and checked.

    Raises DataError where it is neither here nor to be had.
    """
    found = local_copy(name, folder)
    if found is None and folder is not None:
        raise DataError(
            f"{folder}: holds no {SOURCES[name].folder} with {', '.join(SOURCES[name].files)}. Name the folder that "
            f"{SOURCES[name].folder} is in, or fetch it: odefend data fetch {name}."
        )
    return found or fetch(name)


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Download a data set from its publisher, check it, and keep it; returns the folder of its files.

    Nothing is fetched again that is there and right. What was stopped goes on from the bytes that had come. Raises
    DataError where it cannot be reached or is not what its publisher published.
    """
    if name not in SOURCES:
        raise unknown("data set", name, SOURCES)
    source, place = SOURCES[name], cache() / "data"
    found = source.found(place)
    if found and not wrong_files(name, found):
        return found
    try:
        if source.archive:
            packed, md5 = source.archive
            unpack(download(source.at + packed, f"md5:{md5}", place, progress), source.folder, place)
        else:
            for file, md5 in source.files.items():
                download(source.at + file, f"md5:{md5}", place / source.folder, progress)
    except DownloadError as error:
        raise DataError(
            f"{error} If {name} is on this machine, name the folder that {source.folder} is in: --data-dir FOLDER or {VARIABLE}."
        ) from error
    found = source.found(place)
    if found is None:
        raise DataError(
            f"{place / source.folder}: expected {', '.join(source.files)} after unpacking {source.archive}."
        )
    return found


def wrong_files(name: str, folder: Path) -> list[str]:
    """The files of a data set that are not what its publisher published, by checksum."""
    return [
        file
        for file in SOURCES[name].files
        if file not in unchecked_files(name, folder) and _md5(folder / file) != SOURCES[name].files[file]
    ]


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def unchecked_files(name: str, folder: Path) -> list[str]:
    """The files of a data set that have no published checksum to compare with, or are here without their compression."""
    return [file for file, md5 in SOURCES[name].files.items() if not md5 or not (folder / file).exists()]
