"""Training by recipes."""

from odefend.training.fit import train as train
from odefend.training.recipe import Recipe as Recipe
from odefend.training.recipe import read_recipe as read_recipe
