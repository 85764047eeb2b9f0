"""The studies of one teacher: stores, gradients, students."""

import json
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from benchmarks.fidelity.gradients import bytes_at, checks, full_gradients, stored_gradients
from benchmarks.fidelity.options import EPOCHS, GROUP, GROUPS
from benchmarks.fidelity.rows import Windows, bare_windows, windows_of
from benchmarks.fidelity.seeds import Job, all_seeds
from benchmarks.fidelity.source.material import Material
from benchmarks.fidelity.source.teacher import Sequences, Teacher
from benchmarks.fidelity.students import Course, summary, trained_student
from benchmarks.fidelity.tables import show_gradients, show_students
from benchmarks.fidelity.targets import FULL, HARD, REAL, SMALL, Target, named_targets
from benchmarks.fidelity.training import StudentShape

# Means over so many of the gradients are compared, too, and that over 4 is the one that is quoted.
JOINED, QUOTED = (1, 4, 16), 4
EARLY_SEED = 1000
# What the students early in training have learned from that gradients are taken of. The second gives what is quoted:
# one that knows real text alone has first to learn the teacher's temperature, and all gradients agree on that.
EARLY = (HARD, FULL)
REFERENCE = "sampled_50"
FAMILIES = ("threshold", "systematic")


def targets_of(options: Namespace) -> tuple[Target, ...]:
    """The kinds of targets whose bytes and gradients are measured."""
    return REAL if options.teacher else SMALL


def stores_of(options: Namespace, material: Material) -> dict[str, Any]:
    """A store of each kind of target that the product has, by the target's name; none on a GPU."""
    if options.device == "cuda" or options.no_stores:
        return {}
    # The store needs packages that a machine with a GPU need not have.
    from benchmarks.fidelity.stores import write_stores

    targets = [target for target in targets_of(options) if target.rows]
    stored = write_stores(material.teacher, material.sequences, list({t.rows: None for t in targets if t.rows}))
    return {target.name: stored[target.rows] for target in targets if target.rows in stored}


def early_student(options: Namespace, material: Material, target: Target) -> Any:
    """A student early in training, on text that gradients are not taken on."""
    warming, shape = material.warming, StudentShape.parse(options.student[0])
    course = Course(shape, options.steps, options.batch, len(warming))
    return trained_student(target, bare_windows(warming.tokens), material.teacher, warming.hidden, course, EARLY_SEED)


def gradients_of(options: Namespace, material: Material, stores: dict[str, Any]) -> dict[str, Any]:
    """Gradients of each target for students early in training, and bytes at equal angles."""
    count = GROUP * GROUPS
    few = material.sequences.part(0, count)
    targets = targets_of(options)
    read = [t for t in targets if t.rows and t.rows.is_product and t.name in stores]
    windows: Windows = windows_of(material.teacher, few, [t.rows for t in targets if t.rows and t not in read])
    windows |= {t.rows: stores[t.name].windows[:count] for t in read}
    windows[None] = bare_windows(few.tokens)
    result: dict[str, Any] = {"gradients": {}, "byte_ratios": {}}
    figures = {name: each.figures for name, each in stores.items()}
    for early in EARLY:
        student = early_student(options, material, early)
        if early == HARD:
            result["checks"] = checks(student, material.teacher, few)
            print(
                "checks: " + json.dumps({name: round(value, 4) for name, value in result["checks"].items()}), flush=True
            )
        result["gradients"][early.name] = gradient_study(material.teacher, few, student, windows, targets)
        if figures:
            result["byte_ratios"][early.name] = {
                family: bytes_ratios(figures, result["gradients"][early.name], family) for family in FAMILIES
            }
        show_gradients(result, figures, early.name)
    if figures:
        quoted = result["byte_ratios"][FULL.name]
        result["bytes_ratio"] = {family: quoted[family][f"angle_head_{QUOTED}x"] for family in FAMILIES}
    return result


def gradient_study(
    teacher: Teacher, sequences: Sequences, student: Any, windows: Windows, targets: tuple[Target, ...]
) -> dict[str, Any]:
    """Gradients of each target against the full ones, by the number of tokens."""
    rows = sequences.tokens.shape[1] - 1
    full = full_gradients(student, teacher, sequences, GROUP)
    result: dict[str, Any] = {}
    for target in targets:
        ours = stored_gradients(student, target.objectives, windows[target.rows], GROUP)
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


def students_of(options: Namespace, material: Material, stores: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Students of each target over seeds, course by course; of each course again when a further seed has ended."""
    if not options.seeds:
        return
    targets = named_targets(options.modes)
    again = tuple(target for target in targets if target in named_targets(EPOCHS))
    count = min(options.steps * options.batch, len(material.sequences))
    jobs: list[Job] = []
    for number, shape in enumerate(map(StudentShape.parse, options.student)):
        name = "students" if number == 0 else f"students_{shape.name}"
        jobs.append(Job(name, Course(shape, options.steps, options.batch, count), targets))
        if options.epochs:
            less = Course(shape, options.steps, options.batch, count // options.epochs)
            jobs.append(Job(f"{name}_epochs", less, again))
    windows: Windows = {each.rows: stores[each.name].windows for each in targets if each.name in stores}
    names = {job.name: job for job in jobs}
    done: dict[str, dict[str, Any]] = {}
    for name, judged in all_seeds(options, material, windows, jobs):
        result = {target: summary(each, judged.get(FULL.name, [])) for target, each in judged.items()}
        done[name] = result
        yield name, result
    for name, result in done.items():
        show_students(result, name, names[name].course)
