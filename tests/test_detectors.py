"""Detectors: what all of them promise, known answers of each, false alarms as allowed, and files that give them back."""

import math
from copy import copy

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from scipy.stats import betabinom
from sklearn.metrics import roc_auc_score
from toys import Linear, pictures, small_ode_net

import odefend
from odefend.defenses import LogUniform, RandomTolerance
from odefend.detectors import (
    BATCH_TESTS,
    DETECTORS,
    Calibrated,
    Calibration,
    Confidence,
    EmbeddedError,
    Energy,
    Entropy,
    FeatureSqueezing,
    Fused,
    Kind,
    LogitSpread,
    NoiseDrop,
    OnePassMargin,
    PrincipalComponents,
    SeparateNetwork,
    StepTrace,
    ToleranceDrop,
    ToleranceVote,
    Vote,
    agreement,
    load_detector,
    named_detector,
    save_detector,
)
from odefend.detectors.base import MOST
from odefend.detectors.flow import FlowLikelihood, simple_net
from odefend.detectors.vote import _largest_group
from odefend.errors import CheckpointError, InvalidInput, NotFitted, UnknownName
from odefend.models import Autoencoder, count_parameters, load_image_model
from odefend.seal import BLANK, sealed

QUICK = {
    "tolerance-vote": {"votes": 5},
    "noise-vote": {"votes": 5},
    "noise-drop": {"draws": 3},
    "separate-network": {"epochs": 5},
}
OUTLIERS = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def made(name, net):
    """A detector that is quick, and not fitted."""
    if name == "fused":
        return Fused(net, (OnePassMargin(net), Energy(net), EmbeddedError(net)))
    return named_detector(name, net, QUICK.get(name))


@pytest.fixture(scope="module")
def clean():
    return odefend.digits("train").images[:300]


@pytest.fixture(scope="module", params=[*DETECTORS, "fused"])
def fitted(request, oon, clean):
    detector = made(request.param, oon)
    return detector.fit(clean, OUTLIERS if detector.supervised else None)


def scores(detector, images, ids):
    with torch.no_grad():
        return detector.score(images, ids)


def test_scores_are_finite_and_higher_on_gross_outliers(fitted, test_digits):
    some = test_digits[:24]
    usual, odd = scores(fitted, some.images, some.ids), scores(fitted, OUTLIERS, some.ids)
    for found in (usual, odd):
        assert found.shape == (24,) and torch.isfinite(found).all()
    assert roc_auc_score([0] * 24 + [1] * 24, torch.cat([usual, odd]).numpy()) > 0.6
    assert fitted.cost >= 0


def test_a_score_knows_no_other_image(fitted, test_digits):
    """Whatever batch an image comes in, and at whatever place."""
    some = test_digits[:24]
    whole, order = scores(fitted, some.images, some.ids), [20, 3, 11, 0, 17, 5, 2]
    few = scores(fitted, some.images[order], [some.ids[row] for row in order])
    assert torch.allclose(few, whole[order], rtol=1e-4, atol=1e-4)
    one = scores(fitted, some.images[4:5], some.ids[4:5])
    assert torch.allclose(one, whole[4:5], rtol=1e-4, atol=1e-4)


def test_an_attacker_follows_other_draws_and_few(fitted, test_digits):
    """What draws nothing is followed itself; what draws, by as many draws as asked, whose score is the same one."""
    other, some = fitted.redrawn(2), test_digits[:24]
    mixed, ids = torch.cat([some.images, OUTLIERS]), test_digits.ids[:48]
    own, found = scores(fitted, mixed, ids), scores(other, mixed, ids)
    draws = isinstance(fitted, (Vote, ToleranceDrop, NoiseDrop))
    assert (other is fitted) != draws and other.cost <= fitted.cost
    assert torch.equal(found, own) != draws and torch.equal(found, scores(fitted.redrawn(2), mixed, ids))
    if isinstance(fitted, Vote):
        assert other.cost == 2 and set(found.tolist()) <= {0.0, 2.5, 5.0}  # of two votes, one against none or two
    elif draws:
        assert other.cost == 1 + min(2, fitted.cost - 1)
        lasting = fitted.redrawn(99)
        assert lasting.cost == fitted.cost and not torch.equal(scores(lasting, mixed, ids), own)


