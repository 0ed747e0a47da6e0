"""Randomized smoothing: classifiers whose certified radius is known, and what would break the proof."""

import math

import pytest
import torch
from scipy.stats import binom, binomtest, norm
from torch import nn
from toys import Linear, pictures, small_ode_net

from odefend import rng
from odefend.attacks import PGD
from odefend.defenses import Averaged, LogUniform, MajorityVote, RandomTolerance, Smoothing, smoothing
from odefend.defenses.certificate import ABSTAINED, certify, decide, lower_bound
from odefend.errors import InvalidInput, UnknownName
from odefend.models import MODELS, ODENet, Prediction, adapt
from odefend.models.convolutional import resnet14
from odefend.models.endtime import end_time
from odefend.norms import L2
from odefend.solver import Status


def half_space() -> Linear:
    """Class 1 where the distance to a plane through the grey image, along the diagonal, is positive."""
    weight = torch.zeros(2, 64, dtype=torch.float64)
    weight[1] = 1 / 8
    return Linear(weight, torch.tensor([0.0, -4.0], dtype=torch.float64)).eval()


def at_distance(distance: float, count: int) -> tuple[torch.Tensor, list[str]]:
    images = torch.full((count, 1, 8, 8), 0.5 + distance / 8, dtype=torch.float64)
    return images, [f"i{k}" for k in range(count)]


def at_most(count: int, probability: float) -> int:
    """More than so many of `count` events happen once in a million times."""
    return int(binom.ppf(1 - 1e-6, count, probability))


@pytest.mark.parametrize("distance", [0.2, 0.5])
def test_a_certificate_is_wrong_as_seldom_as_it_says(distance):
    """For a half-space the smoothed classifier's radius is the distance itself, whatever sigma."""
    images, ids = at_distance(distance, 300)
    found = Smoothing(0.5).certify(half_space(), images, ids, n0=20, n=100, alpha=0.1)
    assert set(found.labels.tolist()) <= {1, 0, ABSTAINED}
    wrong = (found.radius > distance) | (found.labels == 0)
    assert wrong.sum() <= at_most(300, 0.1)
    assert wrong.any(), "alpha of 0.1 is used up nearly"
    assert torch.equal(found.abstained, found.radius == 0)
    assert (found.counts.sum(1) == 100).all() and found.counts.shape == (300, 3)
    # The estimate without its bound exceeds the radius about half the time.
    naive = 0.5 * torch.from_numpy(norm.ppf(found.counts[:, 1] / 100))
    assert (naive > distance).float().mean() > 0.3


def test_a_certificate_comes_near_the_true_radius():
    images, ids = at_distance(0.5, 1)
    n, p = 20_000, norm.cdf(1.0)
    found = Smoothing(0.5).certify(half_space(), images, ids, n=n)
    # The bound lies 3.1 standard deviations below the estimate, which strays by less than 5.
    reached = norm.ppf(p - 9 * math.sqrt(p * (1 - p) / n))
    assert reached > 0.9 and 0.5 * reached < found.radius.item() <= 0.5
    assert found.holds(torch.tensor([1]), 0.44).all() and not found.holds(torch.tensor([0]), 0.0).any()
    assert not found.holds(torch.tensor([1]), found.radius.item()).any(), "the ball is open"


def test_on_the_boundary_it_abstains():
    images, ids = at_distance(0.0, 200)
    net = half_space()
    assert (~Smoothing(0.3).certify(net, images, ids, n0=10, n=100, alpha=0.05).abstained).sum() <= at_most(200, 0.05)
    assert (~Smoothing(0.3).predict(net, images, ids, n=100, alpha=0.05).abstained).sum() <= at_most(200, 0.05)


def test_a_prediction_is_wrong_as_seldom_as_it_says():
    images, ids = at_distance(0.03, 200)
    said = Smoothing(0.3).predict(half_space(), images, ids, n=100, alpha=0.1)
    assert (said.labels == 0).sum() <= at_most(200, 0.1)
    far = Smoothing(0.3).predict(half_space(), at_distance(0.3, 50)[0], ids[:50], n=100)
    assert (far.labels == 1).all() and (far.counts.sum(1) == 100).all() and (far.nfe == 0).all()


