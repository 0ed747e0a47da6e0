"""Defenses: what all of them promise, and what each one is."""

import dataclasses

import pytest
import torch
from toys import Linear, pictures, small_ode_net

from odefend.attacks import (
    APGD,
    ATTACKS,
    BIM,
    DDN,
    FGSM,
    FMN,
    PGD,
    SPSA,
    Availability,
    CarliniWagner,
    DeepFool,
    Expectation,
    MinimumNorm,
    Square,
    SuperDeepFool,
    WorstCase,
)
from odefend.data.tamper import tamper
from odefend.defenses import (
    DEFENSES,
    Averaged,
    BitDepth,
    FixedEndTime,
    FixedTolerance,
    InputNoise,
    InputTransform,
    LogUniform,
    MajorityVote,
    Purification,
    RandomEndTime,
    RandomizedNet,
    RandomTolerance,
    Smoothing,
    named_defense,
)
from odefend.defenses.draws import Vote
from odefend.errors import InvalidInput, UnknownName
from odefend.models import ODENet
from odefend.solver import Status

MEMBERS = [
    FixedTolerance(1.0),
    RandomTolerance(LogUniform(1e-4, 1.0)),
    FixedEndTime(0.7),
    RandomEndTime(0.6, 1.4),
    Averaged(RandomTolerance(LogUniform(1e-3, 1.0)), 3),
    MajorityVote(InputNoise(0.15), 3),
    InputNoise(0.05),
    InputTransform("median-3"),
    InputTransform("jpeg-40-444"),
    BitDepth(1),
    Purification("digits-autoencoder"),
    Smoothing(0.1),
    Smoothing(0.1, where="state"),
]

OWN_ATTACKS = [
    FGSM(0.2),
    BIM(0.2, steps=2),
    PGD(0.2, steps=2),
    CarliniWagner(steps=6, binary_search_steps=2, learning_rate=0.1, initial_constant=10.0),
    DeepFool(steps=3),
    Availability(0.2, steps=1, greys=(0.5,)),
]
ALIKE = [
    DDN(steps=6),
    FMN(steps=6),
    MinimumNorm(),
    SuperDeepFool(steps=3),
    APGD(0.2, steps=4),
    Square(0.3, queries=40),
    SPSA(0.3, steps=8, samples=16, delta=0.05, learning_rate=0.05),
    WorstCase(0.3, size="quick"),
]
"""Those that go through one random defense: like the others, they ask the net for no more than logits."""


def reseeded(defense):
    """The same with other draws; None where it has none."""
    if isinstance(defense, Averaged | MajorityVote):
        return dataclasses.replace(defense, defense=reseeded(defense.defense))
    if isinstance(defense, InputTransform) or not hasattr(defense, "seed"):
        return None
    return dataclasses.replace(defense, seed=defense.seed + 1)


def same(one, other):
    """Whether two predictions are equal to the last bit."""
    return all(torch.equal(value, vars(other)[name]) for name, value in vars(one).items())


def of_rows(said, rows):
    return type(said)(**{name: value[rows] for name, value in vars(said).items()})


def test_every_defense_and_attack_is_tried():
    assert set(DEFENSES.values()) == {type(one) for one in MEMBERS}
    assert {type(one) for one in (*OWN_ATTACKS, *ALIKE)} == {
        ATTACKS[name] for name in set(ATTACKS) - {"foolbox", "autoattack"}
    }


@pytest.mark.parametrize("defense", MEMBERS, ids=repr)
def test_contract_of_a_defense(defense, oon, test_digits):
    """A classifier comes out: deterministic, independent of the batch, of which rows can be taken."""
    some = test_digits[:24]
    each = oon.at(torch.logspace(-4, -1, 24, dtype=torch.float64))
    with torch.no_grad():
        net = defense(oon)
        whole, part = net.predict(some.images), net.predict(some.images[4:21])
        assert whole.logits.shape == (24, 10) and whole.answered.all() and (whole.nfe > 0).all()
        assert same(whole, net.predict(some.images)) and same(whole, defense(oon).predict(some.images))
        assert same(of_rows(whole, slice(4, 21)), part)
        assert not torch.equal(whole.logits, oon.predict(some.images).logits)
        rows = torch.arange(23, 2, -1)
        assert same(
            of_rows(defense(each).predict(some.images), rows), defense(each).rows(rows).predict(some.images[rows])
        )
        other = reseeded(defense)
        assert (other is None) == (not isinstance(net, RandomizedNet))
        if other is not None:
            assert not torch.equal(other(oon).predict(some.images).logits, whole.logits)
    with pytest.raises(InvalidInput, match=r"expected values in \[0, 1\]"):
        net.predict(some.images + 0.5)


