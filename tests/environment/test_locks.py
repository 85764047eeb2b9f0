"""Each lock meets what its own packages require, and a lock that does not is refused before it is written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from environment import locks, resolve
from environment.locks import DEVICES, EXCEPTIONS, PYTHONS, Lock, problems, project_requirements, read_lock

EACH = [(device, python) for device in DEVICES for python in PYTHONS]


def found(lock: Lock) -> list[str]:
    return problems(lock, project_requirements(lock.device))


def with_package(lock: Lock, name: str, **changes: object) -> Lock:
    """This lock with another version, file or list of requirements of one package."""
    packages = {**lock.packages, name: replace(lock.packages[name], **changes)}  # type: ignore[arg-type]
    pins = {**lock.pins, name: packages[name].version}
    return replace(lock, packages=packages, pins=pins, text=text_of(lock, pins))


def without_package(lock: Lock, name: str) -> Lock:
    packages = {each: package for each, package in lock.packages.items() if each != name}
    pins = {each: version for each, version in lock.pins.items() if each != name}
    return replace(lock, packages=packages, pins=pins, text=text_of(lock, pins))


def text_of(lock: Lock, pins: dict[str, str]) -> str:
    sign = {"torch": "==="} if "torch===" in lock.text else {}
    return "".join(f"{name}{sign.get(name, '==')}{version}\n" for name, version in pins.items())


@pytest.mark.parametrize("device, python", EACH)
def test_a_lock_meets_the_requirements_of_its_packages(device: str, python: str) -> None:
    assert not found(read_lock(device, python))


def test_there_is_a_lock_for_every_device_and_python() -> None:
    names = {path.name for path in locks.HERE.glob("*.lock")}
    assert names == {f"{device}-{python}.lock" for device, python in EACH}


def test_exceptions_give_reasons() -> None:
    assert all(len(reason) > 20 for reason in EXCEPTIONS.values())


BREAKING: list[tuple[Callable[[Lock], Lock], str]] = [
    (lambda lock: with_package(lock, "torch", version="2.13.0+cpu"), "torch: 2.13.0+cpu is a local build"),
    (lambda lock: replace(lock, text=lock.text.replace("===", "==")), "torch: the CUDA lock must pin it with ==="),
    (lambda lock: without_package(lock, "nvidia-nccl-cu13"), "torch: requires nvidia-nccl-cu13"),
    (lambda lock: with_package(lock, "triton", version="3.9.0"), "torch: requires triton==3.7.1"),
    (lambda lock: with_package(lock, "ray", version="2.59.0"), "the project: requires ray[default,train]"),
    (lambda lock: without_package(lock, "aiohttp-cors"), "ray: requires aiohttp_cors"),
    (lambda lock: with_package(lock, "peft", requires_python=">=3.13"), "peft: 0.21.2 needs Python >=3.13"),
    (lambda lock: with_package(lock, "peft", file="peft-0.21.2.tar.gz"), "peft: peft-0.21.2.tar.gz is no wheel"),
    (
        lambda lock: with_package(lock, "numpy", file="numpy-2.3.5-cp310-cp310-manylinux_2_17_x86_64.whl"),
        "is no wheel for Python 3.12 and glibc 2.31",
    ),
    (
        lambda lock: with_package(lock, "numpy", file="numpy-2.3.5-cp312-cp312-manylinux_2_39_x86_64.whl"),
        "is no wheel for Python 3.12 and glibc 2.31",
    ),
    (lambda lock: with_package(lock, "vllm", requires=()), "blake3: nothing in the lock requires it"),
    (
        lambda lock: with_package(lock, "nvidia-cuda-runtime", version="14.1.0"),
        "environment/driver.py does not name a driver for CUDA '14.1'",
    ),
    (lambda lock: replace(lock, pins={**lock.pins, "peft": "0.1"}), "peft: the lock and the requirements beside it"),
    (
        lambda lock: with_package(lock, "deepspeed", file="deepspeed-0.19.8-py3-none-any.whl"),
        "deepspeed: the exception for file is needed no more",
    ),
]


@pytest.mark.parametrize("change, expected", BREAKING, ids=[expected for _, expected in BREAKING])
def test_a_lock_that_cannot_work_is_refused(change: Callable[[Lock], Lock], expected: str) -> None:
    messages = found(change(read_lock("gpu", "3.12")))
    assert any(expected in message for message in messages), messages


def test_the_cpu_lock_has_the_cpu_build_and_nothing_for_cuda() -> None:
    lock = read_lock("cpu", "3.11")
    assert lock.pins["torch"].endswith("+cpu")
    assert any("CPU build" in message for message in found(with_package(lock, "torch", version="2.13.0")))
    cuda = read_lock("gpu", "3.11").packages["nvidia-nccl-cu13"]
    pins = {**lock.pins, "nvidia-nccl-cu13": cuda.version}
    more = replace(lock, pins=pins, packages={**lock.packages, "nvidia-nccl-cu13": cuda})
    assert any("does not belong in the CPU lock" in message for message in found(more))


def test_locks_of_two_pythons_differ_only_where_a_package_demands_it() -> None:
    """setuptools: vLLM's own limit for Python 3.12 and newer. scipy: its newest release has no Python 3.11."""
    for device in DEVICES:
        first, second = (read_lock(device, python).pins for python in PYTHONS)
        assert {name for name in first | second if first.get(name) != second.get(name)} <= {"scipy", "setuptools"}


def test_nothing_is_written_where_one_lock_has_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = read_lock("cpu", "3.11"), without_package(read_lock("gpu", "3.11"), "triton")
    requirements = {device: project_requirements(device) for device in DEVICES}
    monkeypatch.setattr(locks, "HERE", tmp_path)
    monkeypatch.setattr(resolve, "project_requirements", lambda device: requirements[device])
    with pytest.raises(SystemExit, match=r"gpu-3\.11\.lock: torch: requires triton==3\.7\.1"):
        resolve.write([good, bad])
    assert not list(tmp_path.iterdir())
    resolve.write([good])
    assert read_lock("cpu", "3.11") == good


@pytest.mark.parametrize("line", ["torch>=2", "torch", "torch == 2.13.0", "-r other.lock"])
def test_a_line_that_is_no_pin_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="is not a pin"):
        locks.pins(f"# a comment\nnumpy==2.3.5\n{line}\n")
