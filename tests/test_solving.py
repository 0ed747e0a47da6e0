"""What asks for a solver is given any net that solves: a net adapted from torchdiffeq is its ODENet twin to all of it."""

from typing import Any

import pytest
import torch
import torchdiffeq
from torch import nn
from torchdiffeq_nets import OfNeighbours, by_arguments
from toys import Linear, pictures, small_ode_net

import odefend
from odefend.attacks import Availability, ode_sources, strongest
from odefend.defenses import (
    Averaged,
    FixedEndTime,
    FixedTolerance,
    LogUniform,
    MajorityVote,
    RandomEndTime,
    RandomTolerance,
)
from odefend.detectors import (
    EmbeddedError,
    LogitSpread,
    StepTrace,
    ToleranceDrop,
    ToleranceVote,
    load_detector,
    save_detector,
)
from odefend.errors import CheckpointError, InvalidInput
from odefend.models import solving

IDS = [f"image-{number}" for number in range(12)]


class Twin(nn.Module):
    """The layers of an ODENet, in a module that calls torchdiffeq."""

    def __init__(self, net):
        super().__init__()
        self.stem, self.field, self.head = net.stem, net.field, net.head

    def forward(self, images):
        def field(t, y):
            return self.field(t.reshape(-1).expand(len(y)), y)

        path: Any = torchdiffeq.odeint(
            field, self.stem(images), torch.tensor([0.0, 1.0]).to(images), rtol=1e-3, atol=1e-3
        )
        return self.head(path[-1])


@pytest.fixture(scope="module")
def twins():
    net = small_ode_net()
    return net.at(1e-3, gradient="torchdiffeq"), odefend.adapt(Twin(net).eval(), in_channels=1, classes=3)


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


DEFENSES = (
    FixedTolerance(1e-2),
    RandomTolerance(LogUniform(1e-4, 1e-1)),
    FixedEndTime(2.0),
    RandomEndTime(0.5, 2.0),
    Averaged(RandomTolerance(), 2),
    MajorityVote(RandomEndTime(0.5, 2.0), 2),
)


@pytest.mark.parametrize("defense", DEFENSES, ids=repr)
def test_every_defense_of_a_solver_defends_an_adapted_net(defense, twins):
    images = pictures(5)
    said = [defense(net).predict(images) for net in twins]
    close(said[0].logits, said[1].logits)
    assert torch.equal(said[0].nfe, said[1].nfe)
    drawn = [defense(net).rows(torch.tensor([3, 1])).predict(images[[3, 1]]) for net in twins]
    close(drawn[0].logits, drawn[1].logits)


DETECTORS = (
    LogitSpread,
    EmbeddedError,
    lambda net: StepTrace(net, steps=1),
    ToleranceDrop,
    lambda net: ToleranceVote(net, votes=3),
)


@pytest.mark.parametrize("detector", DETECTORS)
def test_every_detector_of_a_solver_watches_an_adapted_net(detector, twins):
    images = pictures(6)
    scores, slopes = [], []
    for net in twins:
        with torch.no_grad():
            one = detector(net).fit(images)
        x = images[:3].clone().requires_grad_()
        scores.append(one.score(x, IDS[:3]))
        slopes.append(torch.autograd.grad(scores[-1].sum(), x)[0])
        with torch.no_grad():
            close(one.score(images[:3], IDS[:3]), scores[-1].detach())
    close(scores[0], scores[1])
    close(slopes[0], slopes[1])


def test_two_solves_are_watched_one_after_the_other(twins):
    net, images = odefend.adapt(TwiceTwin(twins[0]), in_channels=1, classes=3), pictures(4)
    steps, said = net.steps(images), net.predict(images)
    assert torch.equal((steps.sizes > 0).sum(1), said.accepted)
    assert torch.equal(steps.attempts, said.accepted + said.rejected)
    # No gap between an image's steps, whoever of its neighbours took more in the first solve.
    assert torch.equal((steps.sizes > 0).sum(1), ((steps.sizes > 0).cumsum(1).amax(1)))
    assert all((row > 0).long().diff().le(0).all() for row in steps.sizes)
    assert torch.equal(steps.errors > 0, steps.sizes > 0)


