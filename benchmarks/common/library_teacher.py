"""A teacher with a large vocabulary for benchmarks: a small Llama trained on the sources of Python's standard library.

Rows of an untrained model are nothing like a teacher's, and no model hub is needed for this one. About 25 minutes on
two cores; continues where it was stopped.

    python -m benchmarks.common.library_teacher --output runs/library
"""

import argparse
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from cache.examples.example import Example
from cache.examples.files.jsonl import write_examples
from cluster.training.driver import run_training
from student.training.settings import TrainSettings

PROMPT_CHARACTERS, EXAMPLE_CHARACTERS = 400, 1600
HELD_OUT_EVERY = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/library"))
    parser.add_argument("--vocab", type=int, default=32768)
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args()
    folder = options.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    examples = list(library_examples())
    write_examples(folder / "train.jsonl", (e for i, e in enumerate(examples) if i % HELD_OUT_EVERY))
    write_examples(folder / "heldout.jsonl", examples[::HELD_OUT_EVERY])
    settings = TrainSettings.model_validate(
        {
            "output": folder / "teacher",
            "data": {"examples": folder / "train.jsonl", "max_tokens": 768},
            "tokenizer": {"vocab_size": options.vocab},
            "model": {
                "config": {
                    "model_type": "llama",
                    "hidden_size": 192,
                    "num_hidden_layers": 4,
                    "num_attention_heads": 6,
                    "num_key_value_heads": 6,
                    "intermediate_size": 512,
                    "max_position_embeddings": 1024,
                    "tie_word_embeddings": True,
                }
            },
            "loss": {"objective": "hard_label", "segments": {"prompt": 1.0}},
            "optimizer": {"lr": 0.003},
            "run": {
                "steps": options.steps,
                "batch_size": 16,
                "micro_batch_size": 4,
                "ranks": 2,
                "checkpoint_every": 25,
            },
        }
    )
    run_training(settings, None)
    print(folder / "teacher" / "model")


def library_examples() -> Iterator[Example]:
    """Pieces of the library's modules, cut at line ends: the first lines are the prompt, the rest the response."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if {"site-packages", "test", "tests", "idlelib", "lib2to3", "encodings"} & set(name.parts):
            continue
        lines = path.read_text(encoding="utf-8", errors="ignore").splitlines(keepends=True)
        prompt, response, number = "", "", 0
        for line in lines:
            if len(prompt) < PROMPT_CHARACTERS:
                prompt += line
            else:
                response += line
            if len(prompt) + len(response) > EXAMPLE_CHARACTERS:
                yield Example(f"{name}:{number}", ({"role": "user", "content": prompt},), response=response)
                prompt, response, number = "", "", number + 1


if __name__ == "__main__":
    main()
