"""Models of images: GLOW is invertible and a density, the autoencoder has its published shape, and both train and come back."""

import pytest
import torch

import odefend
from odefend.errors import CheckpointError, InvalidInput, UnknownName
from odefend.models import Autoencoder, Glow, catalogue, count_parameters, image_cards, load_image_model, save
from odefend.models.autoencoder import autoencoder
from odefend.models.catalogue import ZOO
from odefend.models.glow import glow
from odefend.training import read_recipe, train

SMALL = {"options": {"in_channels": 1, "size": 8, "levels": 2, "steps": 2, "hidden": 8, "grey": 17}, "epochs": 3}


def pictures(count, channels=1, size=8, seed=0):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


def turned(model, seed=0):
    """With weights away from those it begins with, where couplings do next to nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def trained():
    model = load_image_model("digits-glow")
    assert isinstance(model, Glow)
    return model


def test_the_shapes_are_the_published_ones():
    assert count_parameters(autoencoder()) == 525_475
    assert autoencoder().latent(pictures(2, 3, 32)).shape == (2, 96, 2, 2)
    deepest, *others = glow(steps=1, hidden=8).latents(pictures(2, 3, 32))
    assert deepest.shape == (2, 48, 4, 4)
    assert [tuple(level.shape[1:]) for level in others] == [(12, 8, 8), (6, 16, 16)]


@pytest.mark.parametrize(("size", "widths", "last"), [(28, (16, 32, 64, 96), 6), (8, (16, 32, 16), 4), (9, (4, 4), 6)])
def test_an_autoencoder_gives_back_the_size_it_takes(size, widths, last):
    model = autoencoder(1, size, widths, last)
    purified = model.purified(pictures(3, size=size))
    assert purified.shape == (3, 1, size, size) and purified.min() >= 0 and purified.max() <= 1
    assert purified.flatten(1).std(0).max() > 0, "depends on the image"


def test_glow_inverts_what_it_does(trained, test_digits):
    """Also an untrained one with weights away from where they begin, to rounding."""
    some = test_digits.images[:16]
    assert torch.allclose(trained.images(trained.latents(some)), some, atol=1e-4)
    model = turned(glow(3, 8, 2, 3, 8, 256).double())
    images = pictures(4, 3).double()
    assert torch.allclose(model.images(model.latents(images)), images, atol=1e-9)
    latents = [torch.randn(level.shape, dtype=torch.float64) for level in model.latents(images)]
    back, there = model.flow.inverse_and_log_det(model.flow.forward_and_log_det(latents)[0])
    assert all(torch.allclose(one, other, atol=1e-8) for one, other in zip(back, latents, strict=True))
    assert len(there) == 4


def test_the_log_determinant_is_that_of_the_jacobian():
    model, images = turned(glow(1, 4, 2, 2, 4, 17).double()), pictures(1, size=4).double()

    def flat(point):
        return torch.cat([level.flatten() for level in model.flow.inverse_and_log_det(point[None])[0]])

    jacobian = torch.autograd.functional.jacobian(flat, images[0]).reshape(16, 16)
    expected = torch.linalg.slogdet(jacobian)[1]
    assert model.flow.inverse_and_log_det(images)[1].item() == pytest.approx(expected.item(), abs=1e-8)


def test_all_images_together_have_the_probability_of_their_cube():
    """Of 2 x 2 pixels of two values there are 16. Their probabilities, each on average over places in its bin, add up to the
    share of what the flow draws that lies among them."""
    torch.manual_seed(0)
    model = turned(glow(1, 2, 1, 2, 4, grey=2).double())
    with torch.no_grad():
        model.flow.q0[0].log_scale.fill_(-1.5)
        inside = model.flow.sample(100_000)[0].abs().flatten(1).amax(1) < 0.5
        every = torch.tensor([[(n >> k) & 1 for k in range(4)] for n in range(16)]).double().view(16, 1, 2, 2)
        bits = model.bits_per_dimension(every.repeat(4000, 1, 1, 1), torch.rand(64_000, 1, 2, 2, dtype=torch.float64))
    mass = torch.exp2(-4 * bits).view(4000, 16).sum(1)
    share, error = inside.double().mean(), (mass.var() / 4000 + inside.double().var() / 100_000).sqrt()
    assert 0.1 < share < 0.9 and abs(mass.mean() - share) < 4 * error < 0.1


def test_an_image_knows_no_other_and_no_batch_sets_the_normalization():
    model, images = turned(glow(1, 8, 2, 2, 8, 17)), pictures(12)
    whole = model.bits_per_dimension(images)
    assert torch.allclose(model.bits_per_dimension(images[5:7]), whole[5:7], atol=1e-5)
    fresh = glow(1, 8, 2, 2, 8, 17)
    before = fresh.bits_per_dimension(images)
    fresh.bits_per_dimension(images[:2])
    assert torch.equal(fresh.bits_per_dimension(images), before)
    fresh.prepare(images)
    assert not torch.equal(fresh.bits_per_dimension(images), before)


def test_preparing_brings_what_couplings_see_to_mean_0_and_variance_1():
    torch.manual_seed(0)
    model, images = glow(1, 8, 1, 1, 8, 17), pictures(500)
    model.prepare(images)
    (deepest,) = model.latents(images)
    assert deepest.mean((0, 2, 3)).abs().max() < 0.1
    # A coupling that has learned nothing passes one half of the channels on and scales the other by sigmoid(2) = .88.
    assert torch.allclose(deepest.std((0, 2, 3)), torch.tensor([1.0, 1.0, 0.88, 0.88]), atol=0.05)


def test_training_takes_fewer_bits_and_resumes(tmp_path, monkeypatch):
    recipe = read_recipe("digits-glow", overrides=SMALL | {"keep": "last", "images": 512})
    whole = load_image_model(train(recipe, tmp_path / "whole"))
    assert whole.card is not None
    losses = [epoch.validation_loss for epoch in whole.card.history]
    assert losses == sorted(losses, reverse=True) and losses[0] - losses[-1] > 0.2
    found = whole.card.measured["bits per dimension"]
    assert found.low < found.value < found.high and abs(found.value - losses[-1]) < 0.3

    class StopError(Exception):
        pass

    class Stop:
        def stage(self, name, total):
            pass

        def advance(self, done, note=""):
            if done >= 20:
                raise StopError

    monkeypatch.setattr("odefend.training.state.SAVE_EVERY", 0.0)
    with pytest.raises(StopError):
        train(recipe, tmp_path / "parts", Stop())
    resumed = load_image_model(train(recipe, tmp_path / "parts"))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_an_autoencoder_trains(tmp_path):
    model = load_image_model(train(read_recipe("digits-autoencoder", overrides={"epochs": 4}), tmp_path))
    assert isinstance(model, Autoencoder) and model.card is not None
    history = model.card.history
    assert history[-1].validation_loss < history[0].validation_loss and history[0].validation_accuracy is None
    assert set(model.card.measured) == {"binary cross-entropy", "mean square error"}


def test_a_file_gives_back_the_same_latents(tmp_path, trained, test_digits):
    assert trained.card is not None
    back = load_image_model(save(trained, trained.card, tmp_path / "one"))
    assert isinstance(back, Glow)
    for one, other in zip(trained.latents(test_digits.images[:8]), back.latents(test_digits.images[:8]), strict=True):
        assert torch.equal(one, other)


def test_the_zoo_has_what_its_cards_say(test_digits):
    assert {"digits-glow", "digits-autoencoder"} <= set(image_cards())
    for name, measure in (("digits-glow", "bits per dimension"), ("digits-autoencoder", "mean square error")):
        model = load_image_model(name)
        assert model.card is not None
        torch.manual_seed(1)
        found = model.measures(odefend.digits("test").images)[measure].mean().item()
        said = model.card.measured[measure]
        assert said.low < found < said.high


def test_samples_are_a_function_of_the_seed_and_look_like_digits(trained, test_digits):
    state = torch.random.get_rng_state()
    one, again, other = trained.sample(64, seed=3), trained.sample(64, seed=3), trained.sample(64, seed=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert one.min() >= 0 and one.max() <= 1
    # Bright in the middle and dark at the edges, as no noise is.
    assert one[..., 3:5].mean() - one[..., [0, 7]].mean() > 0.2


def test_an_attacked_image_has_a_gradient(trained, test_digits):
    images = test_digits.images[:4].clone().requires_grad_()
    trained.bits_per_dimension(images).sum().backward()
    assert images.grad is not None and (images.grad.flatten(1).norm(dim=1) > 0).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: glow(1, 28, 3), "expected a multiple of 8 for 3 levels, got 28"),
        (lambda: glow(1, 8, 0), "expected at least 1"),
        (lambda: autoencoder(1, 8), "expected one that 2 halvings bring to at least 6, got 8"),
        (lambda: autoencoder(1, 8, (4,)), "expected at least two widths"),
    ],
)
def test_wrong_sizes_are_refused(build, message):
    with pytest.raises(InvalidInput, match=message):
        build()


@pytest.mark.parametrize("key", [{"adversarial": {"epsilon": 0.1}}, {"keep": "best-accuracy"}, {"loss": "binary"}])
def test_what_has_no_meaning_without_labels_is_refused(key):
    with pytest.raises(InvalidInput, match=f"{next(iter(key))}: expected none of .* for glow, a model of images"):
        read_recipe("digits-glow", overrides=key)


def test_weights_are_fetched_from_the_zoo_of_a_checkout(tmp_path, monkeypatch):
    """Models of images lie in a folder of their own there."""
    monkeypatch.setenv("ODEFEND_CACHE", str(tmp_path))
    monkeypatch.setattr(catalogue, "weights_of", lambda name: None)
    kept = catalogue.fetch("digits-glow", str(ZOO))
    assert kept.read_bytes() == (ZOO / "images" / "digits-glow.safetensors").read_bytes()


def test_wrong_images_and_names_are_refused(trained, tmp_path):
    with pytest.raises(InvalidInput, match="expected 8 x 8 pixels, got 9 x 8"):
        trained.latents(torch.zeros(1, 1, 9, 8))
    with pytest.raises(InvalidInput, match=r"expected shape \(N, 1"):
        trained(torch.zeros(1, 3, 8, 8))
    with pytest.raises(UnknownName, match="digits-glow"):
        load_image_model("digits-gloo")
    with pytest.raises(UnknownName):
        odefend.load("digits-glow")
    with pytest.raises(CheckpointError, match="not a card"):
        load_image_model(ZOO / "digits-oon.json")
