"""Downloads that go on where they stopped and leave nothing half-written."""

import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pooch
import requests
from filelock import FileLock

from odefend.errors import DownloadError
from odefend.files import make_folder
from odefend.progress import Progress, Silent

pooch.get_logger().setLevel("WARNING")  # what it tells, progress tells better

CHUNK = 1 << 18
TIMEOUT = 30
ARCHIVE_ERRORS = (tarfile.TarError, zipfile.BadZipFile, zlib.error)


def cache() -> Path:
    """Where downloads and decoded pictures are kept: $ODEFEND_CACHE, else the user's folder for caches."""
    return Path(os.environ.get("ODEFEND_CACHE") or pooch.os_cache("odefend"))


def one_at_a_time(folder: Path, name: str) -> FileLock:
    """A lock that lets one process at a time work on `name` in a folder."""
    return FileLock(folder / f".{name}.lock")


def download(address: str, checksum: str, folder: Path, progress: Progress | None = None) -> Path:
    """The file at `address`, in `folder` under its own name, once its checksum ("md5:..." or "sha256:...") is right; what
    is there and right stays.

    Raises DownloadError where the address cannot be reached or what comes from there is another file.
    """
    name = address.rsplit("/", 1)[-1]
    make_folder(folder)
    get: Any = _resuming(folder / f"{name}.part", progress or Silent())
    try:
        with one_at_a_time(folder, name):
            return Path(pooch.retrieve(address, known_hash=checksum, fname=name, path=folder, downloader=get))
    except (requests.RequestException, OSError) as error:
        raise DownloadError(f"{address}: cannot be downloaded ({_reason(error)}).") from error
    except ValueError as error:  # pooch's word for a wrong checksum
        (folder / f"{name}.part").unlink(missing_ok=True)
        raise DownloadError(
            f"{address}: what came is not the file that was published (expected {checksum})."
        ) from error


def _reason(error: Exception) -> str:
    """The innermost cause, which is the one that a person understands."""
    while error.__context__ is not None and isinstance(error.__context__, Exception):
        error = error.__context__
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _resuming(part: Path, progress: Progress) -> Callable[[str, Any, Any], None]:
    """A downloader for pooch that keeps what has come in `part` until all of it has."""

    def get(address: str, output: Any, _: Any) -> None:
        here = part.stat().st_size if part.exists() else 0
        with requests.get(
            address, stream=True, timeout=TIMEOUT, headers={"Range": f"bytes={here}-"} if here else {}
        ) as answer:
            whole = answer.status_code == requests.codes.requested_range_not_satisfiable
            if not whole:
                answer.raise_for_status()
                if answer.status_code != requests.codes.partial_content:
                    here = 0  # a server that does not know ranges sends all of it again
                total = here + int(answer.headers.get("Content-Length", 0))
                progress.stage(f"download {address.rsplit('/', 1)[-1]}", total or 1)
                with part.open("ab" if here else "wb") as file:
                    for chunk in answer.iter_content(CHUNK):
                        here += file.write(chunk)
                        progress.advance(min(here, total or 1), f"{here / 1e6:.1f} MB")
        shutil.move(part, output)

    return get


def unpack(archive: Path, top: str, folder: Path) -> Path:
    """Unpack a .tar.gz or .zip, of which everything lies below `top`, so that `folder`/`top` appears as a whole.

    Raises DownloadError where the archive is damaged or would write elsewhere.
    """
    make_folder(folder)
    with one_at_a_time(folder, top), tempfile.TemporaryDirectory(dir=folder, prefix=f".{top}.") as place:
        fresh, old = Path(place) / "fresh", Path(place) / "old"
        try:
            if archive.suffix == ".zip":
                with zipfile.ZipFile(archive) as packed:
                    packed.extractall(fresh)
            else:
                with tarfile.open(archive) as packed:
                    packed.extractall(fresh, filter="data")
            if (fresh / top).is_dir():
                if (folder / top).exists():
                    (folder / top).replace(old)
                (fresh / top).replace(folder / top)
                return folder / top
        # What the two libraries raise for damaged, encrypted or unknown contents.
        except (*ARCHIVE_ERRORS, EOFError, OSError, RuntimeError, NotImplementedError) as error:
            raise DownloadError(f"{archive}: cannot be unpacked ({error}). Remove it and fetch it again.") from error
    raise DownloadError(f"{archive}: expected a folder {top} in it, found none. Remove it and fetch it again.")
