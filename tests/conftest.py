"""Shared by all tests: one thread, so that timing and rounding do not depend on the machine's cores."""

import pytest
import requests
import torch
from commandline import cli as cli
from real_data import real_data as real_data
from real_data import shared
from typecheck import CALLS, begin

import odefend


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What shares a fixture of its file runs in one of xdist's processes, which makes it once."""
    for item in items:
        fixtures = item._fixtureinfo.name2fixturedefs.values()
        if any(some[-1].scope == "module" for some in fixtures) and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    begin(0 if item.get_closest_marker("unchecked") else CALLS)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    begin(0 if item.get_closest_marker("unchecked") else CALLS)


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


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """No test reads or fills the user's cache, or downloads anything that it does not serve itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ODEFEND_CACHE", str(shared(tmp_path_factory) / "cache"))
        patch.setattr(requests, "get", only_here)
        yield


def only_here(address, *args, **options):
    """requests.get, to this machine only."""
    assert address.startswith("http://127.0.0.1:"), f"a test asks for {address}"
    return get(address, *args, **options)


get = requests.get
