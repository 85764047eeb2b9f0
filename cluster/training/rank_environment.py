"""The environment of a rank that computes on a CPU."""

from teacher_serving.engines.process import cpu_environment


def rank_on_cpu(threads: int) -> dict[str, str]:
    """Environment variables of a rank without a GPU. Its allocator keeps large buffers."""
    return {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", **cpu_environment(threads)}