def test_members_of_a_fused_detector_are_drawn_anew(oon, clean, test_digits):
    fused = Fused(oon, (OnePassMargin(oon), NoiseDrop(oon, draws=3))).fit(clean)
    other, some = fused.redrawn(2), test_digits[:24]
    assert other.members[0] is fused.members[0] and other.cost == 1 + 3
    assert not torch.equal(scores(other, some.images, some.ids), scores(fused, some.images, some.ids))


def test_a_score_can_be_lowered_along_its_gradient(fitted, test_digits):
    """Also where the gradient is that of a stand-in: of several small steps one lowers each of most scores."""
    ids = test_digits.ids[:8]
    odd = torch.cat([OUTLIERS, test_digits.images[:40]])
    images = odd[scores(fitted, odd, test_digits.ids[:64]).argsort(descending=True)[:8]].requires_grad_()
    score = fitted.score(images, ids)
    (gradient,) = torch.autograd.grad(score.sum(), images)
    assert torch.isfinite(gradient).all() and (gradient.flatten(1).norm(dim=1) > 0).all()
    direction = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    tried = [(images.detach() - size * direction).clamp(0, 1) for size in (0.01, 0.1, 0.3, 1.0)]
    lowest = torch.stack([scores(fitted, one, ids) for one in tried]).amin(0)
    assert (lowest < score.detach()).double().mean() >= 0.5


def test_use_before_fitting_and_wrong_images_are_explained(fitted, oon, test_digits):
    name = next((name for name, kind in DETECTORS.items() if type(fitted) is kind), "fused")
    some, fresh = test_digits[:4], made(name, oon)
    if fresh.learns:
        with pytest.raises(NotFitted, match=r"has learned nothing yet. Call fit"):
            fresh.score(some.images, some.ids)
        with pytest.raises(InvalidInput, match=r"expected 1 x 8 x 8 as .* learned, got 1 x 9 x 8"):
            fitted.score(torch.zeros(2, 1, 9, 8), ["a", "b"])
    if fresh.supervised:
        with pytest.raises(InvalidInput, match="expected attacked images to learn from too"):
            fresh.fit(some.images)
        with pytest.raises(InvalidInput, match="attacked: expected images 1 x 8 x 8"):
            fresh.fit(some.images, torch.zeros(2, 1, 9, 8))
    with pytest.raises(InvalidInput, match="expected shape"):
        fitted.score(torch.zeros(2, 3, 8, 8), ["a", "b"])
    with pytest.raises(InvalidInput, match="ids: expected one for each of 4"):
        fitted.score(some.images, some.ids[:3])


def test_a_file_gives_back_the_same_scores(fitted, oon, test_digits, tmp_path):
    if isinstance(fitted, Fused):
        with pytest.raises(InvalidInput, match="Of a Fused one, save the members"):
            save_detector(fitted, tmp_path / "one")
        return
    some = test_digits[:24]
    back = load_detector(save_detector(fitted, tmp_path / "one"), oon)
    assert type(back) is type(fitted)
    assert torch.equal(scores(back, some.images, some.ids), scores(fitted, some.images, some.ids))
    calibrated = Calibrated.on(fitted, some.images, some.ids)
    again = load_detector(save_detector(calibrated, tmp_path / "two"), oon)
    assert isinstance(again, Calibrated)
    first, second = (one.screen(OUTLIERS, test_digits.ids[:24], 0.2) for one in (calibrated, again))
    assert first.why_not == second.why_not
    for name in ("scores", "p_values", "alarms", "calibrated"):
        one, other = (getattr(seen, name).nan_to_num(-1.0) for seen in (first, second))
        assert torch.equal(one, other), name


