"""The nets and the models of images by name."""

from collections.abc import Callable

from odefend.models.autoencoder import autoencoder
from odefend.models.classifier import Classifier
from odefend.models.convolutional import lenet5, resnet14
from odefend.models.endtime import end_time, end_time_matched
from odefend.models.forensic import forensic, forensic_matched
from odefend.models.glow import glow
from odefend.models.image_model import ImageModel
from odefend.models.odenet import mix, oon
from odefend.models.resnet import mix_matched, oon_matched, res

MODELS: dict[str, Callable[..., Classifier]] = {
    "res": res,
    "mix": mix,
    "oon": oon,
    "mix-matched": mix_matched,
    "oon-matched": oon_matched,
    "forensic": forensic,
    "forensic-matched": forensic_matched,
    "end-time": end_time,
    "end-time-matched": end_time_matched,
    "lenet5": lenet5,
    "resnet14": resnet14,
}

IMAGE_MODELS: dict[str, Callable[..., ImageModel]] = {"autoencoder": autoencoder, "glow": glow}
