"""The demo: one run, and its students over several seeds."""

from docs.generate.demo_table import table as demo_table
from docs.generate.measurements.results import origin, read, spread, table

SEEDS = {
    "heldout_loss": "loss on the ground truth, nats a token",
    "kl_to_teacher": "KL to the teacher, nats a token",
    "top1_agreement": "top-1 agreement with the teacher",
    "validity": "valid molecules of 200",
    "hit_ratio_all": "hits over all 200, loose",
}


def section() -> str:
    result = read("demo")
    seconds = result["stage_seconds"]
    stages = table(("stage", "seconds"), [(name, f"{value:.0f}") for name, value in seconds.items()])
    return (
        f"## The demo\n\n`make demo` on 2 cores without a GPU. `kd` is the distilled student, `ce` the same student with "
        f"hard labels: same initial weights, same examples, same order. The machine "
        f"did other work for some minutes of it.\n\n```\n{demo_table(result)}\n```\n\n{stages}\n\n"
        f"The stored values have a quantisation KL of {result['quantisation_kl']:.1e} nats. The teacher, run again "
        f"through Transformers and compared with what vLLM stored, differs by {result['teacher_kl_to_teacher']:.1e} nats: "
        f"rounding alone.\n\n{origin(['demo'])}\n\n{seeds()}"
    )


def seeds() -> str:
    result = read("demo_seeds")
    rows = []
    for name, label in SEEDS.items():
        measured = result[name]
        rows.append(
            (
                label,
                spread(measured["kd"], ".3f"),
                spread(measured["ce"], ".3f"),
                f"{measured['kd_better']} of {result['seeds']}",
            )
        )
    head = ("held-out, median (smallest to largest)", "distilled", "hard labels", "distilled better")
    return (
        f"### Over {result['seeds']} seeds\n\nBoth students, once for each seed, on the same store.\n\n"
        f"{table(head, rows)}\n\n{origin(['demo_seeds'])}\n"
    )