def test_files_of_other_nets_and_damaged_ones_are_refused(oon, res, tmp_path):
    path = save_detector(OnePassMargin(oon), tmp_path / "margin")
    with pytest.raises(CheckpointError, match="one of other weights"):
        load_detector(path, res)
    with pytest.raises(CheckpointError, match=r"got tolerance \[0\.1, 0\.1\] instead of \[0\.001, 0\.001\]"):
        load_detector(path, oon.at(1e-1))
    with pytest.raises(InvalidInput, match="one for each, which no other image has"):
        save_detector(OnePassMargin(oon.at(torch.tensor([1e-3, 1e-2]))), tmp_path / "each")
    with pytest.raises(InvalidInput, match="expected one end time"):
        save_detector(OnePassMargin(oon.at(t1=torch.tensor([1.0, 2.0]))), tmp_path / "each")
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(CheckpointError, match="missing or damaged"):
        load_detector(path, oon)


def test_the_smallest_damage_to_a_file_is_seen(oon, clean, tmp_path):
    """Whichever bit flips, in what was learned, in its calibration or in its settings."""
    detector = PrincipalComponents(oon).fit(clean)
    path = save_detector(Calibrated.on(detector, clean, [str(i) for i in range(len(clean))]), tmp_path / "pca")
    content, generator = path.read_bytes(), np.random.default_rng(0)
    places = [*range(0, 1200, 24), *generator.integers(0, len(content), 50)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError) as caught:
            load_detector(path, oon)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("learned.mean", torch.zeros(3)),
        ("learned.size", torch.tensor([1, 10**6, 10**6])),
        ("learned.size", None),
        ("calibration.low", torch.zeros(2)),
        ("calibration.scores", None),
        ("name", "../elsewhere/net"),
        ("solved", '{"tolerance": 3}'),
        ("settings", "[1]"),
        ("beside", '{"flow": 3}'),
        ("detector", None),
        ("more", "1"),
    ],
)
def test_a_forged_file_is_refused(what, value, oon, clean, tmp_path):
    """One with a right checksum, and wrong values."""
    detector = PrincipalComponents(oon).fit(clean)
    path = save_detector(Calibrated.on(detector, clean, [str(i) for i in range(len(clean))]), tmp_path / "pca")
    with safe_open(path, "pt") as file:
        about, tensors = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    (tensors if "." in what else about)[what] = value
    about["odefend"] = BLANK
    path.write_bytes(
        sealed(
            safetensors.torch.save(
                {name: tensor for name, tensor in tensors.items() if tensor is not None},
                metadata={name: text for name, text in about.items() if text is not None},
            )
        )
    )
    with pytest.raises(CheckpointError) as caught:
        load_detector(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "how",
    [{"tolerance": (1e-3, 1e-4)}, {"end": "clip"}, {"max_steps": 500}, {"t1": 0.5}, {"method": "tsit5"}],
    ids=lambda how: next(iter(how)),
)
def test_a_detector_comes_back_with_its_solver(how, oon, test_digits, tmp_path):
    """By the name of its net alone, and solved as it was then."""
    some, detector = test_digits[:20], EmbeddedError(oon.at(**how))
    back = load_detector(save_detector(detector, tmp_path / "of-0.05"))
    assert (tmp_path / "of-0.05.safetensors").exists() and isinstance(back, EmbeddedError)
    assert torch.equal(scores(back, some.images, some.ids), scores(detector, some.images, some.ids))


def unanswered(detector, at):
    """The same detector beside a net that, so solved, answers at no tolerance it is asked at."""
    other = copy(detector)
    other.net = detector.net.at(**at)
    if isinstance(other, LogitSpread):
        other.tolerances = (1e-9, 1e-8)
    if isinstance(other, ToleranceVote):
        other.defense = RandomTolerance(LogUniform(1e-9, 1e-8))
    if isinstance(other, Fused):
        other.members = tuple(unanswered(one, at) for one in other.members)
    return other


@pytest.mark.parametrize("at", [{"max_steps": 1}, {"max_steps": 1, "tolerance": 1e-9}])
def test_an_image_without_an_answer_is_the_most_suspicious(fitted, at, test_digits):
    """Whether some step was taken or none; a detector that asks no net does not notice."""
    some, blind = test_digits[:3], unanswered(fitted, at)
    found = scores(blind, some.images, some.ids)
    if isinstance(fitted, Fused):
        assert found.min() >= scores(fitted, test_digits.images[:100], test_digits.ids[:100]).max()
    elif not fitted.cost:
        assert torch.isfinite(found).all() and torch.equal(found, scores(fitted, some.images, some.ids))
    else:
        most = fitted.votes if isinstance(fitted, Vote) else MOST
        assert found.tolist() == [pytest.approx(most)] * 3
    if isinstance(fitted, EmbeddedError):
        images = some.images.clone().requires_grad_()
        assert blind.score(images, some.ids).tolist() == [pytest.approx(MOST)] * 3


