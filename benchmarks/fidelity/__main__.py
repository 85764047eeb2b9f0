"""How faithful is each kind of sparse target to distillation from the whole vocabulary, and for how many bytes?

A biased target (top-k, renormalised or with its tail as one bucket) has an error that no amount of data removes. An
unbiased one (sampled, threshold) has variance, which a gradient over more tokens averages out. More bytes reduce both.
The limit is the teacher in the loop: its whole distribution for every token.

Systematic draws are at even distances from one random number (`targets.systematic`): unbiased as independent draws,
of the same size, and with the variance of rounding alone.

 1. Gradients: angle in degrees and ratio of norms to the dense float64 gradient of full distillation, at the LM head
    and over all parameters of a student early in training. On a CPU, targets are written to a store and read back.
    Losses are the product's. threshold_bytes_ratio, systematic_bytes_ratio: bytes of such targets at the head's angle
    of 50 independent draws, over those of 50 independent draws.
 2. Students, one for each target and seed (its first weights and the order of the data): loss on held-out text, KL to
    the teacher, calibration error; in one pass over the data, and (--epochs) in several over as much less of it, so
    that stored draws are seen again.

Without --teacher, the teacher is a small Llama trained on the sources of Python's standard library, in a few minutes
and once. Its logits are divided by a temperature that gives it the entropy of a sharp or of a flat distribution, or by
none ("own"). Only "own" is calibrated: a sharp or flat teacher is a poor model of real text. There the KL says what is
learned, and the loss beside hard labels says nothing. With --teacher it is any causal model on any text, as it is.
Students are small and see little data, so differences have a range over seeds. On a GPU (--device cuda) PyTorch and
Transformers are enough: no store is written there.

    python -m benchmarks.fidelity --sharpness sharp
    python -m benchmarks.fidelity --teacher FOLDER --text problems=train.jsonl:question+answer notes=notes.csv:note
    python -m benchmarks.fidelity --long --save
"""

import sys
import time
from argparse import Namespace
from typing import Any

import torch

from benchmarks.common.harness import finish, origin
from benchmarks.fidelity.options import ENTROPIES, parse
from benchmarks.fidelity.seeds import set_up
from benchmarks.fidelity.source.material import material_of
from benchmarks.fidelity.students import judge_teacher
from benchmarks.fidelity.studies import gradients_of, stores_of, students_of
from benchmarks.fidelity.targets import named_targets
from cache.errors import LogitbankError
from cache.json_documents import write_json


def main() -> None:
    options = parse(sys.argv[1:], __doc__)
    set_up(options)
    kind = f"real_{options.device}" if options.teacher else options.sharpness
    try:
        named_targets(options.modes)
        results = run(options)
    except LogitbankError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        sys.exit(2)
    finish("fidelity", results, options.save, "fidelity" if options.long else f"fidelity_{kind}")


def run(options: Namespace) -> dict[str, Any]:
    material = material_of(options)
    sequences, heldout = material.sequences, material.heldout
    print(
        f"teacher {options.teacher or options.work / 'teacher'}, vocabulary {material.teacher.vocab_size:,}; "
        f"{len(sequences):,} sequences of {options.length} tokens, {len(heldout)} held out",
        flush=True,
    )
    results: dict[str, Any] = {
        "vocab": material.teacher.vocab_size,
        "length": options.length,
        "steps": options.steps,
        "batch": options.batch,
        "students": options.student,
        "texts": dict(zip(material.names, sequences.kinds.bincount().tolist(), strict=True)),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
    }
    kinds = {"both": ["sharp", "flat"], "all": list(ENTROPIES)}.get(options.sharpness, [options.sharpness])
    for kind in kinds:
        started = time.monotonic()
        entropy = ENTROPIES[kind]
        teacher = material.teacher if entropy is None else material.teacher.at_entropy(entropy, heldout)
        own = judge_teacher(teacher, heldout)
        print(
            f"\n{kind} teacher: logits divided by {teacher.temperature:.3f}; on held-out text entropy "
            f"{own['entropy']:.2f} nats, loss {own['loss']:.3f}, calibration error {own['ece']:.3f}",
            flush=True,
        )
        result: dict[str, Any] = {"temperature": teacher.temperature, "teacher": own}
        results[kind] = result
        here = material.at(teacher)
        stores = stores_of(options, here)
        result["stores"] = {name: each.figures for name, each in stores.items()}
        write(options, results)
        if not options.no_gradients:
            result |= gradients_of(options, here, stores)
            write(options, results)
        for name, study in students_of(options, here, stores):
            result[name] = study
            write(options, results)
        result["seconds"] = time.monotonic() - started
        for family, ratio in result.get("bytes_ratio", {}).items():
            results[f"{family}_bytes_ratio_{kind}"] = ratio
    write(options, results)
    return results


def write(options: Namespace, results: dict[str, Any]) -> None:
    """The results so far, if --output asks for them."""
    if options.output:
        write_json(options.output, {**origin("fidelity"), **results})


if __name__ == "__main__":
    main()
