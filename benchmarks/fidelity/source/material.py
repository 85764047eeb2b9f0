"""What a study is made of: a teacher, and what it read of a text."""

from argparse import Namespace
from dataclasses import dataclass, replace

from benchmarks.fidelity.options import GROUP, GROUPS
from benchmarks.fidelity.source.teacher import Sequences, Teacher
from benchmarks.fidelity.source.text import load_texts
from cache.errors import InputError
from cache.examples.tokenizers import load_tokenizer


@dataclass(frozen=True, slots=True)
class Material:
    """A teacher and what it read: sequences for targets, others to warm a student up, and held-out ones."""

    teacher: Teacher
    sequences: Sequences
    warming: Sequences
    heldout: Sequences
    names: tuple[str, ...]

    def at(self, teacher: Teacher) -> "Material":
        return replace(self, teacher=teacher)


def material_of(options: Namespace) -> Material:
    count = options.steps * options.batch
    wanted = max(count, GROUP * GROUPS)
    if options.teacher is None:
        # It needs packages that a machine with a GPU need not have.
        from benchmarks.fidelity.source.library import library_teacher

        teacher, train, held = library_teacher(options.work / "teacher", options.length)
        held = held[: options.held_out]
        return Material(
            teacher, teacher.read(train[:wanted]), teacher.read(train[-count:]), teacher.read(held), ("library",)
        )
    texts = load_texts(
        options.text, load_tokenizer(str(options.teacher)), options.length, options.held_out, options.most
    )
    if len(texts.train) < GROUP * GROUPS:
        raise InputError(f"--text: {len(texts.train)} sequences are too few; at least {GROUP * GROUPS} are needed")
    teacher = Teacher.load(options.teacher, options.device)
    # Gradients are those of students that have seen other text.
    needed = wanted if options.no_gradients else wanted + count
    if len(texts.train) < needed:
        print(f"note: the text has {len(texts.train):,} sequences of {needed:,}, so some are seen again")
    read = teacher.read(texts.train[:needed], texts.train_kinds[:needed])
    warming = min(count, len(read))
    return Material(
        teacher, read.part(0, wanted), read.part(len(read) - warming, len(read)),
        teacher.read(texts.held, texts.held_kinds), texts.names,
    )  # fmt: skip