def test_scoring_moves_no_global_generator_and_takes_no_images_as_well(fitted, test_digits):
    some = test_digits[:2]
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    scores(fitted, some.images, some.ids)
    assert torch.equal(torch.rand(1), expected)
    assert scores(fitted, some.images[:0], []).shape == (0,)


def test_agreement_counts_the_largest_group():
    votes = torch.tensor([[1, 1, 1, 1], [1, 2, 1, 2], [1, 2, 3, 4], [-1, -1, -1, 5], [-1, -1, -1, -1]])
    assert agreement(votes).tolist() == [4, 2, 1, 1, 0]
    assert _largest_group(votes).tolist()[0] == 1 and _largest_group(votes).tolist()[3:] == [5, 0]


def test_a_vote_of_v_is_the_first_v_of_a_longer_one(oon, test_digits):
    some = test_digits[:20]
    ballots = ToleranceVote(oon, votes=6).ballots(some.images, some.ids)
    short = ToleranceVote(oon, votes=3)
    assert torch.equal(short.ballots(some.images, some.ids), ballots[:, :3])
    assert torch.equal(short.score(some.images, some.ids), (3 - agreement(ballots[:, :3])).double())
    assert torch.equal(short.accepts(some.images, some.ids, 3), agreement(ballots[:, :3]) >= 3)
    order = [5, 0, 11]
    assert torch.equal(
        short.score(some.images[order], [some.ids[i] for i in order]), short.score(some.images, some.ids)[order]
    )


def test_the_margin_is_most_suspicious_on_the_boundary():
    net = Linear(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.zeros(2)).eval()
    images = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.5, 0.4]]).view(3, 1, 1, 2)
    score = OnePassMargin(net).fit(images).score(images, ["a", "b", "c"])
    assert score.argsort(descending=True).tolist() == [0, 2, 1]


def test_one_pass_scores_of_known_logits():
    """Probabilities 3/4 and 1/4: entropy, confidence and energy by hand."""
    net = Linear(torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([math.log(3.0), 0.0])).eval()
    image = torch.rand(1, 1, 1, 2)
    assert Confidence(net).score(image, ["a"]).item() == pytest.approx(math.log(0.25), rel=1e-6)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert Entropy(net).score(image, ["a"]).item() == pytest.approx(entropy, rel=1e-6)
    assert Energy(net).score(image, ["a"]).item() == pytest.approx(-math.log(4.0), rel=1e-6)
    for change in (NoiseDrop(net, draws=2), FeatureSqueezing(net)):
        assert change.score(image, ["a"]).item() == pytest.approx(0.0, abs=1e-6), "nothing depends on the image"


def test_confidence_is_not_rounded_where_the_net_is_sure():
    net = Linear(torch.tensor([[60.0], [0.0]]), torch.zeros(2)).eval()
    found = Confidence(net).score(torch.tensor([0.9, 1.0]).view(2, 1, 1, 1), ["a", "b"])
    assert found.tolist() == pytest.approx([-54.0, -60.0])


def test_squeezing_sees_what_squeezing_takes_away():
    """A single bright pixel, which a median removes, decides the class."""
    net = Linear(torch.tensor([[0.0] * 25, [10.0] * 25]), torch.tensor([5.0, 0.0])).eval()
    dark, dot = torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 5, 5)
    dot[..., 2, 2] = 1.0
    assert FeatureSqueezing(net).score(dark, ["a"]).item() == pytest.approx(0.0, abs=1e-6)
    assert FeatureSqueezing(net).score(dot, ["a"]).item() == pytest.approx(
        2 * (2 * torch.tensor(5.0).sigmoid().item() - 1)
    )


