"""The machine, for result files. Imports nothing else of this project, so that any benchmark can use it."""

import os
import platform
from pathlib import Path


def hardware() -> str:
    """The machine, in words, for result files."""
    import torch

    name = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{os.cpu_count()} x {name}" + "".join(f", {gpu}" for gpu in gpus)
