"""The command line of benchmarks.fidelity."""

import argparse
from collections.abc import Sequence
from pathlib import Path

# Mean entropy in nats that the temperature is solved for; None leaves the teacher as it is.
ENTROPIES: dict[str, float | None] = {"sharp": 1.3, "flat": 4.6, "own": None}
MAIN = "hard_label,full,topk_12_renormalised,topk_50_renormalised,topk_50_tail,sampled_50,threshold_0.05,systematic_20"
LONG = f"{MAIN},topk_12_tail,sampled_12,threshold_0.1,systematic_50"
# Of students of a real teacher.
REAL = "hard_label,full,topk_64_tail,threshold_0.05,systematic_20"
# Of the second study: stored draws, and what they are compared with.
EPOCHS = "hard_label,full,topk_64_tail,sampled_50,threshold_0.05,systematic_20,systematic_50"

# Sequences of one gradient, and gradients: about 2,000 tokens, 16 times.
GROUP, GROUPS = 8, 16


def parse(arguments: Sequence[str], manual: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=manual, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, help="folder of a causal model (default: one that is trained here)")
    parser.add_argument(
        "--text", nargs="+", help="NAME=FILE or NAME=FILE:COLUMN+COLUMN, CSV or JSON Lines; for --teacher"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/fidelity"), help="where a teacher trained here is kept")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda writes no stores, so no bytes")
    parser.add_argument("--sharpness", choices=[*ENTROPIES, "both", "all"], help="default: sharp; with --long all")
    parser.add_argument("--seeds", type=int, default=3, help="students of each kind; 0 leaves them out")
    parser.add_argument("--jobs", type=int, default=1, help="processes that train students, each one seed at a time")
    parser.add_argument("--minutes", type=float, help="after so long no further student is begun")
    parser.add_argument("--steps", type=int, default=240, help="of --batch sequences, for students")
    parser.add_argument("--batch", type=int, default=4, help="sequences of a step")
    parser.add_argument("--epochs", type=int, help="of the second study; 0 leaves it out, as without --long")
    parser.add_argument("--student", nargs="+", default=["64x2@6e-3"], help="WIDTHxLAYERS@RATE or first:LAYERS@RATE")
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence")
    parser.add_argument("--held-out", type=int, default=64, help="sequences that are held out, of each text")
    parser.add_argument("--most", type=int, help="sequences of each text for training")
    parser.add_argument("--no-stores", action="store_true", help="targets straight from the reduction, and no bytes")
    parser.add_argument("--no-gradients", action="store_true")
    parser.add_argument("--modes", help=f"of students (default: {MAIN}; with --teacher {REAL})")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--long", action="store_true", help="every sharpness, more modes, and 4 epochs too")
    parser.add_argument("--output", type=Path, help="write the results there, too, as they come")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args(arguments)
    if (options.teacher is None) != (options.text is None):
        parser.error("--teacher and --text go together")
    for name in ("steps", "length"):
        if getattr(options, name) < 2:
            parser.error(f"--{name} must be at least 2")
    if options.teacher:
        options.sharpness, options.modes = options.sharpness or "own", options.modes or REAL
    options.sharpness = options.sharpness or ("all" if options.long else "sharp")
    options.modes = options.modes or (LONG if options.long else MAIN)
    options.epochs = (4 if options.long else 0) if options.epochs is None else options.epochs
    return options
