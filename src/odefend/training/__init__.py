"""Training by recipes."""

from odefend.training.fit import Trial as Trial
from odefend.training.fit import train as train
from odefend.training.fit import try_out as try_out
from odefend.training.recipe import SCALES as SCALES
from odefend.training.recipe import Recipe as Recipe
from odefend.training.recipe import read_recipe as read_recipe
from odefend.training.recipe import recipe_names as recipe_names
from odefend.training.recipe import scales_of as scales_of
