"""What looks wrong before an attack begins: most attacks that "do not work" were given something else than they expect."""

import torch
from torch import Tensor

from odefend.models import Adapted, Classifier, ODENet


@torch.no_grad()
def check_setup(classifier: Classifier, images: Tensor, labels: Tensor) -> list[str]:
    """Sentences about what looks wrong with these images, their labels or the classifier; none where all looks right.

    Looks at the range of the images, at logits that are probabilities or saturated, at accuracy near chance, at whether the
    same images get the same answers twice and in another batch, and at exact gradients that are those of step sizes. Raises
    InvalidInput as `Classifier.predict` does. Try it on some tens of images: fewer say little about accuracy.
    """
    said, again = classifier.predict(images), classifier.predict(images)
    return [
        text
        for text in (
            _range(images),
            _logits(said.logits),
            _accuracy(said.correct(labels), classifier.classes),
            _determinism(said.logits, again.logits),
            _neighbours(classifier, images, said.logits),
            _abstentions(said.answered),
            _drowned(classifier, images, labels),
        )
        if text
    ]


def _range(images: Tensor) -> str:
    high = images.max().item()
    return f"the brightest pixel is {high:.3g}: were the images divided by 255 twice?" if high < 2 / 255 else ""


def _logits(logits: Tensor) -> str:
    if bool((logits >= 0).all()) and bool((logits.sum(1) - 1).abs().max() < 1e-4):
        return "the logits look like probabilities: gradients of their losses vanish. Return what softmax is given."
    sure = logits.double().log_softmax(1).amax(1) > -1e-30
    if sure.double().mean() > 0.5:
        return (
            "more than half of the images have a cross-entropy of exactly 0, which has no gradient. Use loss=margin, or "
            "scale the logits down."
        )
    return ""


def _accuracy(right: Tensor, classes: int) -> str:
    share = right.double().mean().item()
    if share > 0.5 + 0.5 / classes or len(right) < 8:
        return ""
    return f"only {100 * share:.0f} % of the images are classified rightly: are labels and normalization those of training?"


def _determinism(one: Tensor, other: Tensor) -> str:
    if torch.equal(one, other):
        return ""
    return (
        "the same images get different answers: the net is random. Attack its expectation (odefend.Expectation), and judge "
        "under fresh draws."
    )


def _neighbours(classifier: Classifier, images: Tensor, logits: Tensor) -> str:
    half = torch.arange(0, len(images), 2, device=images.device)
    if len(half) < 2:
        return ""
    gap = (classifier.rows(half).predict(images[half]).logits - logits[half]).abs().max().item()
    if gap <= 1e-3 * max(1.0, logits.abs().max().item()):
        return ""
    return (
        f"answers depend on the other images of a batch (by {gap:.2g} in a logit): coupling='batch', or batch norm in "
        "training mode? Attacks take images out of a batch when they are done."
    )


def _abstentions(answered: Tensor) -> str:
    failed = int((~answered).sum())
    return f"the solver fails on {failed} of {len(answered)} images, which are left out." if failed else ""


def _drowned(classifier: Classifier, images: Tensor, labels: Tensor) -> str:
    if not isinstance(classifier, ODENet | Adapted):
        return ""
    chosen = classifier.chosen if isinstance(classifier, Adapted) else vars(classifier.settings)
    if chosen.get("gradient") != "exact":
        return ""
    exact, along = _slope(classifier, images, labels), _slope(classifier.at(gradient="unrolled"), images, labels)
    drowned = int((~(exact <= 10 * along)).sum())  # NaN is, too
    if not drowned:
        return ""
    return (
        f"gradient='exact': on {drowned} of {len(images)} images the gradient is more than 10 times that along the steps, or not "
        "finite: it is of the step sizes and not of the answer. Use gradient='unrolled', which comes close to the solution's at "
        "such tolerances, or a tolerance of 1e-4 or more."
    )


@torch.enable_grad()
def _slope(classifier: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """The size of the gradient of each image's logit of its label."""
    images = images.detach().requires_grad_()
    logits = classifier.predict(images).logits.gather(1, labels[:, None])
    return torch.autograd.grad(logits.sum(), images)[0].flatten(1).norm(dim=1)