def test_the_bound_is_that_of_clopper_and_pearson():
    hits, trials = torch.tensor([0.0, 1, 37, 99, 100], dtype=torch.float64), torch.full((5,), 100, dtype=torch.float64)
    wanted = [
        binomtest(int(k), 100, alternative="greater").proportion_ci(0.99, method="exact").low for k in hits.tolist()
    ]
    assert lower_bound(hits, trials, 0.01).tolist() == pytest.approx(wanted)


def test_a_certificate_is_what_counts_prove():
    selected = torch.tensor([[0, 9, 1, 0], [6, 2, 2, 0], [1, 0, 0, 9], [0, 0, 0, 10]])
    counts = torch.tensor([[0, 1000, 0, 0], [300, 700, 0, 0], [900, 0, 0, 100], [1000, 0, 0, 0]])
    found = certify(selected, counts, torch.zeros(4, dtype=torch.int64), alpha=0.001, unit=0.5)
    # The second lost what was selected; the third was selected although most failed, and is judged by the others.
    assert found.labels.tolist() == [1, ABSTAINED, 0, 0]
    best = 0.5 * norm.ppf(0.001 ** (1 / 1000))
    assert found.radius.tolist() == pytest.approx([best, 0, 0.5 * norm.ppf(lower_bound_of(900)), best])
    said = decide(torch.tensor([[0, 90, 10, 0], [0, 55, 45, 0], [10, 0, 0, 90], [45, 0, 0, 55]]), found.nfe, 0.001)
    assert said.labels.tolist() == [1, ABSTAINED, ABSTAINED, ABSTAINED], "failure is an outcome, and no class"


def lower_bound_of(hits: int) -> float:
    one = torch.tensor([hits, 1000], dtype=torch.float64)
    return lower_bound(one[:1], one[1:], 0.001).item()


class Fragile(Linear):
    """Its solver fails where the first pixel is large, and its logits are no numbers where the last one is."""

    def classify(self, images):
        said = super().classify(images)
        status = torch.where(images[:, 0, 0, 0] > 0.6, int(Status.MAX_STEPS), said.status)
        logits = torch.where(images[:, :, -1, -1] > 0.6, torch.nan, said.logits)
        return Prediction(logits, said.nfe + 7, said.accepted, said.rejected, status)


def test_a_failed_solve_is_a_vote_for_no_class():
    sound = half_space()
    net = Fragile(sound.weight.detach(), sound.bias.detach()).eval()
    images, ids = at_distance(0.3, 4)
    found = Smoothing(0.5, seed=3).certify(net, images, ids, n0=10, n=50)
    for row, name in enumerate(ids):
        noise = torch.cat([rng.normal(3, [name], "smoothing", k, (1, 8, 8)) for k in range(10, 60)])
        noisy = images[row] + 0.5 * noise
        failed = (noisy[:, 0, 0, 0] > 0.6) | (noisy[:, 0, -1, -1] > 0.6)
        first = sound.classify(noisy).labels == 1
        assert found.counts[row].tolist() == [
            int((~failed & ~first).sum()),
            int((~failed & first).sum()),
            int(failed.sum()),
        ]
    assert found.abstained.all() and (found.nfe == 60 * 7).all()
    assert Smoothing(0.5).predict(net, images, ids, n=200).abstained.all()


class Listener(Linear):
    """Keeps what it is shown."""

    def classify(self, images):
        self.seen = images
        return super().classify(images)


def test_noise_is_keyed_by_the_id_and_not_clipped():
    sound = half_space()
    net, (images, ids) = Listener(sound.weight.detach(), sound.bias.detach()).eval(), at_distance(0.3, 20)
    draw = Smoothing(2.0, seed=5)(net).draw(ids, 4)
    draw.predict(images)
    assert torch.equal(net.seen, images + 2.0 * rng.normal(5, ids, "smoothing", 4, (1, 8, 8)))
    assert net.seen.min() < -1 and net.seen.max() > 2
    with pytest.raises(InvalidInput, match=r"values in \[0, 1\]"):
        draw.predict(images + 1)


