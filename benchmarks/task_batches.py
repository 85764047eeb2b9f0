"""Must both tasks of an item be in one batch, as the published step-by-step distillation has them?

The noise of the gradient of alpha * label + (1 - alpha) * rationale over batches of both kinds: whole items, and a
random part of all examples. Noise is the mean squared distance from the mean gradient, relative to its squared length.
Needs examples of the task step_by_step and a student of them.

    python -m benchmarks.task_batches runs/step/examples/train.jsonl runs/step/task_prefix/model --save
"""

import argparse
import random
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.harness import finish
from cache.examples.files.jsonl import read_examples
from cache.examples.tokenizers import load_tokenizer
from cache.rendering.prompt_form import PromptForm
from student.data.batches import LanguageBatches
from student.data.settings import DataSettings
from student.data.sources import FileSource
from student.losses.normalisation import sum_coefficients, sum_row_weights
from student.losses.settings import LossSettings
from student.losses.target_forms import TargetForm
from student.losses.weighted_objectives import WeightedObjectives
from student.models.build import load_student
from student.models.loss_model import LossModel
from student.models.model_parts import layout_of

ALPHA = 0.5
TERMS = [
    {"objective": "hard_label", "weight": ALPHA, "where": {"task": "predict"}},
    {"objective": "hard_label", "weight": 1 - ALPHA, "where": {"task": "explain"}},
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("examples", type=Path)
    parser.add_argument("model")
    parser.add_argument("--items", type=int, default=32, help="items of a batch, with two examples each")
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results/")
    options = parser.parse_args()
    tokenizer = load_tokenizer(options.model)
    model = load_student(options.model, len(tokenizer), False)
    loss = LossSettings.model_validate({"terms": TERMS})
    data = DataSettings(examples=options.examples)
    source = FileSource(read_examples(options.examples), tokenizer, data, loss, PromptForm(has_encoder=True))
    batches = LanguageBatches(source, WeightedObjectives.of(loss, TargetForm("none")), layout_of(model, None))
    by_item: dict[str, list[int]] = {}
    for number, example in enumerate(source.all_texts()):
        by_item.setdefault(str(example.metadata["item"]), []).append(number)
    pairs = [numbers for numbers in by_item.values() if len(numbers) == 2]
    everything = [number for numbers in pairs for number in numbers]
    rng, loss_model = random.Random(0), LossModel(model, batches.objectives)
    results: dict[str, Any] = {"items": options.items, "batches": options.batches}
    drawn = {
        "whole_items": lambda: [number for pair in rng.sample(pairs, options.items) for number in pair],
        "random_examples": lambda: rng.sample(everything, 2 * options.items),
    }
    for name, draw in drawn.items():
        gradients = torch.stack([_gradient(loss_model, batches, draw()) for _ in range(options.batches)])
        mean = gradients.mean(0)
        results[name] = float(((gradients - mean) ** 2).sum(1).mean() / (mean**2).sum())
        print(f"{name:<18}{results[name]:>10.3f}", flush=True)
    finish("task_batches", results, options.save)


def _gradient(loss_model: LossModel, batches: LanguageBatches, examples: list[int]) -> torch.Tensor:
    """The gradient of the loss of one batch, float32 [parameters]."""
    loss_model.zero_grad()
    batch = batches.batch(examples)
    loss_model(batch, sum_coefficients(batches.objectives, sum_row_weights([batch]))).objective.backward()
    return torch.cat([weight.grad.flatten() for weight in loss_model.parameters() if weight.grad is not None])


if __name__ == "__main__":
    main()
