"""Read the NVIDIA driver of this machine, and the oldest one that a CUDA lock runs with. Standard library only."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

# By CUDA version: the oldest Linux driver, and the oldest compute capability that its libraries still support.
# Source: NVIDIA's CUDA Toolkit release notes, "CUDA Minor Version Compatibility" and "Deprecated Architectures".
OLDEST = {"13": ("580.65.06", "7.5")}
# The kernel module names its version here, also in a container that has no nvidia-smi.
MODULE = Path("/proc/driver/nvidia/version")


class Driver(NamedTuple):
    """The driver's version and the compute capability of each GPU. Both are empty where nothing answered."""

    version: str
    capabilities: tuple[str, ...]
    complaint: str


def read_driver(module: Path = MODULE) -> Driver:
    """Ask nvidia-smi, then the kernel module. `complaint` is what a failing nvidia-smi printed."""
    smi = shutil.which("nvidia-smi")
    complaint = ""
    if smi:
        versions, complaint = _query(smi, "driver_version")
        if versions:
            return Driver(versions[0], tuple(_query(smi, "compute_cap")[0]), "")
    text = module.read_text(errors="replace") if module.exists() else ""
    found = re.search(r"Kernel Module\D*?(?:x86_64)?\s+(\d+(?:\.\d+)+)", text)
    return Driver(found.group(1) if found else "", (), complaint)


def _query(smi: str, field: str) -> tuple[list[str], str]:
    """Values of one field, a line for each GPU, and the first line of the message where there are none."""
    try:
        run = subprocess.run(
            [smi, f"--query-gpu={field}", "--format=csv,noheader"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], str(error)
    lines = [line.strip() for line in run.stdout.decode(errors="replace").splitlines() if line.strip()]
    values = [line for line in lines if re.fullmatch(r"\d+(\.\d+)+", line)]
    if run.returncode or not values:
        return [], lines[0] if lines else f"exit code {run.returncode}"
    return values, ""


def cuda_version(lock: str) -> str:
    """CUDA version of a lock, such as "13.0", read from the pin of CUDA's runtime; "" where it has none."""
    pin = re.search(r"^nvidia-cuda-runtime(?:-cu\d+)?===?(\d+\.\d+)", lock, re.MULTILINE)
    return pin.group(1) if pin else ""


def needs(lock: str) -> str:
    """What a CUDA lock needs of a machine, such as "needs driver 580.65.06 or newer"."""
    return f"needs driver {OLDEST[_major(lock)][0]} or newer"


def refusal(driver: Driver, lock: str) -> str:
    """What speaks against the CUDA lock on a machine with this driver, in one line; "" where nothing does."""
    oldest, capability = OLDEST[_major(lock)]
    build, otherwise = (
        f"the CUDA environment (CUDA {cuda_version(lock)})",
        "or set LOGITBANK_DEVICE=cpu to run on the CPU",
    )
    if driver.version and _numbers(driver.version) < _numbers(oldest):
        return f"the NVIDIA driver is {driver.version}, and {build} {needs(lock)}; update the driver, {otherwise}"
    if driver.capabilities and all(_numbers(each) < _numbers(capability) for each in driver.capabilities):
        there = ", ".join(sorted(set(driver.capabilities)))
        return (
            f"the GPU has compute capability {there}, and {build} needs {capability} or newer; "
            f"use a newer GPU, {otherwise}"
        )
    return ""


def _major(lock: str) -> str:
    return cuda_version(lock).partition(".")[0]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
