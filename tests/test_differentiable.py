"""Stand-ins for what has no gradient: their values, their gradients, and that attacks get through with them."""

import pytest
import torch
from toys import Linear, pictures

from odefend.attacks import PGD, straight_through
from odefend.attacks.differentiable import jpeg, mean, median
from odefend.data.tamper import tamper
from odefend.defenses import InputTransform
from odefend.errors import InvalidInput, UnknownName


def coloured(count=6, height=24, width=19):
    """Smooth pictures with some noise, as 8-bit values."""
    generator = torch.Generator().manual_seed(2)
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    phase = torch.rand(count, 3, 1, 1, generator=generator)
    noise = 0.1 * torch.randn(count, 3, height, width, generator=generator)
    return (255 * (0.5 + 0.4 * torch.sin(6 * (x + y * phase) + 6 * phase) + noise).clamp(0, 1)).round().byte()


def names(count):
    return [f"i{k}" for k in range(count)]


def test_straight_through_has_the_value_of_one_and_the_gradient_of_the_other():
    x = torch.tensor([0.2, 1.7], requires_grad=True)
    y = straight_through((3 * x).round(), x**2)
    assert y.tolist() == [1.0, 5.0]
    y.sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())
    with pytest.raises(InvalidInput, match="one shape"):
        straight_through(torch.ones(2), torch.ones(3))


@pytest.mark.parametrize("size", [3, 5])
def test_the_median_is_pillows(size):
    pixels = coloured()
    exact = tamper(pixels, names(6), f"median-{size}").double()
    torch.testing.assert_close(255 * median(pixels.double() / 255, size), exact, rtol=0, atol=1e-4)


def test_the_mean_is_pillows_to_rounding():
    pixels = coloured()
    exact = tamper(pixels, names(6), "mean-3").double()
    assert (255 * mean(pixels.double() / 255, 3) - exact).abs().max() < 1


@pytest.mark.parametrize("quality", [30, 60, 90])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_pillows_but_for_the_rounding_of_single_coefficients(quality, channels):
    pixels = coloured()[:, :channels]
    exact = tamper(pixels, names(6), f"jpeg-{quality}-444").double()
    error = (255 * jpeg(pixels.double() / 255, quality) - exact).abs()
    assert error.mean() < 1 and error.max() < 20
    # A wrong table, transform or grid of blocks would make an error like that of compression itself.
    assert error.mean() < 0.4 * (pixels.double() - exact).abs().mean()


def test_jpeg_and_median_pass_gradients_on():
    images = (coloured(2).double() / 255).requires_grad_(True)
    weight = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((jpeg(images, 95) * weight).sum(), images)
    # At high quality JPEG is nearly the identity, and so must its gradient be.
    cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), weight.flatten(), dim=0)
    assert cosine > 0.9
    (gradient,) = torch.autograd.grad(median(images, 3).sum(), images)
    assert gradient.sum() == images.numel()


@pytest.mark.parametrize("name", ["jpeg-60-444", "median-3", "mean-3", "equalize", "noise-4", "jpeg-75-420"])
def test_a_transformed_net_sees_exactly_the_tampered_picture(name):
    pixels = coloured(4)
    images = pixels.float() / 255
    net = Linear(
        torch.randn(3, images[0].numel(), generator=torch.Generator().manual_seed(1)), torch.zeros(3), 3
    ).eval()
    defended = InputTransform(name)(net)
    seen = InputTransform(name).apply(images)
    if name != "noise-4":  # whose draw depends on the picture's content there
        assert torch.equal(seen, tamper(pixels, names(4), name).float() / 255)
    assert not torch.equal(seen, images)
    assert torch.equal(defended(images), net(seen))
    assert torch.equal(defended(images.flip(0)), defended(images).flip(0))


def test_rounding_alone_does_not_stop_an_attack():
    """Behind a filter whose own gradient is zero everywhere, BPDA finds what is there to be found."""
    images = 0.4 + 0.2 * pictures(8, size=16).float()
    weight = torch.randn(2, 256, generator=torch.Generator().manual_seed(3))
    net = Linear(weight, torch.zeros(2)).eval()
    defended = InputTransform("median-3")(net)
    labels = defended.predict(images).labels
    found = PGD(0.3, steps=20)(defended, images, labels)
    assert found.success.all() and (found.zero_gradients == 0).all()


def test_wrong_use():
    with pytest.raises(UnknownName, match="median"):
        InputTransform("mediam-3")
