"""Learning rate by step."""

import math

from student.training.run_settings import OptimizerSettings


def rate_factor(step: int, settings: OptimizerSettings, steps: int) -> float:
    """Factor on the peak rate at `step` (from 0): linear warm-up, then a decay to the final share at the last step."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    fraction = min(1.0, (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps))
    decay = {"cosine": 0.5 * (1 + math.cos(math.pi * fraction)), "linear": 1 - fraction, "constant": 1.0}[
        settings.schedule
    ]
    return settings.final_lr_share + (1 - settings.final_lr_share) * decay
