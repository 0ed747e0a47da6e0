"""Pictures with labels and stable ids. `DATASETS` maps a data set's name to the function that gives one of its splits."""

from collections.abc import Callable

from odefend.data.digits import digits as digits
from odefend.data.images import LabelledImages as LabelledImages

DATASETS: dict[str, Callable[..., LabelledImages]] = {"digits": digits}
