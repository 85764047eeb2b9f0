"""Resolve every lock, check each, and write them all or none. `make lock` runs this; it needs uv.

What is pinned stays pinned where it still fits. `--upgrade` takes the newest releases instead.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from environment.index_metadata import UnreadableError, read_packages
from environment.locks import (
    DEVICES,
    EXTRAS,
    GLIBC,
    HERE,
    PYTHONS,
    Lock,
    Package,
    lock_path,
    pins,
    problems,
    project_requirements,
    requirements_path,
)


def fail(message: str) -> NoReturn:
    sys.exit(f"lock: {message}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Resolve, check and write environment/*.lock.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest releases, not those pinned now")
    upgrade = parser.parse_args().upgrade
    if shutil.which("uv") is None:
        fail("uv is not installed; install it with 'pip install uv' and run 'make lock' again")
    locks: list[Lock] = []
    for device in DEVICES:
        first = None
        for python in PYTHONS:
            print(f"lock: resolving {device} for Python {python}", flush=True)
            locks.append(resolve(device, python, first, upgrade))
            first = first or locks[-1]
    write(locks)
    print(f"lock: wrote {len(locks)} locks, each with the requirements of its packages beside it")


def resolve(device: str, python: str, first: Lock | None, upgrade: bool) -> Lock:
    """The lock of one kind of environment and one Python. `first`, of another Python, gives versions to a new one."""
    now = lock_path(device, python)
    seed = now.read_text() if now.exists() and not upgrade else first.text if first else ""
    text = _render(device, python, pins(_compile(device, python, seed)))
    try:
        packages = read_packages(text, python, first.packages if first else {})
    except UnreadableError as error:
        fail(f"pip could not read what the {device} packages for Python {python} require:\n{error}")
    return Lock(device, python, pins(text), packages, text)


def write(locks: list[Lock]) -> None:
    """Write every lock and its requirements, or exit and write nothing where one of them has a problem."""
    wrong = [
        f"{lock_path(lock.device, lock.python).name}: {problem}"
        for lock in locks
        for problem in problems(lock, project_requirements(lock.device))
    ]
    if wrong:
        fail("nothing is written, because these locks do not make a working environment:\n" + "\n".join(wrong))
    for lock in locks:
        lock_path(lock.device, lock.python).write_text(lock.text)
        requirements_path(lock.device, lock.python).write_text(_document(lock.packages))


def _compile(device: str, python: str, seed: str) -> str:
    """What uv resolves, as lines "name==version". `seed` has the versions to keep where they fit."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "lock.txt"
        output.write_text(seed.replace("===", "==").replace("+cpu", ""))
        command = ["uv", "pip", "compile", str(HERE.parent / "pyproject.toml")]
        command += [word for extra in (device, *EXTRAS) for word in ("--extra", extra)]
        command += ["--python-version", python, "--python-platform", f"x86_64-manylinux_{GLIBC[0]}_{GLIBC[1]}"]
        command += ["--no-python-downloads", "--no-header", "--no-annotate", "--quiet", "--output-file", str(output)]
        command += ["--constraint", str(HERE / "constraints.txt")]
        command += ["--override", str(HERE / "cpu-overrides.txt")] if device == "cpu" else []
        # Without these, so that PyTorch's CPU build on a local index cannot enter the CUDA lock.
        hidden = ("UV_FIND_LINKS", "UV_EXTRA_INDEX_URL", "UV_INDEX")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if run.returncode:
            fail(f"uv could not resolve {device} for Python {python}:\n{run.stderr.strip()}")
        return output.read_text()


def _render(device: str, python: str, resolved: Mapping[str, str]) -> str:
    """Text of a lock. PyTorch's pin names one build: +cpu, or with === the published one, which +cpu does not meet."""
    torch = f"torch=={resolved['torch']}+cpu" if device == "cpu" else f"torch==={resolved['torch']}"
    lines = [torch if name == "torch" else f"{name}=={version}" for name, version in sorted(resolved.items())]
    header = f"# Pinned {device} environment for Python {python}, installed with --no-deps. Made by 'make lock'."
    return "\n".join([header, *lines]) + "\n"


def _document(packages: Mapping[str, Package]) -> str:
    """JSON with a line for each package, so that a change shows as a line."""
    lines = [f"{json.dumps(name)}: {json.dumps(asdict(package))}" for name, package in packages.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    main()
