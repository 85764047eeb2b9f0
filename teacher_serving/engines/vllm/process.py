"""The process that a vLLM engine lives in: its environment, and the modules that must be out of sight at its start."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from teacher_serving.engines.settings import EngineSettings

# Set for the engine's process before it starts. glibc otherwise maps and unmaps the big logits buffers at every step.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}
# One process without core binding, so several engines can share a machine, and no compilation: it costs more than it
# saves for the length of a capture.
ON_CPU = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "TORCH_COMPILE_DISABLE": "1",
}
# worker_extension.py wraps the first of vLLM's two model runners, the only one that a CPU has.
ON_GPU = {"VLLM_USE_V2_MODEL_RUNNER": "0"}
QUIET = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CONFIGURE_LOGGING": "1"}


def engine_environment(settings: EngineSettings, on_gpu: bool) -> dict[str, str]:
    """Environment variables that the process of an engine must be started with; none where a service runs it."""
    if settings.kind == "endpoint":
        return {}
    if on_gpu:
        return {**QUIET, **ON_GPU}
    return {**QUIET, **ALLOCATOR, **ON_CPU, "OMP_NUM_THREADS": str(settings.cpu_threads)}


@contextmanager
def touchy_modules_hidden() -> Iterator[None]:
    """Keep modules out of sys.modules for a while whose attributes cannot be looked through.

    vLLM's CPU build searches the attributes of every loaded module for kernels to replace, and dies of those that
    answer to any name or raise, such as the library handle of llvmlite (that is, of numba) and the proxies of flask.
    """
    hidden = {name: module for name, module in list(sys.modules.items()) if _is_touchy(module)}
    for name in hidden:
        del sys.modules[name]
    try:
        yield
    finally:
        sys.modules.update(hidden)


def _is_touchy(module: Any) -> bool:
    """Whether looking at the instance dictionaries of a module's attributes fails, as vLLM would do it."""
    for value in list((getattr(module, "__dict__", None) or {}).values()):
        try:
            if hasattr(value, "__dict__"):
                vars(value).get("kernel")
        except Exception:  # whatever the attribute raises
            return True
    return False
