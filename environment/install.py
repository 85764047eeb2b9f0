"""Create .venv from the lock that fits this machine, with plain pip. Standard library only.

Chooses the CUDA lock where an NVIDIA driver answers and the CPU lock elsewhere; LOGITBANK_DEVICE=cpu|gpu overrides.
Rerunning is free: a stamp in the environment holds the hash of what it was made from.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = Path(os.environ.get("LOGITBANK_VENV", HERE.parent / ".venv"))
PYTHON = (3, 11)
# Where the '+cpu' build of PyTorch lives when pip's own configuration does not know it.
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def fail(message: str) -> None:
    sys.exit(f"environment: {message}")


def choose_device() -> str:
    asked = os.environ.get("LOGITBANK_DEVICE", "")
    if asked not in ("", "cpu", "gpu"):
        fail(f"LOGITBANK_DEVICE is {asked!r}; use 'cpu' or 'gpu', or leave it unset")
    if asked:
        return asked
    smi = shutil.which("nvidia-smi")
    if smi and subprocess.run([smi, "-L"], capture_output=True, check=False).stdout.startswith(b"GPU"):
        return "gpu"
    return "cpu"


def check_platform() -> None:
    if sys.version_info[:2] != PYTHON:
        fail(
            f"the locks are for Python {PYTHON[0]}.{PYTHON[1]}, this is {platform.python_version()}; "
            "run 'make PYTHON=/path/to/python3.11', or 'pip install .[cpu]' (or .[gpu]) for an unpinned set-up"
        )
    if sysconfig.get_platform() != "linux-x86_64":
        fail(f"no build of vLLM fits {sysconfig.get_platform()}; a Linux machine on x86-64 is needed")


def pip_install(*what: str) -> bool:
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--no-deps"]
    return subprocess.run([*pip, "--quiet", "--progress-bar", "off", *what], check=False).returncode == 0


def main() -> None:
    check_platform()
    device = choose_device()
    lock = HERE / f"{device}.lock"
    sources = lock.read_bytes() + (HERE.parent / "pyproject.toml").read_bytes()
    wanted = f"{device} {hashlib.sha256(sources).hexdigest()}\n"
    stamp = VENV / "logitbank.stamp"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    packages = sum(1 for line in lock.read_text().splitlines() if "==" in line)
    print(
        f"environment: installing {packages} packages for {device} into {VENV.name} (2 to 4 minutes, once)", flush=True
    )
    started = time.monotonic()
    if not (VENV / "bin" / "pip").exists():  # absent, or left half-made by a kill
        venv.create(VENV, with_pip=True, clear=True)
    installed = pip_install("-r", str(lock))
    if not installed and device == "cpu":
        print("environment: trying again with PyTorch's own CPU wheel index", flush=True)
        installed = pip_install("-r", str(lock), "--extra-index-url", TORCH_CPU_INDEX)
    if not installed:
        fail(f"pip could not install {lock.name} (its message is above); fix that and run make again")
    # Editable, for the `logitbank` command; built with the lock's setuptools, so nothing more is fetched.
    if not pip_install("--no-build-isolation", "-e", str(HERE.parent)):
        fail("pip could not install the project itself (its message is above)")
    stamp.write_text(wanted)
    print(f"environment: ready after {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
