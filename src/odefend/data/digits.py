"""The handwritten digits that scikit-learn carries: 1,797 real pictures of 8x8 pixels, no download needed.

Source: Alpaydin & Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998, doi 10.24432/C50P49), test part.
"""

from typing import Any

import torch
from sklearn.datasets import load_digits

from odefend.data.images import LabelledImages, check_split, shuffled

SIZES = {"test": 500, "validation": 200, "train": 1097}


def digits(split: str) -> LabelledImages:
    """One of three disjoint parts: 1,097 images to train on, 200 held out ("validation"), 500 to test.

    Pixels are k/16 with k = 0..16, as recorded. The order within a part is a fixed shuffle, so that its first n
    images are a random sample.
    """
    check_split(split)
    bunch: Any = load_digits()
    ids = tuple(f"digits/{i:04d}" for i in range(len(bunch.target)))
    images = torch.from_numpy(bunch.images).float().div(16)[:, None]
    everything = LabelledImages(images, torch.from_numpy(bunch.target).long(), ids)
    order, start = shuffled(ids), 0
    for name, size in SIZES.items():
        if name == split:
            break
        start += size
    return everything[order[start : start + SIZES[split]]]
