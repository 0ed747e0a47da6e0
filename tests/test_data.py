"""The digits: stable, disjoint, in range."""

import pytest
import torch

import odefend
from odefend.errors import InvalidInput, UnknownName

SPLITS = ("train", "calibration", "test")


def test_splits_are_disjoint_and_complete():
    ids = [set(odefend.digits(split).ids) for split in SPLITS]
    assert [len(part) for part in ids] == [1097, 200, 500]
    assert len(set.union(*ids)) == 1797
    images = torch.cat([odefend.digits(split).images.flatten(1) for split in SPLITS])
    assert len(torch.unique(images, dim=0)) == 1797, "an image stands in two splits"


def test_splits_never_change():
    assert [odefend.digits(split).digest for split in SPLITS] == [
        "08a2d73477108fae",
        "939bf1b161629f47",
        "55dc7ac71da8a3d2",
    ]


def test_images_are_in_range_and_slices_keep_ids():
    data = odefend.digits("test")
    assert data.images.shape == (500, 1, 8, 8) and data.images.min() == 0 and data.images.max() == 1
    part = data[[5, 2]]
    assert part.ids == (data.ids[5], data.ids[2]) and torch.equal(part.images[1], data.images[2])
    assert data[data.labels == 3].labels.unique().tolist() == [3]
    assert data[:10].digest != data[1:11].digest


def test_wrong_use():
    with pytest.raises(UnknownName, match="Did you mean 'test'"):
        odefend.digits("tests")
    data = odefend.digits("test")
    with pytest.raises(InvalidInput, match="as many images as labels"):
        odefend.LabelledImages(data.images, data.labels, data.ids[:3])
