"""Every benchmark can be started: its module imports what exists, and its parser answers."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import benchmarks
from benchmarks.__main__ import BENCHMARKS

ROOT = Path(__file__).resolve().parent.parent
MODULES = [found.name for found in walk_packages(benchmarks.__path__, "benchmarks.") if "mds_peer" not in found.name]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_a_module_imports(name: str) -> None:
    import_module(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({each.name for each in BENCHMARKS}))
def test_a_benchmark_explains_itself(name: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
