"""Standard non-stiff problems: DETEST classes A to E (Hull, Enright, Fellen & Sedgwick 1972, doi 10.1137/0709052).

Each is (field on rows of states, start); all run over t in [0, 20].
"""

import math

import torch


def columns(*values):
    return torch.stack(values, 1)


def kepler(eccentricity):
    def field(t, y):
        cubed = (y[:, 0] ** 2 + y[:, 1] ** 2) ** 1.5
        return columns(y[:, 2], y[:, 3], -y[:, 0] / cubed, -y[:, 1] / cubed)

    return field, [1 - eccentricity, 0, 0, math.sqrt((1 + eccentricity) / (1 - eccentricity))]


def torus(t, y):
    r = (y[:, 0] ** 2 + y[:, 1] ** 2).sqrt()
    return columns(-y[:, 1] - y[:, 0] * y[:, 2] / r, y[:, 0] - y[:, 1] * y[:, 2] / r, y[:, 0] / r)


def chain(t, y):
    """Radioactive decay along ten elements."""
    return torch.cat([-y[:, :1], y[:, :-2] - y[:, 1:-1], y[:, -2:-1]], 1)


def diffusion(t, y):
    """The heat equation on ten points."""
    padded = torch.nn.functional.pad(y, (1, 1))
    return padded[:, :-2] - 2 * y + padded[:, 2:]


PROBLEMS = {
    "A1 decay": (lambda t, y: -y, [1]),
    "A2 cubic decay": (lambda t, y: -(y**3) / 2, [1]),
    "A3 oscillating rate": (lambda t, y: y * torch.cos(t)[:, None], [1]),
    "A4 logistic": (lambda t, y: y / 4 * (1 - y / 20), [1]),
    "A5 spiral": (lambda t, y: (y - t[:, None]) / (y + t[:, None]), [4]),
    "B1 predators": (
        lambda t, y: columns(2 * (y[:, 0] - y[:, 0] * y[:, 1]), -(y[:, 1] - y[:, 0] * y[:, 1])),
        [1, 3],
    ),
    "B2 linear reaction": (
        lambda t, y: columns(-y[:, 0] + y[:, 1], y[:, 0] - 2 * y[:, 1] + y[:, 2], y[:, 1] - y[:, 2]),
        [2, 0, 1],
    ),
    "B3 nonlinear reaction": (
        lambda t, y: columns(-y[:, 0], y[:, 0] - y[:, 1] ** 2, y[:, 1] ** 2),
        [1, 0, 0],
    ),
    "B4 torus": (torus, [3, 0, 0]),
    "B5 rigid body": (
        lambda t, y: columns(y[:, 1] * y[:, 2], -y[:, 0] * y[:, 2], -0.51 * y[:, 0] * y[:, 1]),
        [0, 1, 1],
    ),
    "C1 decay chain": (chain, [1] + [0] * 9),
    "C3 diffusion": (diffusion, [1] + [0] * 9),
    "D1 orbit": kepler(0.1),
    "D3 eccentric orbit": kepler(0.5),
    "E2 van der Pol": (lambda t, y: columns(y[:, 1], (1 - y[:, 0] ** 2) * y[:, 1] - y[:, 0]), [2, 0]),
    "E3 Duffing": (
        lambda t, y: columns(y[:, 1], y[:, 0] ** 3 / 6 - y[:, 0] + 2 * torch.sin(2.78535 * t)),
        [0, 0],
    ),
}
"""Names to problems."""

END = 20.0
