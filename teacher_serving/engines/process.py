"""The environment of a process that runs a model on a CPU."""

import os

# glibc otherwise maps and unmaps the large logits buffers at every step. It reads these when the process starts.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}

# OpenMP's threads otherwise spin while they wait for each other, and take the cores from every other process.
WAITING = "OMP_WAIT_POLICY"


def cpu_environment(threads: int) -> dict[str, str]:
    """Environment variables of a process that computes with this many threads.

    Its idle threads sleep, unless the user's environment says otherwise (OMP_WAIT_POLICY).
    """
    return {**ALLOCATOR, "OMP_NUM_THREADS": str(threads), WAITING: os.environ.get(WAITING, "passive")}


def available_threads() -> int:
    """What the user's environment asks for (OMP_NUM_THREADS), or every core that this process may use."""
    requested = os.environ.get("OMP_NUM_THREADS", "")
    return int(requested) if requested.isdecimal() and int(requested) else len(os.sched_getaffinity(0))
