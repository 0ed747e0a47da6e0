"""The Runge-Kutta methods, each with the source of its numbers."""

from odefend.solver.tableau import Tableau

# Dormand & Prince 1980 (doi 10.1016/0771-050X(80)90013-3); the embedded weights and the midpoint are those of
# Shampine 1986 (doi 10.1090/S0025-5718-1986-0815836-3), which torchdiffeq uses as well.
DOPRI5 = Tableau(
    name="dopri5",
    order=5,
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    embedded=4,
    error=(
        35 / 384 - 1951 / 21600,
        0.0,
        500 / 1113 - 22642 / 50085,
        125 / 192 - 451 / 720,
        -2187 / 6784 + 12231 / 42400,
        11 / 84 - 649 / 6300,
        -1 / 60,
    ),
    middle=(
        6025192743 / 30085553152 / 2,
        0.0,
        51252292925 / 65400821598 / 2,
        -2691868925 / 45128329728 / 2,
        187940372067 / 1594534317056 / 2,
        -1776094331 / 19743644256 / 2,
        11237099 / 235043384 / 2,
    ),
)

# Bogacki & Shampine 1989 (doi 10.1016/0893-9659(89)90079-7). The midpoint is that of the cubic through both ends and
# slopes; torchdiffeq 0.2.5 has (0, 1/2, 0, 0), which is of order 1 only, so its interpolated ends differ from these.
BOSH3 = Tableau(
    name="bosh3",
    order=3,
    c=(0.0, 1 / 2, 3 / 4, 1.0),
    a=((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    embedded=2,
    error=(2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
    middle=(17 / 72, 1 / 6, 2 / 9, -1 / 8),
)

# Tsitouras 2011 (doi 10.1016/j.camwa.2011.06.002), the sign of its last error weight mended. The midpoint is that of
# the paper's quartic interpolant.
TSIT5 = Tableau(
    name="tsit5",
    order=5,
    c=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
    a=(
        (),
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.02826905039406838),
        (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
    ),
    embedded=4,
    error=(
        0.001780011052225777,
        0.0008164344596567469,
        -0.007880878010261995,
        0.1447110071732629,
        -0.5823571654525552,
        0.45808210592918697,
        -1 / 66,
    ),
    middle=(
        0.10741235230096871,
        0.01135625,
        0.39560903056045305,
        -0.34475214352593553,
        1.3161853649581645,
        -1.0170608542936508,
        0.031249999999999993,
    ),
)

# Euler's method inside Heun's; the third stage serves the next step. The midpoint is that of the cubic through both
# ends and slopes.
HEUN = Tableau(
    name="heun",
    order=2,
    c=(0.0, 1.0, 1.0),
    a=((), (1.0,), (1 / 2, 1 / 2)),
    embedded=1,
    error=(-1 / 2, 1 / 2, 0.0),
    middle=(3 / 8, 1 / 4, -1 / 8),
)

EULER = Tableau(name="euler", order=1, c=(0.0,), a=((),), weights=(1.0,))

MIDPOINT = Tableau(name="midpoint", order=2, c=(0.0, 1 / 2), a=((), (1 / 2,)), weights=(0.0, 1.0))

# Kutta's 3/8 rule (1901), which torchdiffeq calls rk4 too; its error is a little smaller than that of the classical one.
RK4 = Tableau(
    name="rk4",
    order=4,
    c=(0.0, 1 / 3, 2 / 3, 1.0),
    a=((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
    weights=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
)

METHODS = {tableau.name: tableau for tableau in (DOPRI5, BOSH3, TSIT5, HEUN, EULER, MIDPOINT, RK4)}
