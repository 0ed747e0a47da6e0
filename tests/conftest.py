"""Shared by all tests: one thread, so that timing and rounding do not depend on the machine's cores."""

import pytest
import torch

import odefend


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def oon():
    return odefend.load("digits-oon")


@pytest.fixture(scope="session")
def res():
    return odefend.load("digits-res")


@pytest.fixture(scope="session")
def test_digits():
    return odefend.digits("test")
