"""What attacks inside a ball share: where they start, and the best that they have found."""

import torch

from odefend import rng
from odefend.attacks.base import BallAttack
from odefend.attacks.problem import Problem, Standing
from odefend.norms import confined
from odefend.tensors import Images, Index


class Best:
    """Each image's candidate of the largest margin so far, by the judge, and which images are broken."""

    def __init__(self, attack: BallAttack, problem: Problem, rows: Index) -> None:
        self.attack, self.problem, self.rows = attack, problem, rows
        self.images = problem.images[rows].clone()
        self.margin = self.images.new_full((len(rows),), -torch.inf)
        self.broken = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        self.distance = torch.full_like(self.margin, torch.inf)

    def note(self, active: Index, candidates: Images, seen: Standing) -> None:
        """Take the judge's word on candidates for the images at `active`."""
        clean = self.problem.images[self.rows[active]]
        # A candidate that the judge's solver fails on is worth less than any that it answers.
        gain = torch.where(seen.prediction.answered, seen.gain, -torch.inf)
        better = gain > self.margin[active]
        self.images[active[better]], self.margin[active[better]] = candidates[better], gain[better]
        fooled, size = seen.reached, self.attack.measure(candidates - clean)
        self.broken[active] |= fooled
        self.distance[active] = torch.where(fooled, torch.minimum(size, self.distance[active]), self.distance[active])

    def remember(self) -> None:
        """An outer step is over."""
        self.problem.remember(self.rows, self.distance)

    def remember_until(self, count: int) -> None:
        """As many outer steps as the attack has where images take longer, which may be in another batch."""
        while len(self.problem.history) < count:
            self.remember()

    @property
    def left(self) -> Index:
        """Positions of the images that are not broken."""
        return (~self.broken).nonzero()[:, 0]


def random_start(attack: BallAttack, problem: Problem, rows: Index, number: int) -> Images:
    """A random point of each image's ball, clipped to [0, 1], that depends on the seed, the image's id and `number` only."""
    clean, ids = problem.images[rows], problem.ids_of(rows)
    shape = tuple(clean.shape[1:])
    uniform = 2 * rng.uniform(problem.seed, ids, "PGD start, uniform", number, shape) - 1
    normal = rng.normal(problem.seed, ids, "PGD start, normal", number, shape)
    radius = rng.uniform(problem.seed, ids, "PGD start, radius", number, (1, 1, 1))
    point = attack.norm.ball(*(noise.to(clean) for noise in (uniform, normal, radius)))
    return confined(attack.norm, clean, clean + attack.epsilon * point, attack.epsilon)
