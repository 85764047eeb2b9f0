"""The packages and `import logitbank` offer their public names, and load the libraries behind them at first use."""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import logitbank

ROOT = Path(__file__).resolve().parent.parent
FACES = ("cache", "teacher_serving", "student", "cluster", "logitbank")
HEAVY = (
    "numpy",
    "torch",
    "ray",
    "transformers",
    "vllm",
    "numba",
    "pcodec",
    "pyarrow",
    "pydantic",
    "rdkit",
    "deepspeed",
)


@pytest.mark.parametrize("face", FACES)
def test_the_import_loads_nothing_heavy(face: str) -> None:
    code = f"import sys, {face}; print([name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("face", FACES)
def test_every_public_name_resolves_and_is_shown(face: str) -> None:
    package = import_module(face)
    assert [name for name in package.__all__ if getattr(package, name) is None] == []
    assert set(package.__all__) - set(dir(package)) == set()
    assert len(package.__all__) == len(set(package.__all__))


@pytest.mark.parametrize("face", FACES)
def test_an_unknown_name_is_refused(face: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{face}' has no attribute 'no_such_name'"):
        getattr(import_module(face), "no_such_name")  # noqa: B009


def test_logitbank_knows_its_version() -> None:
    assert logitbank.__version__ == version("logitbank")


@pytest.mark.parametrize("face", FACES[:4])
def test_type_checkers_are_told_that_a_package_is_typed(face: str) -> None:
    assert (ROOT / face / "py.typed").is_file()
