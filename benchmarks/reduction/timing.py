"""Times of a function on a device, and the bandwidth of the device."""

import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.common.harness import spread

WARMUP = 2


def seconds(run: Callable[[], Any], device: str, budget: float, most: int = 30) -> dict[str, float]:
    """Median, smallest and largest time of at least 3 calls within about `budget` seconds, after a warm-up."""
    for _ in range(WARMUP):
        run()
    started = time.perf_counter()
    first = _timed(run, device)
    count = max(3, min(most, int(budget / max(time.perf_counter() - started, 1e-6))))
    return spread([first, *(_timed(run, device) for _ in range(count - 1))])


def _timed(run: Callable[[], Any], device: str) -> float:
    if device != "cuda":
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


QUEUED = 10


def queued_seconds(run: Callable[[], Any], device: str) -> dict[str, float]:
    """Time of a call when QUEUED of them are waiting: the device's work, or the host's if that takes longer."""

    def several() -> None:
        for _ in range(QUEUED):
            run()

    return {name: value / QUEUED for name, value in seconds(several, device, 0.0, 5).items()}


def kernel_seconds(run: Callable[[], Any]) -> dict[str, float]:
    """Mean time of each kernel that `run` launches on the GPU, in the order of their names."""
    from torch.profiler import ProfilerActivity, profile

    run()
    torch.cuda.synchronize()
    calls = 5
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(calls):
            run()
        torch.cuda.synchronize()
    events = {event.key: event.device_time_total / 1e6 / calls for event in profiler.key_averages()}
    return {name: value for name, value in sorted(events.items()) if value > 0}


def bandwidth(device: str, mib: int) -> dict[str, float]:
    """Bytes per second of a copy (bytes read and written) and of a sum (bytes read), of arrays far above the caches."""
    source = torch.ones(mib << 18, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    size = source.numel() * 4
    copied = seconds(lambda: target.copy_(source), device, 0.3)["median"]
    read = seconds(source.sum, device, 0.3)["median"]
    return {"copy": 2 * size / copied, "read": size / read}


def matrix_product(rows: int, vocab: int, hidden: int, dtype: torch.dtype, device: str, budget: float) -> float:
    """Median seconds of the LM head's matrix product, [rows, hidden] by [hidden, vocab]."""
    states = torch.randn(rows, hidden, device=device).to(dtype)
    head = torch.randn(vocab, hidden, device=device).to(dtype)
    return seconds(lambda: states @ head.T, device, budget)["median"]
