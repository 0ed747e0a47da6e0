"""python -m fuzzing.child FORMAT FOLDER: reads 300 damaged files of a format, and writes what came of it as JSON.

Whatever is executed, or written outside of the folder, is told, and so is any error that is not one line of odefend's own.
"""

import json
import os
import resource
import sys
import traceback
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import torch

from fuzzing.formats import FORMATS, Format
from odefend.errors import LONGEST, OdefendError

MUTATIONS, SECONDS = 300, 60

EXECUTING = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "subprocess.",
    "socket.",
    "pickle.",
    "pty.",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def watch(folder: Path, seen: set[str]) -> None:
    """From now on put into `seen` what is executed, and what is written outside of the folder."""

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(EXECUTING):
            seen.add(f"{event} {arguments!r:.200}")
        elif event == "open" and isinstance(arguments[0], str | bytes) and arguments[2] & WRITING:
            path = Path(os.fsdecode(arguments[0])).absolute()
            if folder not in path.parents and str(path) != os.devnull:
                seen.add(f"wrote {path}")

    sys.addaudithook(heard)


def tried(form: Format, good: dict[Path, str], random: Random) -> str:
    """What comes of one damaged file: "refused" or "read", or what is wrong with that."""
    path = random.choice(sorted(form.files))
    forged = form.forge is not None and (path not in form.sealed or random.random() < 0.5)
    change = form.forge if forged and form.forge else lambda path, old, random: {path: form.change(old, random)}
    changed = change(path, form.files[path], random)
    for file, content in changed.items():
        file.write_bytes(content)
    try:
        found = repr(form.read(path))
    except OdefendError as error:
        clear = "\n" not in str(error) and len(str(error)) <= LONGEST
        return "refused" if clear else f"not one clear line: {str(error)[:300]!r}"
    except BaseException:  # a panic of polars is no Exception
        return f"{path.name}: {traceback.format_exc(limit=-6)[-1500:]}"
    finally:
        for file in changed:
            file.write_bytes(form.files[file])
    if path in form.sealed and not forged and found != good[path]:
        return f"{path.name}: damage that nothing saw"
    return "read"


def main(name: str, folder: Path) -> None:
    """Read good files first, so that what is imported on the way is there, and then the damaged ones."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module=r"PIL\b")  # as the command line does
    form = FORMATS[name](folder)
    for path, content in form.files.items():
        path.write_bytes(content)
    good = {path: repr(form.read(path)) for path in form.files if form.good}
    seen, came = set[str](), Counter[str]()
    watch(folder, seen)
    for number in range(MUTATIONS):
        (folder / "number").write_text(str(number))  # tells where it was if this process ends
        came[tried(form, good, Random(f"{name} {number}"))] += 1
    used = resource.getrusage(resource.RUSAGE_SELF)
    sys.stdout.write(json.dumps({"came": came, "seen": sorted(seen), "MiB": used.ru_maxrss / 1024}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve())
