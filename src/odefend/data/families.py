"""The data sets by name."""

from collections.abc import Callable

from odefend.data.cifar import cifar10
from odefend.data.digits import digits
from odefend.data.folder import folder
from odefend.data.forensics import forensic_kinds, forensic_pairs
from odefend.data.images import LabelledImages
from odefend.data.mnist import fashion_mnist, mnist
from odefend.data.tiny_imagenet import tiny_imagenet

DATASETS: dict[str, Callable[..., LabelledImages]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "tiny-imagenet-200": tiny_imagenet,
    "forensic-pairs": forensic_pairs,
    "forensic-kinds": forensic_kinds,
    "folder": folder,
}