@pytest.mark.parametrize("defense", [one for one in MEMBERS if reseeded(one)], ids=repr)
def test_contract_of_draws(defense, oon, test_digits):
    """A draw belongs to the id, whatever the image, its neighbours and their order, and draws differ."""
    some = test_digits[:20]
    with torch.no_grad():
        net = defense(oon)
        said = net.draw(some.ids, 2).predict(some.images)
        order = torch.arange(19, -1, -1)
        turned = net.draw([some.ids[row] for row in order.tolist()], 2)
        assert same(of_rows(said, order), turned.predict(some.images[order]))
        assert same(said, turned.rows(order).predict(some.images))
        assert not torch.equal(said.logits, net.draw(some.ids, 3).predict(some.images).logits)


@pytest.mark.parametrize("defense", MEMBERS, ids=repr)
def test_a_defense_has_a_gradient(defense, oon, test_digits):
    images = test_digits[:16].images.clone().requires_grad_(True)
    said = defense(oon).predict(images)
    (gradient,) = torch.autograd.grad((said.logits[:, 0] - said.logits[:, 1]).sum(), images)
    assert torch.isfinite(gradient).all() and (gradient.flatten(1) != 0).any(1).all()


@pytest.mark.parametrize("attack", OWN_ATTACKS, ids=lambda attack: attack.name)
@pytest.mark.parametrize("defense", MEMBERS, ids=repr)
def test_every_attack_runs_on_a_defense(defense, attack, oon, test_digits):
    some = test_digits[:12]
    net = defense(oon)
    source = oon if isinstance(attack, Availability) and not isinstance(net, ODENet) else None
    found = attack(net, some.images, some.labels, ids=some.ids, source=source)
    assert found.images.min() >= 0 and found.images.max() <= 1
    assert torch.isfinite(found.images).all() and (found.zero_gradients == 0).all()
    with torch.no_grad():
        assert torch.equal(found.success, ~found.initially_wrong & net.predict(found.images).fooled(some.labels))
    assert found.success.any() or isinstance(attack, Availability | DeepFool | SuperDeepFool)


@pytest.mark.parametrize("attack", ALIKE, ids=lambda attack: attack.name)
def test_the_other_attacks_run_on_a_random_defense(attack, oon, test_digits):
    test_every_attack_runs_on_a_defense(InputNoise(0.1), attack, oon, test_digits)


def test_draws_follow_ids(oon, test_digits):
    some = test_digits[:6]
    for defense, setting, low, high in (
        (RandomTolerance(LogUniform(1e-5, 1e-1)), "tolerance", 1e-5, 1e-1),
        (RandomEndTime(10.0, 100.0), "t1", 10.0, 100.0),
    ):
        net = defense(oon)
        values, turned, other = (
            getattr(net.draw(ids, index).settings, setting)
            for ids, index in ((some.ids, 3), (some.ids[::-1], 3), (some.ids, 4))
        )
        assert values.unique().numel() == 6 and (values >= low).all() and (values <= high).all()
        assert torch.equal(turned.flip(0), values) and not torch.equal(other, values)


def test_fixed_settings_are_views(oon, test_digits):
    some = test_digits[:16]
    assert same(FixedTolerance((1e-2, 1e-4))(oon).predict(some.images), oon.at((1e-2, 1e-4)).predict(some.images))
    assert same(FixedEndTime(2.0)(oon).predict(some.images), oon.at(t1=2.0).predict(some.images))