def test_the_spread_of_logits_is_that_of_the_solves(oon, test_digits):
    some, tolerances = test_digits[:4], (1e-3, 1.0)
    with torch.no_grad():
        one, two = (oon.at(tolerance).predict(some.images).logits for tolerance in tolerances)
    expected = ((one - two) / 2).pow(2).mean(1).sqrt()
    assert torch.allclose(scores(LogitSpread(oon, tolerances), some.images, some.ids), expected, rtol=1e-5)


def test_the_drop_is_that_of_the_drawn_solve(oon, test_digits):
    some = test_digits[:4]
    detector = ToleranceDrop(oon, defense=RandomTolerance(LogUniform(1.0, 10.0)))
    with torch.no_grad():
        said = oon.predict(some.images)
        drawn = detector.defense(oon).draw(some.ids, 0).predict(some.images).logits
    rest = drawn.scatter(1, said.labels[:, None], float("-inf")).amax(1)
    expected = said.margin - (drawn.gather(1, said.labels[:, None])[:, 0] - rest)
    assert torch.allclose(scores(detector, some.images, some.ids), expected, atol=1e-5)


def test_the_embedded_error_is_what_the_solver_logged():
    net, images = small_ode_net().at(1e-4), pictures(20)
    log = net.trajectory(images).log
    expected = [log.of(row).error[log.of(row).accepted].sum().log().item() for row in range(20)]
    assert scores(EmbeddedError(net), images, [str(row) for row in range(20)]).tolist() == pytest.approx(expected)


def test_steps_taken_again_estimate_the_same_errors():
    """Sample by sample, of any number of steps, and with the gradient of finite differences."""
    net, images = small_ode_net().at(1e-5), pictures(20)
    with torch.no_grad():
        log = net.trajectory(images).log
        assert log is not None
        found = net.step_errors(images, log)
    counts = {int((log.of(row).accepted).sum()) for row in range(20)}
    assert len(counts) > 1, "else nothing is shown"
    for row in range(20):
        logged = log.of(row).error[log.of(row).accepted]
        assert found[row, : len(logged)].tolist() == pytest.approx(logged.tolist(), rel=1e-6)
        assert found[row, len(logged) :].eq(0).all()
    direction = torch.rand_like(images) - 0.5
    moved = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net.step_errors(moved, log).sum(), moved)
    with torch.no_grad():
        ahead, behind = (net.step_errors((images + sign * 1e-8 * direction).clamp(0, 1), log).sum() for sign in (1, -1))
    inside = (images > 1e-5) & (images < 1 - 1e-5)
    assert inside.all()
    assert (gradient * direction).sum().item() == pytest.approx(((ahead - behind) / 2e-8).item(), rel=1e-4)


