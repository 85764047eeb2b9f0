"""The packages have common names: nothing else may claim them, and only the product goes into the wheel."""

import importlib
import importlib.metadata
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("cache", "teacher_serving", "student", "cluster")


def test_wheel_contains_only_the_product() -> None:
    patterns = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert sorted(patterns) == sorted(pattern for name in PACKAGES for pattern in (name, f"{name}.*"))


def test_distribution_cannot_be_uploaded_by_mistake() -> None:
    assert PROJECT["project"]["name"] == "logitbank"
    assert "Private :: Do Not Upload" in PROJECT["project"]["classifiers"]


def test_bare_names_mean_this_repository() -> None:
    for name in (*PACKAGES, "benchmarks"):
        assert Path(str(importlib.import_module(name).__file__)).is_relative_to(ROOT)


def test_no_installed_distribution_claims_a_name() -> None:
    """Of the names in the wheel. A package of the CUDA environment claims "benchmarks", which is run from a clone."""
    claimed = importlib.metadata.packages_distributions()
    assert not {name: claimed[name] for name in PACKAGES if set(claimed.get(name, [])) - {"logitbank"}}


def test_no_job_keeps_data_in_a_package_folder() -> None:
    for job in (ROOT / "cluster" / "jobs").rglob("*.toml"):
        for line in job.read_text().splitlines():
            paths = re.findall(rf'"((?:{"|".join(PACKAGES)})/[^"]*)"', line)
            # A file that the project has, such as a schema, is read and not written.
            assert all((ROOT / path).is_file() for path in paths), f"{job}: {line}"


def test_there_is_no_room_without_a_purpose() -> None:
    assert not [path for name in PACKAGES for path in (ROOT / name).rglob("util*.py")]
