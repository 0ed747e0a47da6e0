"""The zoo: trained nets and models of images by name. Their cards come with the package; some weights are fetched when they are
wanted."""

import os
from pathlib import Path

from odefend.download import cache, download
from odefend.errors import CheckpointError, unknown
from odefend.files import make_folder, write_bytes
from odefend.models.card import Card, ImageCard
from odefend.models.checkpoint import read_card, read_checkpoint, read_image_model, sha256
from odefend.models.classifier import Classifier
from odefend.models.image_model import ImageModel
from odefend.progress import Progress

ZOO = Path(__file__).parent / "zoo"
IMAGES = ZOO / "images"
VARIABLE = "ODEFEND_ZOO"


def cards() -> dict[str, Card]:
    """What each net of the zoo says of itself, by name."""
    return {path.stem: read_card(path) for path in sorted(ZOO.glob("*.json"))}


def image_cards() -> dict[str, ImageCard]:
    """What each model of images in the zoo says of itself, by name."""
    return {path.stem: read_card(path, ImageCard) for path in sorted(IMAGES.glob("*.json"))}


def load(name: str | Path) -> Classifier:
    """A trained net in evaluation mode: by its name in the zoo ("digits-oon") or the path of its .safetensors file.

    The card is at `net.card`. Raises UnknownName for an unknown name and CheckpointError for a file that is missing,
    damaged, or not a checkpoint of odefend.
    """
    weights, card = _files(name, ZOO)
    return read_checkpoint(weights, read_card(card))


def load_image_model(name: str | Path) -> ImageModel:
    """The same for a model of images ("digits-glow")."""
    weights, card = _files(name, IMAGES)
    return read_image_model(weights, read_card(card, ImageCard))


def _files(name: str | Path, folder: Path) -> tuple[Path, Path]:
    """(weights, card) of a name in that folder of the zoo, or of a path."""
    path = Path(name)
    if path.suffix in (".safetensors", ".json") or len(path.parts) > 1:
        return path.with_suffix(".safetensors"), path.with_suffix(".json")
    known = [card.stem for card in folder.glob("*.json")]
    if path.name not in known:
        raise unknown("trained net" if folder == ZOO else "trained model of images", path.name, known)
    weights = weights_of(path.name)
    if weights is None:
        raise CheckpointError(
            f"{name}: its weights did not come with the package. Fetch them: odefend models fetch {name}."
        )
    return weights, folder / f"{name}.json"


def weights_of(name: str) -> Path | None:
    """The weights of a net or model of the zoo, if they are on this machine."""
    places = (_card(name).with_suffix(".safetensors"), cache() / "zoo" / f"{name}.safetensors")
    return next((place for place in places if place.is_file()), None)


def _card(name: str) -> Path:
    known = {path.stem: path for path in ZOO.rglob("*.json")}
    if name not in known:
        raise unknown("trained net", name, known)
    return known[name]


def fetch(name: str, source: str | None = None, progress: Progress | None = None) -> Path:
    """Get the weights of a net or model of the zoo that did not come with the package; returns where they are kept.

    source: a folder or an address that NAME.safetensors lies in (models of images: images/NAME.safetensors), such as the zoo of a
    checkout of odefend's repository; default: $ODEFEND_ZOO. The weights' SHA-256 must be the one on the packaged card. Raises
    CheckpointError where there is no source or its file is another, and DownloadError where it cannot be reached.
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
    card = _card(name)
    wanted = read_card(card, ImageCard if card.parent == IMAGES else Card).sha256
    place = card.relative_to(ZOO).with_suffix(".safetensors")
    kept = cache() / "zoo" / f"{name}.safetensors"
    if "://" in source:
        return download(f"{source.rstrip('/')}/{place.as_posix()}", f"sha256:{wanted}", kept.parent, progress)
    file = Path(source) / place
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file. Name the folder that it lies in.")
    if sha256(file) != wanted:
        raise CheckpointError(f"{file}: not the weights of {name}: its SHA-256 is not the one on the card.")
    make_folder(kept.parent)
    write_bytes(kept, file.read_bytes())
    return kept