@pytest.mark.parametrize("where", ["input", "state"])
def test_a_certificate_does_not_depend_on_the_batch(where, oon, test_digits, monkeypatch):
    some = test_digits[:5]
    defense = Smoothing(0.2, where=where)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    whole = defense.certify(oon, some.images, some.ids, n0=10, n=40)
    assert torch.equal(torch.rand(1), expected)
    monkeypatch.setattr(smoothing, "BATCH", 24)
    part = defense.certify(oon, some.images[[3, 1]], [some.ids[3], some.ids[1]], n0=10, n=40)
    for name, value in vars(part).items():
        assert torch.equal(value, getattr(whole, name)[[3, 1]]), name
    other = Smoothing(0.2, where=where, seed=1).certify(oon, some.images, some.ids, n0=10, n=40)
    assert not torch.equal(other.counts, whole.counts)
    assert (whole.nfe > 50 * 20).all()
    none = defense.certify(oon, some.images[:0], [], n0=10, n=40)
    assert none.labels.shape == (0,) and none.counts.shape == (0, 11)


def test_each_image_keeps_its_own_tolerance(oon, test_digits):
    """A tolerance that is drawn without regard to the noise is a part of the net, and takes nothing from the certificate."""
    some = test_digits[:3]
    net = RandomTolerance(LogUniform(1e-4, 1.0))(oon)
    view, tolerances = net.draw(some.ids, 0), LogUniform(1e-4, 1.0).draw(0, some.ids, 0)
    found = Smoothing(0.1, where="state").certify(view, some.images, some.ids, n0=5, n=20)
    for row, tolerance in enumerate(tolerances.tolist()):
        alone = oon.at(tolerance)
        one = Smoothing(0.1, where="state").certify(alone, some.images[[row]], some.ids[row : row + 1], n0=5, n=20)
        assert torch.equal(one.counts[0], found.counts[row]) and torch.equal(one.nfe[0], found.nfe[row])
    assert (Smoothing(0.1).certify(net, some.images, some.ids, n0=5, n=20).counts.sum(1) == 20).all()


def test_no_attack_within_the_radius_contradicts_it(oon, test_digits):
    """Alpha of 1e-4 for 12 certificates and as many predictions: once in 400 seeds, and this seed is fixed."""
    some, defense = test_digits[:12], Smoothing(0.15)
    found = defense.certify(oon, some.images, some.ids, n0=20, n=150, alpha=1e-4)
    kept = found.holds(some.labels, 0.1).nonzero()[:, 0]
    assert len(kept) >= 6
    ids, labels = [some.ids[row] for row in kept.tolist()], some.labels[kept]
    radius, fresh = found.radius[kept].min().item(), Smoothing(0.15, seed=1)
    source = Averaged(Smoothing(0.15, seed=2), 4)(oon).draw(ids, 0)

    def contradicted(epsilon):
        attack = PGD(epsilon, L2, steps=4, early_stop=False)
        images = attack(source, some.images[kept], labels, ids=ids).images
        assert (L2.size(images - some.images[kept]) <= epsilon * 1.0001).all()
        said = fresh.predict(oon, images, ids, n=150, alpha=1e-4)
        return ~said.abstained & (said.labels != labels)

    assert not contradicted(0.9999 * radius).any()
    assert contradicted(10 * radius).any(), "the attack is one"


def test_the_smoothed_net_is_attacked_through_its_draws(oon, test_digits):
    some = test_digits[:12]
    voted = MajorityVote(Smoothing(0.15), 5)(oon)
    found = PGD(0.3, steps=3)(voted, some.images, some.labels, ids=some.ids)
    assert found.success.float().mean() > 0.5 and (found.zero_gradients == 0).all()


def four_channels() -> torch.Tensor:
    images = pictures(24).view(6, 4, 8, 8)
    return (images - images.mean()) / (8 * images.std()) + 0.5


def mixing_net(weight: torch.Tensor) -> ODENet:
    """An ODE net whose stem mixes the four channels of each pixel, and whose answers are about balanced under noise."""
    small, stem = small_ode_net(width=4), nn.Conv2d(4, 4, 1, bias=False)
    stem.weight = nn.Parameter(weight[:, :, None, None])
    net = ODENet(stem, small.field, small.head, in_channels=4, classes=3).double().eval()
    with torch.no_grad():
        centre = torch.stack([Smoothing(0.02)(net).draw(list("abcdef"), k)(four_channels()).mean(0) for k in range(20)])
    net.head = nn.Sequential(net.head, Shift(-centre.mean(0)))
    return net.eval()


class Shift(nn.Module):
    def __init__(self, by: torch.Tensor) -> None:
        super().__init__()
        self.by = by

    def forward(self, logits):
        return logits + self.by