def test_components_see_what_clean_images_never_have():
    """Clean images vary along the first pixels; what is late is known, and an image is as odd as it has of it."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.zeros(200, 1, 1, 4)
    clean[..., 0] = torch.rand(200, 1, 1, generator=generator)
    clean[..., 1] = torch.rand(200, 1, 1, generator=generator) / 4
    net = Linear(torch.ones(2, 4), torch.zeros(2)).eval()
    for count in (200, 3):  # with fewer images than pixels, too
        detector = PrincipalComponents(net).fit(clean[:count])
        seen = clean[:1].repeat(3, 1, 1, 1)
        seen[1, ..., 2], seen[2, ..., 3] = 0.01, 0.02
        usual, odd, odder = scores(detector, seen, ["a", "b", "c"]).exp().tolist()
        # A hundredth of the range over two late directions, in units of what rounding to 255 levels leaves.
        assert odd - usual == pytest.approx(0.01**2 * 12 * 255**2 / 2, rel=1e-2)
        assert odder - usual == pytest.approx(4 * (odd - usual), rel=1e-2)


def test_a_separate_network_learns_its_attack_and_is_seeded(oon, clean, test_digits):
    """Trained on images with a corner lit, it finds others with it."""
    some = test_digits[:50]
    lit = some.images.clone()
    lit[..., 0, 0] = 1.0
    attacked = clean.clone()
    attacked[..., 0, 0] = 1.0
    first, second, other = (SeparateNetwork(oon, epochs=8, seed=seed).fit(clean, attacked) for seed in (0, 0, 1))
    usual, odd = scores(first, some.images, some.ids), scores(first, lit, some.ids)
    assert roc_auc_score([0] * 50 + [1] * 50, torch.cat([usual, odd]).numpy()) > 0.9
    assert torch.equal(usual, scores(second, some.images, some.ids))
    assert not torch.equal(usual, scores(other, some.images, some.ids))


@pytest.mark.parametrize("v_min", [1, 4, 6, 7])
def test_a_settled_vote_says_the_same_for_less(v_min, oon, test_digits):
    images, ids = torch.cat([test_digits.images[:20], OUTLIERS[:20]]), test_digits.ids[:40]
    vote = ToleranceVote(oon, 7, RandomTolerance(LogUniform(1e-4, 10.0)))
    found, expected = vote.settled(images, ids, v_min), vote.accepts(images, ids, v_min)
    assert torch.equal(found.accepted, expected)
    if v_min > 4:
        assert not expected.all(), "else nothing is shown"
    assert (found.solves <= 7).all() and (found.solves >= min(v_min, 7 - v_min + 1)).all()
    with torch.no_grad():
        full = torch.stack([vote.defense(oon).draw(ids, index).predict(images).nfe for index in range(7)]).sum(0)
    assert (found.nfe <= full).all()
    assert (found.nfe[found.solves < 7] < full[found.solves < 7]).all()
    if v_min == 4:
        agreed = agreement(vote.ballots(images, ids)) == 7
        assert agreed.any() and (found.solves[agreed] == 4).all()


@pytest.mark.parametrize("name", BATCH_TESTS)
def test_contract_of_a_test_of_batches(name, test_digits):
    """Uniform p-values where nothing differs, the smallest there is where much does, whatever the order."""
    images = test_digits.images
    test = BATCH_TESTS[name](permutations=99)
    with pytest.raises(NotFitted, match="Call fit"):
        test.p_value(images[:20])
    test.fit(images[:40])
    assert test.p_value(OUTLIERS) == 0.01
    assert test.p_value(images[40:60]) == test.p_value(images[40:60])
    assert test.p_value(images[40:60].flip(0)) == test.p_value(images[40:60])
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(images), generator=generator) for _ in range(60)]
    found = [BATCH_TESTS[name](permutations=99).fit(images[o[:30]]).p_value(images[o[30:50]]) for o in orders]
    # 60 tests at 10 %: with 12 alarms or more a fair test would be met once in a hundred times.
    assert sum(p <= 0.1 for p in found) < 12 and 0.35 < np.mean(found) < 0.65
    for wrong in (images[:1], torch.zeros(4, 1, 9, 9)):
        with pytest.raises(InvalidInput, match="expected at least 2 of shape"):
            test.p_value(wrong)


def test_p_values_count_calibration_scores():
    calibration = Calibration(torch.tensor([3.0, 1.0, 2.0, 2.0]))
    assert calibration.p_values(torch.tensor([0.0, 1.0, 2.0, 2.5, 9.0])).tolist() == [1.0, 1.0, 0.8, 0.4, 0.2]
    assert calibration.threshold(0.2) == 3.0 and calibration.threshold(0.4) == 2.0 and calibration.threshold(0.6) == 2.0
    assert calibration.alarms(torch.tensor([2.0, 2.1, 3.0, 3.1]), 0.4).tolist() == [False, True, True, True]
    with pytest.raises(InvalidInput, match=r"at least 1 / 5, which 4 calibration images can tell"):
        calibration.threshold(0.19)
    for wrong in (torch.tensor([]), torch.tensor([1.0, float("inf")])):
        with pytest.raises(InvalidInput, match="at least one finite"):
            Calibration(wrong)


@pytest.mark.parametrize("allowed", [0.01, 0.05, 0.1, 0.37])
def test_thresholds_and_p_values_agree(allowed):
    generator = torch.Generator().manual_seed(0)
    for count in (100, 199, 1000):
        calibration = Calibration(torch.randint(0, 300, (count,), generator=generator).double())
        found = torch.arange(-1.0, 301.0, 0.5)
        assert torch.equal(calibration.alarms(found, allowed), calibration.p_values(found) <= allowed + 1e-12)


@pytest.fixture(scope="module")
def all_scores(oon, test_digits):
    """Clean test images, by a score that is continuous and by one of few values."""
    images, ids = test_digits.images, test_digits.ids
    return scores(OnePassMargin(oon), images, ids), scores(ToleranceVote(oon, 5), images, ids), ids


@pytest.mark.parametrize("allowed", [0.01, 0.05, 0.1])
def test_false_alarms_are_as_many_as_allowed(allowed, all_scores):
    """The conformal promise over 200 random splits of real images, for both scores.

    Splits of one set depend on each other, but each image takes part in many of them: the mean over splits is, to 1 / n, what
    the finite set gives on average, which is the promise itself; m is three standard errors, as if a split were worth no
    more than one in four of independent ones. The spread over splits is beta-binomial.
    """
    continuous, discrete, ids = all_scores
    count, half = len(ids), len(ids) // 2
    generator = torch.Generator().manual_seed(1)
    exact, coarse, broken, inside = [], [], [], 0
    low, high = betabinom(count - half, *_beta(half, allowed)).interval(0.95)
    for _ in range(200):
        order = torch.randperm(count, generator=generator)
        first, second = order[:half], order[half:]
        alarms = int(Calibration(continuous[first]).alarms(continuous[second], allowed).sum())
        exact.append(alarms / len(second))
        inside += low <= alarms <= high
        few = Calibration(discrete[first])
        coarse.append(few.alarms(discrete[second], allowed).double().mean().item())
        lots = few.randomized_p_values(discrete[second], [ids[int(row)] for row in second], seed=int(order[0]))
        broken.append((lots <= allowed).double().mean().item())
    m = 3 * (allowed * (1 - allowed) * (1 / half + 1 / (count - half)) / 50) ** 0.5
    for found in (exact, broken):
        assert allowed - 1 / (half + 1) - m <= np.mean(found) <= allowed + m
    assert np.mean(coarse) <= allowed + m, "ties count against an alarm"
    assert inside >= 180


def _beta(count, allowed):
    """The parameters of the share of clean images that alarm, given one calibration of so many."""
    tolerated = int(allowed * (count + 1) + 1e-9)
    return tolerated, count + 1 - tolerated


def test_other_kinds_of_images_are_not_judged(oon, test_digits):
    some = test_digits[:200]
    calibrated = Calibrated.on(OnePassMargin(oon), some.images, some.ids)
    others = test_digits[200:300]
    found = calibrated.screen(others.images, others.ids, 0.05)
    assert found.calibrated.double().mean() > 0.95 and found.alarms.any()
    strange = torch.cat([torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8), OUTLIERS[:1], others.images[:1]])
    told = calibrated.screen(strange, ["a", "b", "c", "d"], 0.05)
    assert told.calibrated.tolist() == [False, False, False, True]
    assert told.p_values.isnan().tolist() == [True, True, True, False] and not told.alarms[:3].any()
    kind = Kind.of(some.images)
    assert not kind.includes(torch.zeros(2, 1, 9, 9)).any()
    assert kind.why_not(torch.zeros(1, 1, 9, 9)) == ("expected 8 x 8 pixels in grey, got 9 x 9 pixels in grey",)
    assert kind.why_not(some.images[:3]) == ("", "", "") and "got 0" in kind.why_not(torch.zeros(1, 1, 8, 8))[0]
    with pytest.raises(InvalidInput, match="at least 1 / 201"):
        calibrated.screen(others.images, others.ids, 0.001)


def test_fused_detectors_know_what_each_knows(oon, clean, test_digits):
    """Two that see different outliers together see both."""
    some = test_digits[:40]
    members = (OnePassMargin(oon), PrincipalComponents(oon).fit(clean))
    fused = Fused(oon, members).fit(odefend.digits("validation").images)
    assert fused.cost == 1, "components ask no net"
    p_values = [
        Calibration(scores(one, odefend.digits("validation").images, odefend.digits("validation").ids)).p_values(
            scores(one, some.images, some.ids)
        )
        for one in members
    ]
    expected = -(p_values[0].log() + p_values[1].log())
    assert torch.allclose(scores(fused, some.images, some.ids), expected)
    with pytest.raises(InvalidInput, match="at least 2 detectors"):
        Fused(oon, (OnePassMargin(oon),))


def test_wrong_settings_of_detectors(oon, res):
    with pytest.raises(UnknownName, match="Did you mean 'entropy'"):
        named_detector("entropi", oon)
    with pytest.raises(UnknownName, match="Did you mean 'votes'"):
        named_detector("tolerance-vote", oon, {"vote": 3})
    with pytest.raises(InvalidInput, match="votes: input should be a valid integer"):
        named_detector("tolerance-vote", oon, {"votes": "many"})
    for name in ("tolerance-vote", "logit-spread", "embedded-error", "step-trace", "tolerance-drop"):
        with pytest.raises(InvalidInput, match=f"{name}: expected a net that solves an ODE"):
            named_detector(name, res)
    for wrong in (
        lambda: ToleranceVote(oon, votes=1),
        lambda: NoiseDrop(oon, draws=0),
        lambda: FeatureSqueezing(oon, bits=9),
        lambda: FeatureSqueezing(oon, window=1),
        lambda: LogitSpread(oon, (1e-3,)),
        lambda: ToleranceDrop(oon, draws=0),
        lambda: EmbeddedError(oon.at(method="rk4", step=0.1)),
        lambda: StepTrace(oon, steps=0),
        lambda: StepTrace(oon).fit(odefend.digits("train").images[:10]),
        lambda: PrincipalComponents(oon, late=0.0),
        lambda: SeparateNetwork(oon, epochs=0),
        lambda: BATCH_TESTS["mmd"](permutations=0),
        lambda: BATCH_TESTS["mmd"]().fit(OUTLIERS[:1]),
    ):
        with pytest.raises(InvalidInput, match="expected"):
            wrong()


def test_the_net_on_latent_variables_is_the_published_one():
    assert count_parameters(simple_net(768)) == 383_714


def test_models_of_images_beside_a_detector(oon, test_digits, tmp_path, monkeypatch):
    """By default those of the net's data; others by name, as long as they fit; a file knows which they were."""
    assert named_detector("flow-likelihood", oon).beside["flow"].card.name == "digits-glow"
    with pytest.raises(InvalidInput, match="expected autoencoder, got digits-glow, which is glow"):
        named_detector("reconstruction-error", oon, {"model": "digits-glow"})
    with pytest.raises(InvalidInput, match="Did you mean 'digits-glow'"):
        named_detector("flow-likelihood", oon, {"model": "digits-gloo"})
    with pytest.raises(InvalidInput, match="the zoo has no glow of what this net was trained on"):
        FlowLikelihood(small_ode_net())
    images = test_digits.images[:16]
    with torch.no_grad():
        autoencoder = load_image_model("digits-autoencoder")
        assert isinstance(autoencoder, Autoencoder)
        purified = autoencoder.purified(images)
        expected = (purified - images).square().flatten(1).mean(1)
        found = named_detector("reconstruction-error", oon).score(images, test_digits.ids[:16])
        change = named_detector("purification-change", oon).score(images, test_digits.ids[:16])
        shift = oon(images).softmax(1) - oon(purified).softmax(1)
    assert torch.allclose(found, expected) and torch.allclose(change, shift.abs().sum(1), atol=1e-5)
    other = load_image_model("digits-glow")
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    path = save_detector(named_detector("flow-likelihood", oon), tmp_path / "likelihood")
    monkeypatch.setattr("odefend.models.beside._loaded", lambda name: other)
    with pytest.raises(CheckpointError, match="expected models of images with the digests"):
        load_detector(path, oon)


def test_all_levels_of_a_flow_are_more_than_the_last(oon, clean):
    one, every = (named_detector("flow-latent", oon, {"levels": levels, "epochs": 1}) for levels in ("last", "all"))
    sizes = [detector.fit(clean[:64], OUTLIERS).state["network.0.weight"].shape[1] for detector in (one, every)]
    assert sizes == [32, 64]
