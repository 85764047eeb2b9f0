"""Create .venv from the lock that fits this machine and this Python, with plain pip. Standard library only.

Chooses the CUDA lock where an NVIDIA driver answers and the CPU lock elsewhere; LOGITBANK_DEVICE=cpu|gpu overrides.
A driver that is too old for the CUDA lock is refused before anything is downloaded.
Rerunning is free: a stamp in the environment holds the hash of what it was made from.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path
from typing import NoReturn

from environment.driver import Driver, cuda_version, needs, read_driver, refusal

HERE = Path(__file__).resolve().parent
VENV = Path(os.environ.get("LOGITBANK_VENV", HERE.parent / ".venv"))
# Where the '+cpu' build of PyTorch lives when pip's own configuration does not know it.
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def fail(message: str) -> NoReturn:
    sys.exit(f"environment: {message}")


def say(message: str) -> None:
    print(f"environment: {message}", flush=True)


def choose_device(driver: Driver) -> str:
    """ "cpu" or "gpu": LOGITBANK_DEVICE where it is set, and otherwise "gpu" where a driver answers."""
    wanted = os.environ.get("LOGITBANK_DEVICE", "")
    if wanted not in ("", "cpu", "gpu"):
        fail(f"LOGITBANK_DEVICE is {wanted!r}; use 'cpu' or 'gpu', or leave it unset")
    return wanted or ("gpu" if driver.version else "cpu")


def check_platform() -> None:
    pythons = sorted(path.name[len("cpu-") : -len(".lock")] for path in HERE.glob("cpu-*.lock"))
    if f"{sys.version_info[0]}.{sys.version_info[1]}" not in pythons:
        fail(
            f"there are locks for Python {' and '.join(pythons)}, and this is {platform.python_version()}; "
            f"run 'make PYTHON=/path/to/python{pythons[-1]}', or 'pip install .[cpu]' (or .[gpu]) without pins"
        )
    if sysconfig.get_platform() != "linux-x86_64":
        fail(f"no build of vLLM fits {sysconfig.get_platform()}; a Linux machine on x86-64 is needed")


def check_driver(device: str, driver: Driver, lock: str) -> None:
    """Refuse the CUDA lock with a driver that is too old, and name a driver that does not answer."""
    if device == "gpu":
        reason = refusal(driver, lock)
        if reason:
            fail(reason)
        if not driver.version:
            say(f"no NVIDIA driver answers here; the CUDA environment (CUDA {cuda_version(lock)}) {needs(lock)} to run")
    elif driver.complaint and not driver.version:
        say(f"nvidia-smi does not answer ({driver.complaint}); taking the CPU environment")


def pip_install(*what: str) -> bool:
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--no-deps"]
    return subprocess.run([*pip, "--quiet", "--progress-bar", "off", *what], check=False).returncode == 0


def make_venv() -> None:
    """An environment of this Python with pip. One that is half-made or of another Python is made again."""
    python = VENV / "bin" / "python"
    code = "import pip, sys; print(sys.version_info[:2])"
    if python.exists():
        run = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
        if run.stdout.strip() == str(sys.version_info[:2]):
            return
    venv.create(VENV, with_pip=True, clear=True)


def main() -> None:
    check_platform()
    driver = read_driver()
    device = choose_device(driver)
    path = HERE / f"{device}-{sys.version_info[0]}.{sys.version_info[1]}.lock"
    lock = path.read_text()
    wanted = (
        f"{path.stem} {hashlib.sha256(path.read_bytes() + (HERE.parent / 'pyproject.toml').read_bytes()).hexdigest()}\n"
    )
    stamp = VENV / "logitbank.stamp"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    check_driver(device, driver, lock)
    packages = sum(1 for line in lock.splitlines() if "==" in line)
    kind = f"{device} and Python {path.stem.partition('-')[2]}"
    say(f"installing {packages} packages for {kind} into {VENV.name} (2 to 4 minutes, once)")
    started = time.monotonic()
    make_venv()
    installed = pip_install("-r", str(path))
    if not installed and device == "cpu":
        say("trying again with PyTorch's own CPU wheel index")
        installed = pip_install("-r", str(path), "--extra-index-url", TORCH_CPU_INDEX)
    if not installed:
        fail(f"pip could not install {path.name} (its message is above); fix that and run make again")
    # Editable, for the `logitbank` command; built with the lock's setuptools, so nothing more is fetched.
    if not pip_install("--no-build-isolation", "-e", str(HERE.parent)):
        fail("pip could not install the project itself (its message is above)")
    stamp.write_text(wanted)
    say(f"ready after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
