"""Names for the tensors that travel through odefend; a signature written with them reads like a sentence.

Shapes are checked at run time under pytest only (jaxtyping with beartype).
"""

from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

Images = Float[Tensor, "batch channels height width"]
"""Pictures with values in [0, 1]."""

OtherImages = Float[Tensor, "others _ _ _"]
"""A second set of pictures, as many as there are."""

Labels = Int[Tensor, " batch"]
"""Class indices."""

Logits = Float[Tensor, "batch classes"]
"""Unnormalized class scores."""

State = Float[Tensor, "batch ..."]
"""The state of an ODE, one row per sample, of any further shape."""

Times = Float64[Tensor, " batch"]
"""One time, step size or tolerance per sample, always float64."""

PerImage = Float[Tensor, " batch"]
"""One number per image: a distance, a loss, a score."""

Counts = Int[Tensor, " batch"]
"""One count or status code per image."""

Mask = Bool[Tensor, " batch"]
"""One truth value per image."""

Index = Int[Tensor, " rows"]
"""Positions of rows in a batch."""
