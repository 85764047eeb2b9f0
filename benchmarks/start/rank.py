"""One rank that starts a model in some way. Run as a program: the way, the model, and the folder for its figures."""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any


def run_rank(way: str, model: str, output: str) -> None:
    """Start one rank in a way, and write what it took."""
    import torch
    import torch.distributed as dist
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from student.models.build import build_model, build_structure
    from student.models.settings import ModelSettings
    from student.training.engine.config import deepspeed_config
    from student.training.engine.deepspeed_engine import start_ranks
    from student.training.engine.first_rank_weights import give_weights
    from student.training.run_settings import OptimizerSettings, RunSettings

    start_ranks()
    run = RunSettings.model_validate({"steps": 1, "batch_size": 64, "zero_stage": 3, "precision": "bf16"})
    config = deepspeed_config(OptimizerSettings(lr=0.1), run, dist.get_world_size(), False, {})
    what = (ModelSettings(pretrained=model), 280, AutoTokenizer.from_pretrained(model), 0)
    rank, bf16, cpu = dist.get_rank(), torch.bfloat16, torch.device("cpu")
    dist.barrier()
    with Watch() as watch:
        built: Any
        if way == "transformers":
            from transformers.integrations import HfDeepSpeedConfig

            kept = HfDeepSpeedConfig(config)  # Transformers looks for it while it is alive
            built = AutoModelForCausalLM.from_pretrained(model, dtype=bf16)
            del kept
        else:
            one_reader = way == "one_reader"
            has_weights = not one_reader or rank == 0
            dtype = bf16 if one_reader else torch.float32
            built = build_model(*what, test_head=False, dtype=dtype) if has_weights else build_structure(*what)
            give_weights(built, bf16, cpu, config)
        dist.barrier()
    assert all(parameter.ds_tensor.dtype is bf16 for parameter in built.parameters())
    Path(output, f"{rank}.json").write_text(json.dumps(watch.found))
    dist.barrier()


class Watch:
    """Seconds and highest memory of this process during a block, in bytes above that at its start."""

    def __enter__(self) -> "Watch":
        self._start, self._began = _resident(), time.monotonic()
        self._highest, self._ends = self._start, threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        seconds = time.monotonic() - self._began
        self._ends.set()
        self._thread.join()
        peak, anonymous = (high - start for high, start in zip(self._highest, self._start, strict=True))
        self.found = {"peak": peak, "anonymous": anonymous, "seconds": seconds}

    def _follow(self) -> None:
        while not self._ends.wait(0.005):
            highest, now = self._highest, _resident()
            self._highest = (max(highest[0], now[0]), max(highest[1], now[1]))


def _resident() -> tuple[int, int]:
    """Bytes of memory, and of those that are no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmRSS", "RssAnon"))}
    return sizes["VmRSS"], sizes["RssAnon"]


if __name__ == "__main__":
    run_rank(*sys.argv[1:])
