"""Random changes of training images, on tensors; every draw belongs to one image of one step."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from odefend.training.recipe import Augmentation

DRAWS = 5


def augment(images: Tensor, how: Augmentation, draws: np.ndarray) -> Tensor:
    """Images (N, C, H, W) in [0, 1], changed by draws (N, 5) that are uniform in [0, 1); still in [0, 1]."""
    crop, flip, hue, saturation = draws[:, :2], draws[:, 2], draws[:, 3], draws[:, 4]
    if how.hue or how.saturation:
        images = _colours(images, how.hue * (2 * hue - 1), 1 + how.saturation * (2 * saturation - 1))
    if how.crop:
        images = _crop(images, how.crop, crop)
    if how.flip:
        turned = torch.from_numpy(flip < 0.5).to(images.device)
        images = torch.where(turned[:, None, None, None], images.flip(3), images)
    return images


def _crop(images: Tensor, margin: int, draws: np.ndarray) -> Tensor:
    """Each image out of its black frame, shifted by -margin ... margin pixels."""
    shift = torch.from_numpy((draws * (2 * margin + 1)).astype(np.int64)).to(images.device)
    height, width = images.shape[2:]
    rows = shift[:, 0, None] + torch.arange(height, device=images.device)
    columns = shift[:, 1, None] + torch.arange(width, device=images.device)
    framed = F.pad(images, [margin] * 4).permute(0, 2, 3, 1)
    one = torch.arange(len(images), device=images.device)[:, None, None]
    return framed[one, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the brightness of a pixel (ITU-R BT.601)."""


def _colours(images: Tensor, turn: np.ndarray, factor: np.ndarray) -> Tensor:
    """Turn the hue of RGB images by `turn` circles and multiply their saturation by `factor`.

    Linear in YIQ space: a rotation and a scaling of the two colour axes at constant brightness.
    """
    to_yiq = torch.tensor(
        [LUMA, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135)], dtype=torch.float64
    )
    cos, sin = (factor * f(2 * math.pi * turn) for f in (np.cos, np.sin))
    change = torch.zeros(len(images), 3, 3, dtype=torch.float64)
    change[:, 0, 0] = 1
    change[:, 1, 1] = change[:, 2, 2] = torch.from_numpy(cos)
    change[:, 1, 2], change[:, 2, 1] = torch.from_numpy(-sin), torch.from_numpy(sin)
    whole = (torch.linalg.inv(to_yiq) @ change @ to_yiq).to(images)
    return torch.einsum("nij,njhw->nihw", whole, images).clamp_(0, 1)