def test_means_and_votes_are_of_their_draws(oon, test_digits):
    """And fresh draws of the whole are fresh draws of its parts."""
    some, defense = test_digits[:16], InputNoise(0.3)
    with torch.no_grad():
        draws = [defense(oon).draw(some.ids, index).predict(some.images) for index in range(4, 8)]
        mean = Averaged(defense, 4)(oon).draw(some.ids, 1).predict(some.images)
        vote = MajorityVote(defense, 4)(oon).draw(some.ids, 1).predict(some.images)
    probabilities = torch.stack([one.logits.softmax(1) for one in draws]).mean(0)
    torch.testing.assert_close(mean.logits.exp(), probabilities)
    for one in (mean, vote):
        assert torch.equal(one.nfe, torch.stack([draw.nfe for draw in draws]).sum(0))
    labels = torch.stack([one.labels for one in draws])
    assert len(labels.unique(dim=0)) > 1
    votes = torch.nn.functional.one_hot(labels, 10).sum(0)
    most = votes == votes.amax(1, keepdim=True)
    assert most.gather(1, vote.labels[:, None]).all()
    torch.testing.assert_close(vote.logits, (votes + probabilities / 2) / 4)


def voters(*logits):
    """Nets that say the same of every image."""
    return [Linear(torch.zeros(3, 64), torch.tensor(one)).eval() for one in logits]


class Silent(Linear):
    """A net whose solver fails."""

    def classify(self, images):
        said = super().classify(images)
        return dataclasses.replace(said, status=torch.full_like(said.status, Status.MAX_STEPS))


def test_ties_go_to_the_more_probable():
    said = Vote(voters([3.0, 0.0, 0.0], [0.0, 0.0, 4.0], [0.0, 5.0, 0.0]))(torch.zeros(2, 1, 8, 8))
    assert said.argmax(1).tolist() == [1, 1] and said.min() >= 0 and said.max() <= 1


def test_a_voter_without_an_answer_has_no_vote():
    silent = Silent(torch.zeros(3, 64), torch.tensor([0.0, 0.0, 9.0])).eval()
    broken = voters([0.0, 0.0, float("nan")])[0]
    images = torch.zeros(1, 1, 8, 8, requires_grad=True)
    first = voters([1.0, 0.0, 0.0])[0]
    lost = Vote([first, silent]).predict(images)
    assert not lost.answered.any() and lost.status.tolist() == [Status.MAX_STEPS]
    won = Vote([first, first, silent]).predict(images)
    assert won.answered.all() and won.labels.tolist() == [0]
    assert Vote([broken]).predict(images).status.tolist() == [Status.NON_FINITE]
    # Neither what is no number nor a vote of nobody spoils the gradient.
    for members in ([first, first, broken], [silent, broken]):
        logits = Vote(members).predict(images).logits
        assert torch.isfinite(logits).all()
        assert torch.isfinite(torch.autograd.grad(logits[:, 0].sum(), images)[0]).all()


def test_a_vote_has_the_gradient_of_the_mean(oon, test_digits):
    some, defense = test_digits[:16], InputNoise(0.2)

    def slope(several):
        images = some.images.clone().requires_grad_(True)
        logits = several(defense, 3)(oon).draw(some.ids, 0).predict(images).logits
        return torch.autograd.grad(logits[:, 3].sum(), images)[0]

    torch.testing.assert_close(slope(MajorityVote), slope(Averaged), rtol=1e-3, atol=1e-4)


def test_an_expectation_over_a_vote_uses_draws_of_its_own(oon, test_digits):
    some = test_digits[:16]
    net = MajorityVote(InputNoise(0.1), 3)(oon)
    source = Expectation([Averaged(InputNoise(0.1, seed=7), 2)(oon).draw(some.ids, index) for index in range(2)])
    found = PGD(0.3, steps=3)(net, some.images, some.labels, ids=some.ids, source=source)
    assert found.success.float().mean() > 0.5


def test_bit_depth_rounds_to_evenly_spaced_values():
    images = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.9, 1.0]).view(1, 1, 2, 3)
    assert BitDepth(1).apply(images).flatten().tolist() == [0, 0, 0, 1, 1, 1]
    torch.testing.assert_close(BitDepth(2).apply(images).flatten() * 3, torch.tensor([0.0, 1, 1, 2, 3, 3]))
    eight = torch.arange(256.0).view(1, 1, 16, 16) / 255
    torch.testing.assert_close(BitDepth(8).apply(eight), eight)


