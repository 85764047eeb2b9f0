"""What benchmarks.fidelity prints."""

from collections.abc import Sequence
from typing import Any

from benchmarks.fidelity.students import Course
from benchmarks.fidelity.targets import FULL

# Is the first worse than the second?
ORDER = (
    ("topk_12_renormalised", "hard_label"),
    ("topk_50_renormalised", "hard_label"),
    ("topk_12_renormalised", "sampled_12"),
    ("topk_50_renormalised", "sampled_50"),
    ("topk_50_tail", "sampled_50"),
    ("hard_label", "sampled_50"),
    ("sampled_12", "full"),
    ("sampled_50", "full"),
    ("threshold_0.05", "full"),
    ("systematic_20", "full"),
    ("sampled_50", "threshold_0.05"),
    ("sampled_50", "systematic_20"),
    ("threshold_0.05", "systematic_20"),
    ("topk_64_tail", "full"),
    ("topk_64_tail", "threshold_0.05"),
    ("topk_64_tail", "systematic_20"),
)
MEASURES = {"loss": "held-out loss", "kl": "KL to teacher", "ece": "calibration error", "top1": "top-1 agreement"}


def show_gradients(result: dict[str, Any], stores: dict[str, Any], early: str) -> None:
    """Sizes, angles and norms of each target, for a student that has learned from `early` so far."""
    gradients = result["gradients"][early]
    numbers = gradients["hard_label"]
    print(f"gradients against full distillation, of a student trained on {early}: degrees, median (range)")
    titles = [f"head, {each['tokens']:,} tokens" for each in numbers.values()]
    heads = "".join(f"{title:>22}" for title in titles)
    print(f"{'':<22}{'B/token':>9}{'entries':>9}{heads}{'norm':>8}{'all, ' + list(numbers)[1]:>10}{'norm':>8}")
    for name, each in gradients.items():
        store = stores.get(name)
        size = f"{store['bytes_per_token']:>9.2f}{store['entries']:>9.1f}" if store else " " * 18
        cells = "".join(f"{ranged(at['angle_head'], '.2f'):>22}" for at in each.values())
        middle = list(each.values())[1]
        head, everything = middle["norm_head"]["median"], middle["norm_all"]["median"]
        print(f"{name:<22}{size}{cells}{head:>8.3f}{middle['angle_all']['median']:>10.2f}{everything:>8.3f}")
    for family, each in result["byte_ratios"].get(early, {}).items():
        ratios = ", ".join(f"{name} {ratio:.3f}" for name, ratio in each.items())
        print(f"bytes of {family} targets at the angle of 50 independent draws, over theirs: {ratios}")
    print(flush=True)


def show_students(result: dict[str, Any], title: str, course: Course) -> None:
    """Measures of students, and which order they are in."""
    seeds = len(next(iter(result.values()))["seeds"])
    seen = course.steps * course.batch
    print(
        f"\n{title}, {course.shape}: {seen:,} sequences, {seen / course.count:.1f} times over {course.count:,}; "
        f"median (range) over {seeds} seeds"
    )
    print(f"{'':<22}" + "".join(f"{MEASURES[name]:>26}" for name in MEASURES) + f"{'KL less full, by seed':>28}")
    for name, each in result.items():
        cells = "".join(f"{ranged(each[measure], '.4f'):>26}" for measure in MEASURES)
        more = f"{ranged(each['kl_less_full'], '+.4f'):>28}" if "kl_less_full" in each else ""
        print(f"{name:<22}{cells}{more}")
    for first, second in ORDER:
        if first in result and second in result:
            losses, kls = (order(result[first]["seeds"], result[second]["seeds"], m) for m in ("loss", "kl"))
            print(f"{first} worse than {second}? held-out loss: {losses}; KL: {kls}")
    if FULL.name in result:
        full = result[FULL.name]
        for name, each in result.items():
            if name.startswith(("threshold", "systematic")):
                inside = {m: "yes" if within(each[m], full[m]) else "NO" for m in ("loss", "kl")}
                print(f"{name} within the seeds of full: held-out loss {inside['loss']}, KL {inside['kl']}")
    print(flush=True)


def ranged(each: dict[str, float], form: str) -> str:
    return f"{each['median']:{form}} ({each['min']:{form}} {each['max']:{form}})"


def order(first: Sequence[dict[str, float]], second: Sequence[dict[str, float]], measure: str) -> str:
    """Whether one kind of student is worse than another, each seed against the same."""
    gaps = sorted(a[measure] - b[measure] for a in first for b in second if a["seed"] == b["seed"])
    if not gaps:
        return "not measured"
    verdict = "yes" if gaps[0] > 0 else "no, better" if gaps[-1] < 0 else "undecided"
    return f"{verdict} ({gaps[len(gaps) // 2]:+.4f}, {gaps[0]:+.4f} to {gaps[-1]:+.4f})"


def within(each: dict[str, float], full: dict[str, float]) -> bool:
    """Whether a median lies no further from full distillation's than the seeds of that lie apart."""
    return abs(each["median"] - full["median"]) <= full["max"] - full["min"]
