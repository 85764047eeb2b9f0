"""Data sets and models that the project does not contain. Tests that need one are skipped where it is absent."""

import os
from pathlib import Path

import pytest

# Folder with one folder for each data set, in its public form.
DATA_VARIABLE = "LOGITBANK_DATA"
ROOT = Path(__file__).resolve().parents[1]


def real_data(name: str) -> Path:
    """The folder of a data set, such as "svamp". Skips the test if it is absent."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        pytest.skip(f"needs the data set {name!r}: set {DATA_VARIABLE} to a folder that contains it")
    path = Path(folder) / name
    if not path.is_dir():
        pytest.skip(f"needs the data set {name!r}, and {DATA_VARIABLE}={folder} has no such folder")
    return path


def real_teacher() -> Path:
    """The folder of SmolLM2-135M-Instruct. Skips the test if it was not made."""
    path = ROOT / "runs" / "teachers" / "SmolLM2-135M-Instruct"
    if not (path / "config.json").is_file():
        pytest.skip("needs a real teacher: run 'python -m environment.models smollm2'")
    return path


def real_encoder() -> Path:
    """The folder of all-MiniLM-L6-v2. Skips the test if it was not made."""
    path = ROOT / "runs" / "encoders" / "all-MiniLM-L6-v2"
    if not (path / "config.json").is_file():
        pytest.skip("needs an encoder: run 'python -m environment.models minilm'")
    return path