def test_transforms_take_values_outside_as_a_file_would():
    """Noise may be added to an image before it is compressed."""
    images = 1.5 * pictures(4, dtype=torch.float32) - 0.2
    pixels = (255 * images.clamp(0, 1)).round().byte()
    wanted = tamper(pixels, list("abcd"), "jpeg-60-444")
    torch.testing.assert_close(InputTransform("jpeg-60-444").apply(images) * 255, wanted.float())
    assert BitDepth(2).apply(images).aminmax() == (0, 1)


def test_a_random_end_time_is_that_of_the_view():
    net, images, ids = small_ode_net(), pictures(6), list("abcdef")
    drawn = RandomEndTime(0.5, 2.0)(net).draw(ids, 0)
    assert isinstance(drawn, ODENet) and isinstance(drawn.settings.t1, torch.Tensor)
    for row, end in enumerate(drawn.settings.t1.tolist()):
        torch.testing.assert_close(drawn(images)[row], net.at(t1=end)(images)[row], rtol=1e-12, atol=1e-12)


def test_a_wrapped_net_is_left_in_its_mode():
    net = small_ode_net()
    net.head.train()
    for defense in MEMBERS:
        defended = defense(net)
        defended.predict(pictures(2))
        assert net.head.training and not defended.training, defense


def test_wrong_use(oon, res):
    for wrong in (
        lambda: LogUniform(0.0, 1.0),
        lambda: LogUniform(1.0, 0.1),
        lambda: InputNoise(-1.0),
        lambda: RandomTolerance()(res),
        lambda: FixedTolerance(0.0),
        lambda: FixedTolerance(0.1)(res),
        lambda: FixedEndTime(-1.0),
        lambda: FixedEndTime(1.0)(res),
        lambda: RandomEndTime(2.0, 1.0),
        lambda: RandomEndTime(1.0, 2.0)(res),
        lambda: BitDepth(0),
        lambda: InputTransform("splice-0.3"),
        lambda: Averaged(InputNoise(0.1), 0),
        lambda: MajorityVote(BitDepth(3))(oon),
    ):
        with pytest.raises(InvalidInput, match="expected"):
            wrong()


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("tolerance", {"tolerance": 1.0}, FixedTolerance(1.0)),
        ("tolerance", {"tolerance": [0.1, 0.2]}, FixedTolerance((0.1, 0.2))),
        ("random-tolerance", {"distribution": {"low": 1e-4, "high": 1.0}}, RandomTolerance(LogUniform(1e-4, 1.0))),
        ("random-tolerance", None, RandomTolerance()),
        ("smoothing", {"sigma": 0.1, "where": "state"}, Smoothing(0.1, where="state")),
        (
            "averaged",
            {"defense": {"name": "input-noise", "sigma": 0.1, "seed": 3}, "draws": 5},
            Averaged(InputNoise(0.1, 3), 5),
        ),
    ],
)
def test_a_defense_by_its_name_and_settings(name, settings, expected):
    assert named_defense(name, settings) == expected


@pytest.mark.parametrize(
    ("name", "settings", "error", "message"),
    [
        ("input-nois", {}, UnknownName, "Did you mean 'input-noise'"),
        ("input-noise", {"sigm": 0.1}, UnknownName, "Did you mean 'sigma'"),
        ("input-noise", {}, InvalidInput, "expected settings for input-noise, missing 'sigma'"),
        ("input-noise", {"sigma": "much"}, InvalidInput, "sigma: input should be a valid number"),
        ("input-noise", {"sigma": -1}, InvalidInput, "sigma: expected a number >= 0"),
        ("random-tolerance", {"distribution": {"lo": 1e-4, "high": 1.0}}, UnknownName, "Did you mean 'low'"),
        ("averaged", {"defense": "input-noise"}, InvalidInput, "expected its name and settings, got 'input-noise'"),
    ],
)
def test_a_defense_that_is_none_is_refused(name, settings, error, message):
    with pytest.raises(error, match=message):
        named_defense(name, settings)


def test_purification_shows_the_net_what_the_autoencoder_of_its_data_makes_of_an_image(oon, test_digits):
    purified, images = Purification()(oon), test_digits.images[:16]
    assert purified.autoencoder.card is not None and purified.autoencoder.card.name == "digits-autoencoder"
    assert torch.equal(purified.predict(images).logits, oon.predict(purified.autoencoder.purified(images)).logits)