class TwiceTwin(Twin):
    """The same field solved twice."""

    def forward(self, images):
        times, state = torch.tensor([0.0, 1.0]).to(images), self.stem(images)
        for _ in range(2):
            path: Any = torchdiffeq.odeint(
                lambda t, y: self.field(t.reshape(-1).expand(len(y)), y), state, times, rtol=1e-3, atol=1e-3
            )
            state = path[-1]
        return self.head(state)


def test_an_attack_on_time_runs_on_an_adapted_net(twins):
    images = pictures(4)
    labels = twins[1].predict(images).labels
    attack = Availability(norm=odefend.LINF, epsilon=0.1, steps=2, greys=())
    found = [attack(net.at(1e-3), images, labels).images for net in twins]
    close(found[0], found[1])


@pytest.mark.parametrize("how", [{}, {"method": "rk4", "options": {"step_size": 0.25}}])
def test_sources_of_an_adapted_net_are_all_of_use(how):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = odefend.adapt(by_arguments(**how).double().eval(), in_channels=1, classes=3)
    images = pictures(1)
    labels = net.predict(images).labels
    sources = ode_sources(net, tight=1e-2, step=0.5)
    attack = odefend.PGD(norm=odefend.LINF, epsilon=0.2, steps=1)
    found = strongest(attack, net, images, labels, list(sources.values())).found
    assert not found.zero_gradients.any()


def test_nets_in_fixed_steps_are_told_so(twins):
    fixed, ids = twins[0].at(method="rk4", step=0.1), IDS[:4]
    for asked in (FixedTolerance(1e-2), RandomTolerance(), EmbeddedError, StepTrace):
        with pytest.raises(InvalidInput, match=r"fixed steps \(rk4\), which no tolerance(.|\n)*dopri5"):
            asked(fixed)
    adapted = odefend.adapt(by_arguments(method="rk4").double().eval(), in_channels=1, classes=3)
    with pytest.raises(InvalidInput, match=r"steps of its own by step control, got fixed steps \(rk4\)"):
        EmbeddedError(adapted).score(pictures(4), ids)
    with pytest.raises(InvalidInput, match=r"takes fixed steps \(rk4\)(.|\n)*method='dopri5'"):
        RandomTolerance()(adapted).predict(pictures(4))
    assert RandomTolerance()(adapted.at(method="dopri5")).predict(pictures(4)).answered.all()
    shared = odefend.adapt(OfNeighbours().double().eval(), in_channels=1, classes=3, coupling="batch")
    with pytest.raises(InvalidInput, match="got steps shared by the batch"):
        EmbeddedError(shared).score(pictures(4), ids)


def test_nets_without_a_solver_are_told_so():
    net = Linear(torch.eye(3, 64, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    for asked in (FixedTolerance(1e-2), RandomTolerance(), FixedEndTime(2.0), ode_sources):
        with pytest.raises(InvalidInput, match=r"expected a net that solves an ODE(.|\n)*got Linear"):
            asked(net)


def test_a_saved_detector_knows_the_adapted_nets_tolerance(twins, tmp_path):
    net, images = twins[1].at((1e-4, 1e-5)), pictures(3)
    path = save_detector(ToleranceDrop(net), tmp_path / "drop")
    back = load_detector(path, net)
    assert isinstance(back, ToleranceDrop)
    assert torch.equal(back.score(images, IDS[:3]), ToleranceDrop(net).score(images, IDS[:3]))
    for other in (twins[1], net.at(1e-4), net.at(method="bosh3"), net.at(t1=2.0)):
        with pytest.raises(CheckpointError, match="expected the net solved as it was then"):
            load_detector(path, other)
    for each in ({"tolerance": torch.full((3,), 1e-3)}, {"t1": torch.ones(3)}):
        with pytest.raises(InvalidInput, match="for all images, got one for each"):
            save_detector(ToleranceDrop(net.at(**each)), tmp_path / "each")


def test_the_capability_is_named_by_who_asks_for_it(twins):
    assert solving(twins[1], "me") is twins[1]
    with pytest.raises(InvalidInput, match="me: expected a net that solves an ODE"):
        solving(Linear(torch.eye(3), torch.zeros(3)), "me")
