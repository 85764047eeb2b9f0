"""`import logitbank` is light, and offers every public name of the four packages."""

import subprocess
import sys

import pytest

import logitbank

HEAVY = ("numpy", "torch", "ray", "transformers", "vllm", "numba", "pydantic", "rdkit")


def test_the_import_loads_nothing_heavy() -> None:
    code = f"import sys, logitbank; print([name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_no_name_is_offered_by_two_packages() -> None:
    assert len(logitbank.__all__) == len(set(logitbank.__all__))


@pytest.mark.parametrize("name", logitbank.__all__)
def test_every_name_resolves(name: str) -> None:
    assert getattr(logitbank, name) is not None


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = logitbank.nothing
