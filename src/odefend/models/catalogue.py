"""The zoo: trained nets by name. Their cards come with the package; some weights are fetched when they are wanted."""

import os
from pathlib import Path

from odefend.download import cache, download
from odefend.errors import CheckpointError, unknown
from odefend.files import make_folder, write_atomically
from odefend.models.card import Card
from odefend.models.checkpoint import read_card, read_checkpoint, sha256
from odefend.models.classifier import Classifier
from odefend.progress import Progress

ZOO = Path(__file__).parent / "zoo"
VARIABLE = "ODEFEND_ZOO"


def cards() -> dict[str, Card]:
    """What each net of the zoo says of itself, by name."""
    return {path.stem: read_card(path) for path in sorted(ZOO.glob("*.json"))}


def load(name: str | Path) -> Classifier:
    """A trained net in evaluation mode: by its name in the zoo ("digits-oon") or the path of its .safetensors file.

    The card is at `net.card`. Raises UnknownName for an unknown name and CheckpointError for a file that is missing,
    damaged, or not a checkpoint of odefend.
    """
    path = Path(name)
    if path.suffix in (".safetensors", ".json") or len(path.parts) > 1:
        return read_checkpoint(path.with_suffix(".safetensors"), read_card(path.with_suffix(".json")))
    weights = weights_of(str(name))
    if weights is None:
        raise CheckpointError(
            f"{name}: its weights did not come with the package. Fetch them: odefend models fetch {name}."
        )
    return read_checkpoint(weights, read_card(ZOO / f"{name}.json"))


def weights_of(name: str) -> Path | None:
    """The weights of a net of the zoo, if they are on this machine."""
    known = [path.stem for path in ZOO.glob("*.json")]
    if name not in known:
        raise unknown("trained net", name, known)
    places = (ZOO / f"{name}.safetensors", cache() / "zoo" / f"{name}.safetensors")
    return next((place for place in places if place.is_file()), None)


def fetch(name: str, source: str | None = None, progress: Progress | None = None) -> Path:
    """Get the weights of a net of the zoo that did not come with the package; returns where they are kept.

    source: a folder or an address that NAME.safetensors lies in, such as the zoo of a checkout of odefend's repository;
    default: $ODEFEND_ZOO. The weights' SHA-256 must be the one on the packaged card. Raises CheckpointError where there is
    no source or its file is another, and DownloadError where it cannot be reached.
    """
    found = weights_of(name)
    if found:
        return found
    source = source or os.environ.get(VARIABLE)
    if not source:
        raise CheckpointError(
            f"{name}: its weights did not come with the package. Say where they are, in --source or {VARIABLE}: a folder or "
            "an address, such as src/odefend/models/zoo in a checkout of odefend's repository."
        )
    wanted, kept = read_card(ZOO / f"{name}.json").sha256, cache() / "zoo" / f"{name}.safetensors"
    if "://" in source:
        return download(f"{source.rstrip('/')}/{kept.name}", f"sha256:{wanted}", kept.parent, progress)
    file = Path(source) / kept.name
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file. Name the folder that it lies in.")
    if sha256(file) != wanted:
        raise CheckpointError(f"{file}: not the weights of {name}: its SHA-256 is not the one on the card.")
    make_folder(kept.parent)
    write_atomically(kept, lambda part: part.write_bytes(file.read_bytes()))
    return kept
