"""`from cache import ...` offers every public name, and loads heavy libraries only when one needs them."""

import subprocess
import sys
from pathlib import Path

import pytest

import cache

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", cache.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(cache, name).__name__ == name
    assert name in dir(cache)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'LogitBank'"):
        cache.LogitBank  # noqa: B018


def test_importing_the_package_loads_no_heavy_library() -> None:
    """Would catch a plain import in cache/__init__.py, which every command would wait for."""
    code = "import sys, cache; print([m for m in ('numba', 'pcodec', 'pyarrow', 'numpy') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
