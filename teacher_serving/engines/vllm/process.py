"""The process of a vLLM engine: its environment variables, and the modules that must be hidden while it starts."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from teacher_serving.engines.process import cpu_environment

# One process without core binding, so that several engines can share a machine. No compilation: it takes longer than
# it saves during a capture.
ON_CPU = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "TORCH_COMPILE_DISABLE": "1",
}
QUIET = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CONFIGURE_LOGGING": "1"}


def process_environment(threads: int, on_gpu: bool) -> dict[str, str]:
    """Environment variables that the process of a vLLM engine must be started with."""
    if on_gpu:
        return dict(QUIET)
    return {**QUIET, **ON_CPU, **cpu_environment(threads)}


@contextmanager
def hidden_unsafe_modules() -> Iterator[None]:
    """Remove some loaded modules from sys.modules while the block runs: those whose attributes cannot be inspected.

    vLLM's CPU build inspects the attributes of every loaded module to replace kernels. It fails on attributes that
    accept any name or raise an error, such as the library handle of llvmlite (used by numba) and the proxies of flask.
    """
    hidden = {name: module for name, module in list(sys.modules.items()) if _is_unsafe(module)}
    for name in hidden:
        del sys.modules[name]
    try:
        yield
    finally:
        sys.modules.update(hidden)


def _is_unsafe(module: Any) -> bool:
    """Whether inspecting the attributes of a module fails, in the way that vLLM does it."""
    for value in list((getattr(module, "__dict__", None) or {}).values()):
        try:
            if hasattr(value, "__dict__"):
                vars(value).get("kernel")
        except Exception:  # the attribute may raise anything
            return True
    return False
