"""How faithful is each kind of sparse target to distillation from the whole vocabulary, and for how many bytes?

A biased target (top-k, renormalised or with its tail as one bucket) has an error that no amount of data removes. An
unbiased one (sampled, threshold) has variance, which a gradient over more tokens averages out. More bytes reduce both.
The limit is the teacher in the loop: its whole distribution for every token.

Systematic draws are at even distances from one random number (`targets.systematic`): unbiased as independent draws,
of the same size, and with the variance of rounding alone.

 1. Gradients: angle in degrees and ratio of norms to the dense float64 gradient of full distillation, at the LM head
    and over all parameters of a student early in training. Targets are written to a store and read back, losses are the
    product's. threshold_bytes_ratio, systematic_bytes_ratio: bytes of such targets at the head's angle of 50
    independent draws, over those of 50 independent draws.
 2. Students, one for each target and seed (its first weights and the order of the data): loss on held-out text, KL to
    the teacher, calibration error; in one pass over the data, and (--epochs) in several over as much less of it, so
    that stored draws are seen again.

The teacher is a small Llama trained on the sources of Python's standard library, in a few minutes and once. Its logits
are divided by a temperature that gives it the entropy of a sharp or of a flat distribution, or by none ("own"). Only
"own" is calibrated: a sharp or flat teacher is a poor model of real text. There the KL says what is learned, and the
loss beside hard labels says nothing. Students are small and see little data, so differences have a range over seeds.

    python -m benchmarks.fidelity --sharpness sharp
    python -m benchmarks.fidelity --teacher runs/library/teacher/model --examples runs/library/train.jsonl
    python -m benchmarks.fidelity --long --save
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.harness import finish
from benchmarks.fidelity.gradients import bytes_at, checks, full_gradients, stored_gradients
from benchmarks.fidelity.students import BATCH, Judged, judge, judge_teacher, summary, trained_student
from benchmarks.fidelity.tables import show_gradients, show_students
from benchmarks.fidelity.targets import FULL, HARD, TARGETS, Target, bare_windows, named_targets, write_stores
from benchmarks.fidelity.teacher import Sequences, Teacher, library_teacher, load_teacher
from cache.errors import LogitbankError
from cache.rows.record import Window
from cache.rows.spec import TargetSpec

# Mean entropy in nats that the temperature is solved for; None leaves the teacher as it is.
ENTROPIES: dict[str, float | None] = {"sharp": 1.3, "flat": 4.6, "own": None}
MAIN = "hard_label,full,topk_12_renormalised,topk_50_renormalised,topk_50_tail,sampled_50,threshold_0.05,systematic_20"
LONG = f"{MAIN},topk_12_tail,sampled_12,threshold_0.1,systematic_50"
# Of the second study: stored draws, and what they are compared with.
EPOCH_MODES = "hard_label,full,sampled_50,threshold_0.05,systematic_20"
# Sequences of one gradient, and gradients: about 2,000 tokens, 16 times. Means over 4 and 16 of them are the others,
# and that over 4 is the one that is quoted.
GROUP, GROUPS, JOINED, QUOTED = 8, 16, (1, 4, 16), 4
HELD_OUT, EARLY_SEED = 64, 1000
# What the students early in training have learned from that gradients are taken of. The second gives what is quoted:
# one that knows real text alone has first to learn the teacher's temperature, and all gradients agree on that.
EARLY = (HARD, FULL)
REFERENCE = "sampled_50"
FAMILIES = ("threshold", "systematic")

Windows = dict[TargetSpec | None, list[Window]]


def main() -> None:
    options = parse(sys.argv[1:])
    torch.set_num_threads(1)
    try:
        results = run(options, named_targets(options.modes))
    except LogitbankError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        sys.exit(2)
    finish("fidelity", results, options.save, "fidelity" if options.long else f"fidelity_{options.sharpness}")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, help="folder of a causal model (default: one that is trained here)")
    parser.add_argument("--examples", type=Path, help="its text, JSON Lines; each 50th example is held out")
    parser.add_argument("--work", type=Path, default=Path("runs/fidelity"), help="where a teacher trained here is kept")
    parser.add_argument("--sharpness", choices=[*ENTROPIES, "both", "all"], help="default: sharp; with --long all")
    parser.add_argument("--seeds", type=int, default=3, help="students of each kind; 0 leaves them out")
    parser.add_argument("--steps", type=int, default=240, help=f"of {BATCH} sequences, for students")
    parser.add_argument("--epochs", type=int, help="of the second study; 0 leaves it out, as without --long")
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence")
    parser.add_argument("--modes", help=f"of students (default: {MAIN})")
    parser.add_argument("--long", action="store_true", help="every sharpness, more modes, and 4 epochs too")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args(arguments)
    if (options.teacher is None) != (options.examples is None):
        parser.error("--teacher and --examples go together")
    for name in ("steps", "length"):
        if getattr(options, name) < 2:
            parser.error(f"--{name} must be at least 2")
    options.sharpness = options.sharpness or ("all" if options.long else "sharp")
    options.modes = options.modes or (LONG if options.long else MAIN)
    options.epochs = (4 if options.long else 0) if options.epochs is None else options.epochs
    return options


def run(options: argparse.Namespace, students: Sequence[Target]) -> dict[str, Any]:
    if options.teacher:
        plain, train, held = load_teacher(options.teacher, options.examples, options.length)
    else:
        plain, train, held = library_teacher(options.work / "teacher", options.length)
    count = options.steps * BATCH
    sequences, heldout = plain.read(train[: max(count, GROUP * GROUPS)]), plain.read(held[:HELD_OUT])
    print(
        f"teacher {options.teacher or options.work / 'teacher'}, vocabulary {plain.vocab_size:,}; "
        f"{len(sequences):,} sequences of {options.length} tokens, {len(heldout)} held out"
    )
    if len(train) < len(sequences) + count:
        print(f"note: only {len(train):,} sequences; the early student has seen some that gradients are taken on")
    warming = plain.read(train[-count:])
    early = {HARD.name: early_student(HARD, plain, warming, options.steps)}
    results: dict[str, Any] = {"vocab": plain.vocab_size, "length": options.length, "steps": options.steps}
    results["checks"] = checks(early[HARD.name], plain, sequences)
    print("checks: " + json.dumps({name: round(value, 4) for name, value in results["checks"].items()}), flush=True)
    kinds = {"both": ["sharp", "flat"], "all": list(ENTROPIES)}.get(options.sharpness, [options.sharpness])
    hard: dict[tuple[int, int], Any] = {}
    for kind in kinds:
        started = time.process_time()
        entropy = ENTROPIES[kind]
        teacher = plain if entropy is None else plain.at_entropy(entropy, heldout)
        own = judge_teacher(teacher, heldout)
        print(
            f"\n{kind} teacher: logits divided by {teacher.temperature:.3f}; on held-out text entropy "
            f"{own['entropy']:.2f} nats, loss {own['loss']:.3f}, calibration error {own['ece']:.3f}",
            flush=True,
        )
        result = {"temperature": teacher.temperature, "teacher": own}
        early[FULL.name] = early_student(FULL, teacher, warming, options.steps)
        result |= study(options, teacher, sequences, heldout, early, students, hard)
        results[kind] = {**result, "cpu_seconds": time.process_time() - started}
        for family in FAMILIES:
            results[f"{family}_bytes_ratio_{kind}"] = result[f"{family}_bytes_ratio"]
    return results


def early_student(target: Target, teacher: Teacher, sequences: Sequences, steps: int) -> Any:
    """A student early in training, on text that gradients are not taken on."""
    windows = bare_windows(sequences.tokens)
    return trained_student(target, windows, teacher, sequences.hidden, steps, EARLY_SEED)


def study(
    options: argparse.Namespace,
    teacher: Teacher,
    sequences: Sequences,
    heldout: Sequences,
    early: dict[str, Any],
    students: Sequence[Target],
    hard: dict[tuple[int, int], Any],
) -> dict[str, Any]:
    """Gradients and students of one teacher. hard: students of real tokens, the same for every teacher."""
    specs = list(dict.fromkeys(target.spec for target in TARGETS if target.spec))
    with tempfile.TemporaryDirectory(prefix="logitbank-") as folder:
        stored = write_stores(Path(folder), teacher, sequences, specs)
    windows: Windows = {spec: each.windows for spec, each in stored.items()}
    windows[None] = bare_windows(sequences.tokens)
    result: dict[str, Any] = {
        "stores": {target.name: stored[target.spec].figures for target in TARGETS if target.spec},
        "gradients": {target.name: gradient_study(teacher, sequences, early[target.name], windows) for target in EARLY},
    }
    result["byte_ratios"] = {
        name: {family: bytes_ratios(result["stores"], each, family) for family in FAMILIES}
        for name, each in result["gradients"].items()
    }
    for family in FAMILIES:
        result[f"{family}_bytes_ratio"] = result["byte_ratios"][EARLY[-1].name][family][f"angle_head_{QUOTED}x"]
    for name in result["gradients"]:
        show_gradients(result, name)
    again = [target for target in students if target in named_targets(EPOCH_MODES)]
    for name, epochs, chosen in (("students", 1, students), ("students_epochs", options.epochs, again)):
        if epochs and options.seeds:
            result[name] = student_study(options, epochs, teacher, sequences, heldout, chosen, windows, hard)
            show_students(result[name], epochs, options.steps * BATCH)
    return result


def gradient_study(teacher: Teacher, sequences: Sequences, early: Any, windows: Windows) -> dict[str, Any]:
    """Gradients of each target against the full ones, by the number of tokens."""
    count, rows = GROUP * GROUPS, sequences.tokens.shape[1] - 1
    full = full_gradients(early, teacher, sequences.first(count), GROUP)
    result: dict[str, Any] = {}
    for target in TARGETS:
        ours = stored_gradients(early, target.objectives, windows[target.spec][:count], GROUP)
        result[target.name] = {
            f"{n}x": {"tokens": n * GROUP * rows, "gradients": GROUPS // n, **ours.joined(n).against(full.joined(n))}
            for n in JOINED
        }
    return result


def bytes_ratios(stores: dict[str, Any], gradients: dict[str, Any], family: str) -> dict[str, float]:
    """Bytes of a family at the angle of 50 draws over theirs, by number of tokens; NaN where out of range."""
    ratios: dict[str, float] = {}
    for where in ("angle_head", "angle_all"):
        for number, draws in gradients[REFERENCE].items():
            curve = [
                (stores[name]["bytes_per_token"], each[number][where]["median"])
                for name, each in gradients.items()
                if name.startswith(family)
            ]
            result = bytes_at(draws[where]["median"], curve)
            ratios[f"{where}_{number}"] = result / stores[REFERENCE]["bytes_per_token"]
    return ratios


def student_study(
    options: argparse.Namespace,
    epochs: int,
    teacher: Teacher,
    sequences: Sequences,
    heldout: Sequences,
    students: Sequence[Target],
    windows: Windows,
    hard: dict[tuple[int, int], Any],
) -> dict[str, Any]:
    """Students of each target over seeds, `epochs` times over as much less data: the number of steps stays."""
    count = options.steps * BATCH // epochs
    judged: dict[str, list[Judged]] = {target.name: [] for target in students}
    for seed in range(options.seeds):
        for target in students:
            student = hard.get((epochs, seed)) if target == HARD else None
            if student is None:
                own = windows[target.spec][:count]
                student = trained_student(target, own, teacher, sequences.hidden, options.steps, seed)
            if target == HARD:
                hard[epochs, seed] = student
            judged[target.name].append(judge(student, teacher, heldout))
    return {name: summary(each, judged.get(FULL.name, [])) for name, each in judged.items()}


if __name__ == "__main__":
    main()
