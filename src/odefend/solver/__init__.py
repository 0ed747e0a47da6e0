"""A batched adaptive Runge-Kutta solver in which no sample depends on its neighbours."""

from odefend.solver.control import Tolerance as Tolerance
from odefend.solver.solve import ENDS as ENDS
from odefend.solver.solve import GRADIENTS as GRADIENTS
from odefend.solver.solve import PADDED_ROWS as PADDED_ROWS
from odefend.solver.solve import Solution as Solution
from odefend.solver.solve import Statistics as Statistics
from odefend.solver.solve import Status as Status
from odefend.solver.solve import solve as solve
from odefend.solver.step import VectorField as VectorField
from odefend.solver.tableau import METHODS as METHODS
from odefend.solver.tableau import Tableau as Tableau
