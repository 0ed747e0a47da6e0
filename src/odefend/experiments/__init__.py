"""Experiments: what is attacked, how, and what is measured; read from TOML, expanded to units of work, and run."""

from odefend.experiments.expand import Expansion as Expansion
from odefend.experiments.parts import AttackPart as AttackPart
from odefend.experiments.parts import Cell as Cell
from odefend.experiments.parts import ClaimPart as ClaimPart
from odefend.experiments.parts import Column as Column
from odefend.experiments.parts import DataPart as DataPart
from odefend.experiments.parts import DerivedPart as DerivedPart
from odefend.experiments.parts import DetectorPart as DetectorPart
from odefend.experiments.parts import Experiment as Experiment
from odefend.experiments.parts import FigurePart as FigurePart
from odefend.experiments.parts import Line as Line
from odefend.experiments.parts import MeasurePart as MeasurePart
from odefend.experiments.parts import ModelPart as ModelPart
from odefend.experiments.parts import Row as Row
from odefend.experiments.parts import SourcePart as SourcePart
from odefend.experiments.parts import TablePart as TablePart
from odefend.experiments.read import limited as limited
from odefend.experiments.read import read_experiment as read_experiment
from odefend.experiments.run import run as run
