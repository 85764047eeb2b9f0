"""Models whose weights rank 0 alone has read. Run as a program: a folder of models, and an output file.

Rank 0 writes for each case what differs from the model as one process builds it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from transformers import AutoTokenizer

from student.models.build import build_model, build_structure
from student.models.settings import ModelSettings
from student.training.engine.config import PRECISIONS
from student.training.engine.deepspeed_engine import Engine, start_ranks
from student.training.engine.first_rank_weights import has_same_structure
from student.training.engine.frozen_weights import frozen_checksum
from student.training.run_settings import OptimizerSettings, RunSettings

SAVED, WIDE = 325, 350  # logits of the saved models, and more than these
LORA = {"rank": 4}
NEW = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
NEW |= {"num_attention_heads": 2}
# Name: the model, the fields of [model] and the precision. Each at some stages of ZeRO.
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    **{
        f"{name}-{precision}": (name, {}, precision)
        for name in ("llama", "tied", "t5")
        for precision in ("fp32", "bf16")
    },
    "bfloat16-bf16": ("bfloat16", {}, "bf16"),
    "bfloat16-fp32": ("bfloat16", {}, "fp32"),
    "corrected-bf16": ("corrected", {}, "bf16"),
    # Buffers of the checkpoint in bfloat16, which the configuration makes float32; and positions that nobody trains.
    "bart-bf16": ("bart", {}, "bf16"),
    "marian-fp32": ("marian", {}, "fp32"),
    # The configuration ties what the files have twice.
    "untied-fp32": ("untied", {}, "fp32"),
    "layers": ("llama", {"layers": [0, 2]}, "fp32"),
    "lora": ("llama", {"lora": LORA}, "bf16"),
    "dora": ("bfloat16", {"lora": {**LORA, "dora": True}}, "bf16"),
    "checkpointed": ("llama", {"gradient_checkpointing": True}, "fp32"),
    "new": ("", {"config": NEW}, "fp32"),
}
CASES = {f"{name}-stage-{stage}": (*case, stage) for name, case in MODELS.items() for stage in (0, 2, 3)}


def main() -> None:
    models, output = Path(sys.argv[1]), Path(sys.argv[2])
    start_ranks()
    results = {}
    for name, case in CASES.items():
        results[name] = differences(models, output.parent / name, *case)
    if dist.get_rank() == 0:
        output.write_text(json.dumps(results))
    dist.barrier()
    dist.destroy_process_group()  # a process that ends while its threads wait for others may be aborted


def differences(
    models: Path, folder: Path, name: str, fields: dict[str, Any], precision: str, stage: int
) -> dict[str, Any]:
    path = str(models / (name or "llama"))
    settings = ModelSettings.model_validate({**({"pretrained": path} if name else {}), **fields})
    tokenizer = AutoTokenizer.from_pretrained(path)
    # Making room for more logits would tie the weights again.
    what = (settings, SAVED if name == "untied" else WIDE, tokenizer, 3)
    dtype = PRECISIONS[precision]
    wanted = build_model(*what, test_head=False)  # as every rank once did, in float32
    # Rows that are new, because more logits are wanted than the model has, are rounded to the dtype of the others.
    checksum = frozen_checksum(nn.ModuleDict({"model": build_model(*what, test_head=False, dtype=dtype)}))
    model = None if dist.get_rank() == 0 else build_structure(*what)
    model = model or build_model(*what, test_head=False, dtype=dtype)
    before = {parameter.device.type for parameter in model.parameters()}
    is_same = has_same_structure(model, torch.device("cpu"))
    if not is_same and dist.get_rank() != 0:
        model = build_model(*what, test_head=False, dtype=dtype)
    loaded_as = str(next(model.parameters()).dtype)
    holder = nn.ModuleDict({"model": model})
    run = RunSettings.model_validate({"steps": 2, "batch_size": 2, "zero_stage": stage, "precision": precision})
    engine = Engine(holder, OptimizerSettings(lr=0.1), run, folder)
    parts = [getattr(each, "ds_tensor", each).numel() for each in model.parameters()]
    weights = engine.full_weights(dtype)
    buffers = {key: value.double().sum().item() for key, value in model.named_buffers()}
    gathered: list[Any] = [None, None]
    dist.all_gather_object(gathered, (before, sum(parts), buffers, engine._frozen))
    if dist.get_rank() != 0:
        return {}
    expected = {f"model.{key}": weight.detach().to(dtype) for key, weight in wanted.named_parameters()}
    different = [key for key, weight in expected.items() if not torch.equal(weight.to(dtype), weights[key])]
    own = {key: value.double().sum().item() for key, value in wanted.named_buffers()}
    return {
        "is_same": is_same,
        "names": list(weights) == list(expected),
        "different": different,
        "dtypes": sorted({str(weight.dtype) for weight in weights.values()}),
        "devices": [sorted(each[0]) for each in gathered],
        "loaded_as": loaded_as,
        "shares": [each[1] / sum(weight.numel() for weight in expected.values()) for each in gathered],
        "buffers": [each[2] == own for each in gathered],
        "checksums": [each[3] == checksum for each in gathered],
        "tied": len(weights) == len({id(parameter) for parameter in wanted.parameters()}),
    }


if __name__ == "__main__":
    main()
