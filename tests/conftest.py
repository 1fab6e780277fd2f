"""What every test runs under: no network, no luck, and a browser only where there is one."""

import os
import shutil
import warnings
from pathlib import Path

import pytest
from hypothesis import settings

from zamba_lab import native

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub; notebook kernels inherit it

# Drawn from a fixed seed, and without a deadline: a test must not fail by chance or because a machine is busy.
settings.register_profile("zamba_lab", derandomize=True, deadline=None)
settings.load_profile("zamba_lab")

# Warns once, here, where it is not an error: without a compiler the kernels' tests are skipped, and all others run.
with warnings.catch_warnings():
    warnings.simplefilter("default")
    native.available()

BROWSER_TESTS = Path(__file__).parent / "browser"
NO_CHROMIUM = "NO CHROMIUM: the browser tests did not run. On Debian: apt-get install chromium"


def find_chromium() -> str | None:
    """The browser that the variable CHROMIUM names, or the one on the path; None if it is empty or there is none."""
    return os.environ.get("CHROMIUM", shutil.which("chromium")) or None


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the browser that the browser tests drive."""
    return find_chromium() or pytest.skip(NO_CHROMIUM)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in tests/browser as `browser`; skip it, with a sentence, where there is no Chromium."""
    without = find_chromium() is None
    for item in items:
        if item.path.is_relative_to(BROWSER_TESTS):
            item.add_marker("browser")
            if without:
                item.add_marker(pytest.mark.skip(reason=NO_CHROMIUM))
