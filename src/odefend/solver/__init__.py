"""A batched Runge-Kutta solver in which no sample depends on its neighbours."""

from odefend.solver.control import Norm as Norm
from odefend.solver.control import Tolerance as Tolerance
from odefend.solver.control import rms as rms
from odefend.solver.effort import effort as effort
from odefend.solver.field import PADDED_ROWS as PADDED_ROWS
from odefend.solver.methods import METHODS as METHODS
from odefend.solver.replay import accepted_steps as accepted_steps
from odefend.solver.replay import step_errors as step_errors
from odefend.solver.solution import Solution as Solution
from odefend.solver.solution import Statistics as Statistics
from odefend.solver.solution import Status as Status
from odefend.solver.solution import StepLog as StepLog
from odefend.solver.solve import COUPLINGS as COUPLINGS
from odefend.solver.solve import ENDS as ENDS
from odefend.solver.solve import GRADIENTS as GRADIENTS
from odefend.solver.solve import check_step as check_step
from odefend.solver.solve import solve as solve
from odefend.solver.step import VectorField as VectorField
from odefend.solver.tableau import Tableau as Tableau