def test_noise_in_the_state_is_noise_in_the_image_behind_an_orthogonal_stem():
    images, ids, eye = four_channels(), list("abcdef"), torch.eye(4, dtype=torch.float64)
    for scale in (1.0, 2.0):
        # Twice the noise behind twice the stem: the same noise in the image.
        net = mixing_net(scale * eye)
        plain = Smoothing(0.02).certify(net, images, ids, n0=20, n=100)
        stated = Smoothing(0.02 * scale, where="state").certify(net, images, ids, n0=20, n=100)
        assert 0 < plain.abstained.sum() < 6
        assert torch.equal(stated.counts, plain.counts) and torch.equal(stated.labels, plain.labels)
        torch.testing.assert_close(stated.radius, plain.radius, rtol=1e-8, atol=0)
    turned = mixing_net(torch.linalg.qr(rng.normal(0, ["q"], "turn", shape=(4, 4))[0]).Q)
    inside, outside = (
        Smoothing(0.02, where=where).predict(turned, images, ids, n=400).counts for where in ("state", "input")
    )
    assert not torch.equal(inside, outside) and (inside > 0).sum() > 6
    # Hoeffding: each strays by more than 50 of 400 from its mean with a probability of at most 2 exp(-2 50^2 / 400) < 1e-5.
    assert (inside - outside).abs().max() <= 100


def test_stems_that_are_not_affine_are_refused():
    noise = Smoothing(0.1, where="state")
    for net in (MODELS["res"](width=8).eval(), MODELS["mix"](width=8).eval(), end_time(width=8).eval()):
        with pytest.raises(InvalidInput, match="stem: expected one that is affine"):
            noise(net)
    with pytest.raises(InvalidInput, match="expected a net with a stem"):
        noise.certify(half_space(), *at_distance(0.1, 2))
    small = small_ode_net()
    curved = ODENet(nn.Sequential(small.stem, nn.ReLU()), small.field, small.head, in_channels=1, classes=3).eval()
    with pytest.raises(InvalidInput, match="got ReLU"):
        noise(curved)
    matched = MODELS["oon-matched"](width=8).eval()
    assert (noise.certify(matched, pictures(2, dtype=torch.float32), n0=2, n=5).nfe == 0).all()


def test_wrong_use(oon, test_digits):
    some = test_digits[:2]
    torchdiffeq = pytest.importorskip("torchdiffeq")

    class Joined(nn.Module):
        """Its state has no row for each image."""

        def forward(self, images):
            path = torchdiffeq.odeint(lambda t, y: -y, images.flatten()[None], torch.tensor([0.0, 1.0]))
            return path[-1].view(len(images), -1)[:, :10]

    for wrong, message in (
        (lambda: Smoothing(0.0), "sigma: expected"),
        (lambda: Smoothing(float("nan")), "sigma: expected"),
        (lambda: Smoothing(0.1).certify(oon, some.images, some.ids, n=5, alpha=0.0), "alpha: expected"),
        (lambda: Smoothing(0.1).predict(oon, some.images, some.ids, n=5, alpha=1.0), "alpha: expected"),
        (lambda: Smoothing(0.1).certify(oon, some.images, some.ids, n=0), "at least 1 draw"),
        (lambda: Smoothing(0.1).certify(oon, some.images, some.ids, n0=0), "at least 1 draw"),
        (lambda: Smoothing(0.1).certify(oon, some.images, some.ids[:1]), "one for each image"),
        (lambda: Smoothing(0.1).certify(oon, some.images + 1, some.ids), "images: expected"),
        (lambda: Smoothing(0.1).certify(MODELS["oon"](width=8), some.images), "training mode"),
        (lambda: Smoothing(0.1).predict(oon.at(coupling="batch"), some.images, n=5), "coupling: expected"),
        (
            lambda: Smoothing(0.1).predict(adapt(Joined().eval(), in_channels=1, classes=10), some.images, n=5),
            "coupling",
        ),
    ):
        with pytest.raises(InvalidInput, match=message):
            wrong()
    with pytest.raises(UnknownName, match="Did you mean 'state'"):
        Smoothing(0.1, where="stat")


def test_a_net_that_looks_at_the_batch_is_refused():
    net = resnet14(1, width=4).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean = module.running_var = None
    with pytest.raises(InvalidInput, match="an image's answer depends on its neighbours"):
        Smoothing(0.1).certify(net, torch.zeros(2, 1, 32, 32), n0=2, n=2)
