"""The detectors by name."""

from odefend.detectors.base import Detector
from odefend.detectors.baselines import Confidence, Energy, Entropy, FeatureSqueezing, NoiseDrop, OnePassMargin
from odefend.detectors.flow import FlowLatent, FlowLikelihood
from odefend.detectors.network import SeparateNetwork
from odefend.detectors.pca import PrincipalComponents
from odefend.detectors.reconstruction import PurificationChange, ReconstructionError
from odefend.detectors.solver import EmbeddedError, LogitSpread, StepTrace, ToleranceDrop
from odefend.detectors.vote import NoiseVote, ToleranceVote
from odefend.errors import unknown
from odefend.named import is_own, own_class

DETECTORS: dict[str, type[Detector]] = {
    "one-pass-margin": OnePassMargin,
    "confidence": Confidence,
    "entropy": Entropy,
    "energy": Energy,
    "noise-drop": NoiseDrop,
    "feature-squeezing": FeatureSqueezing,
    "tolerance-vote": ToleranceVote,
    "noise-vote": NoiseVote,
    "tolerance-drop": ToleranceDrop,
    "logit-spread": LogitSpread,
    "embedded-error": EmbeddedError,
    "step-trace": StepTrace,
    "principal-components": PrincipalComponents,
    "separate-network": SeparateNetwork,
    "reconstruction-error": ReconstructionError,
    "purification-change": PurificationChange,
    "flow-likelihood": FlowLikelihood,
    "flow-latent": FlowLatent,
}
"""Those of single images. `Fused` joins several."""


def detector_class(name: str) -> type[Detector]:
    """The class of a detector by its name, or of a user's own by `file.py:Class`. Raises UnknownName for none of these."""
    if is_own(name):
        return own_class(name, Detector)
    if name not in DETECTORS:
        raise unknown("detector", name, DETECTORS)
    return DETECTORS[name]
