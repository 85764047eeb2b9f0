"""Fidelity on a real teacher: bytes, angles and students of each kind of target."""

from typing import Any

from docs.generate.measurements.results import origin, read, spread, table

STORES, GRADIENTS, STUDENTS = "fidelity_real_cpu", "fidelity_real_gradients", "fidelity_real_cuda"
LABELS = {
    "full": "the teacher in the loop",
    "hard_label": "hard labels",
    "topk_16_tail": "top-16",
    "topk_64_tail": "top-64",
    "topk_128_tail": "top-128",
    "nucleus_0.9": "nucleus 0.9, at most 128",
    "nucleus_0.98": "nucleus 0.98, at most 128",
    "sampled_12": "12 independent draws",
    "sampled_20": "20 independent draws",
    "sampled_50": "50 independent draws",
    "threshold_0.1": "threshold 0.1",
    "threshold_0.05": "threshold 0.05",
    "threshold_0.025": "threshold 0.025",
    "systematic_12": "12 systematic draws",
    "systematic_20": "20 systematic draws",
    "systematic_50": "50 systematic draws",
    "exact_0.2_draws_0.05": "exact from 0.2, draws of 0.05 below (no mode)",
    "exact_0.0125_draws_0.05": "exact from 0.0125, draws of 0.05 below (no mode)",
}
COURSES = ("students", "students_epochs")

TEXT = """\
SmolLM2-135M-Instruct (V = 49,152; the weights of its 4-bit GGUF file, as float32) at temperature 1, on three kinds of
text: worked problems (GSM8K), dialogues (MTS-Dialog with summaries, ACI-BENCH visits), notes (ACI-BENCH). Sequences have
256 tokens, and every token has a target. Top-k and nucleus targets have their tail as one outcome. Bytes are those of
stores that the product wrote, with all files of the parts, of units that the codebook was not learned from; these
stores are small, and so are their codebooks. The angle lies between the gradient from these targets and the gradient from
the whole distribution, of a student early in training: at the LM head over 8,000 and over 33,000 tokens, and for all
parameters over 8,000. Two of the rows are no modes of the product. They were tried, and are not better for their bytes.
"""
STUDENT_TEXT = """\
A student is made of the teacher's first 10 of 30 layers, its embeddings and its head. It takes 300 steps of 16 sequences:
once over 4,800 sequences, or four times over a quarter of them, where stored draws are seen again. Targets went from the
reduction to the student on one GPU, without a store and its rounding. Values are for held-out text, the median of 3 seeds
(smallest to largest): KL to the whole teacher in nats a token, the same less that of the student with the teacher in the
loop and the same seed, and the share of tokens where student and teacher have the same most likely token. Students of 50
draws, of the top 16 and of hard labels were trained in one pass alone. There was no time for the second shape that the
command names.
"""


def section() -> str:
    stores, gradients, students = (read(name)["own"] for name in (STORES, GRADIENTS, STUDENTS))
    return (
        f"### A real teacher\n\n{TEXT}\n{_gradients(stores['stores'], gradients['gradients']['full'])}\n\n"
        f"{STUDENT_TEXT}\n"
        + "".join(_students(students[course]) for course in COURSES)
        + f"{_by_text(read(STUDENTS))}\n\n"
        f"{_reading(stores['stores'], students)}\n\n{origin((STORES, GRADIENTS, STUDENTS))}\n"
    )


def _gradients(stores: dict[str, Any], gradients: dict[str, Any]) -> str:
    rows = []
    for name, label in LABELS.items():
        if name not in gradients:
            continue
        store = stores.get(name)
        size = (f"{store['bytes_per_token']:.1f}", f"{store['entries']:.1f}") if store else ("", "")
        places = (("4x", "angle_head"), ("16x", "angle_head"), ("4x", "angle_all"))
        angles = (f"{gradients[name][number][where]['median']:.1f}°" for number, where in places)
        rows.append((label, *size, *angles))
    titles = ("targets", "B/token", "entries", "head, 8,000 tokens", "head, 33,000 tokens", "all, 8,000 tokens")
    return table(titles, rows)


def _students(results: dict[str, Any]) -> str:
    times = "once" if "topk_16_tail" in results else "4 × a quarter"
    rows = [
        (
            label,
            spread(results[name]["kl"], ".3f"),
            spread(results[name]["kl_less_full"], "+.3f"),
            spread(results[name]["top1"], ".3f"),
            spread(results[name]["loss"], ".3f"),
        )
        for name, label in LABELS.items()
        if name in results
    ]
    titles = (f"students of, {times}", "KL to the teacher", "less the teacher in the loop", "top-1", "loss on text")
    return table(titles, rows) + "\n\n"


def _by_text(file: dict[str, Any]) -> str:
    """KL of the students of one pass on each text."""
    rows = []
    for name, label in LABELS.items():
        if name in file["own"]["students"]:
            seeds = [each["kl_by_text"] for each in file["own"]["students"][name]["seeds"]]
            rows.append((label, *(f"{sorted(column)[len(column) // 2]:.3f}" for column in zip(*seeds, strict=True))))
    return "Their KL on each kind of text, in the first study:\n\n" + table(("students of", *file["texts"]), rows)


def _reading(stores: dict[str, Any], students: dict[str, Any]) -> str:
    size = {name: each["bytes_per_token"] for name, each in stores.items()}
    once, again = ({n: each["kl_less_full"]["median"] for n, each in students[course].items()} for course in COURSES)
    top1 = {name: each["top1"]["median"] for name, each in students["students_epochs"].items()}
    loss = {name: each["loss"]["median"] for name, each in students["students_epochs"].items()}
    return f"""\
- In one pass, students of 50 and of 20 systematic draws end nearer to the teacher than students of the top 64, in each
  seed, and take {size["systematic_50"] / size["topk_64_tail"]:.2f} and {size["systematic_20"] / size["topk_64_tail"]:.2f}
  of their bytes. What is missing to the teacher in the loop is {once["systematic_50"]:.3f} and
  {once["systematic_20"]:.3f} nats, and {once["topk_64_tail"]:.3f} for the top 64.
- Draws that are seen four times still do better by KL: {again["systematic_20"]:.3f} nats are missing for 20 systematic
  draws, {again["threshold_0.05"]:.3f} for the threshold, {again["topk_64_tail"]:.3f} for the top 64.
- Students of the top 64 agree as often or more often on the most likely token: {top1["topk_64_tail"]:.3f} against
  {top1["systematic_20"]:.3f} after four passes, where their loss on text is lower, too
  ({loss["topk_64_tail"]:.3f} against {loss["systematic_20"]:.3f}). Top-k targets are exact where that is decided.
- Hard labels give the lowest loss on text and by far the largest KL: this teacher's own loss on these texts is higher than
  what a student reaches that learns them."""
