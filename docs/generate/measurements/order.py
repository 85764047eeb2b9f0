"""The order of training examples: what reading costs, how fair a step is, and what students learn."""

from docs.generate.measurements.results import origin, read, spread, table


def section() -> str:
    result, students = read("order"), read("order_students")
    seeds = len(students["cases"]["sortedfull"]["losses"])
    return (
        "## The order of examples\n\n"
        "Reading in steps of 64 examples from a store of many windows (k = 64, V = 151,936), in M tokens a CPU second: "
        'each example alone (`data.order = "full"`), in shuffled blocks of neighbours (the default), and in the order of '
        "the store, which is the limit. A rank of eight reads an eighth of each step; its own tokens count.\n\n"
        f"{_reading(result)}\n\n"
        "CPU time to find the 64 examples of a step, in ms. `sorted` is a sort of the whole data set, which an earlier "
        f"version needed at every step.\n\n{_finding(result)}\n\n"
        "How much the mean of a quantity over a step, and over 16 steps in a row, varies: standard deviation by that of "
        "the full shuffle. The store has 4 million examples in blocks of 30, and is sorted by the quantity itself, so all "
        "examples of a block are alike: the worst case. The last column is the expected number of other examples of its "
        f"block that an example has in its step. The default has 1,024 blocks at both sizes of a batch.\n\n{_sampling(result)}\n\n"
        f"The demo's student, one epoch in steps of 64, with {seeds} seeds: the held-out loss in nats. Units of the sorted "
        "store are sorted by task and length. By default the window would have the whole store. So the windows are smaller here: "
        "they have one block for each example of a batch, or four, which is the least that the default has.\n\n"
        f"{_students(students)}\n\n"
        f"{origin(['order', 'order_students'])}\n"
    )


def _reading(result: dict) -> str:  # type: ignore[type-arg]
    names = ("full", "blocks", "sequence", "full_of_8", "blocks_of_8")
    rows = [
        (
            str(each["document"]),
            str(each["block"]),
            *(spread({key: value / 1e6 for key, value in each[name].items()}, ".3f", ".2f") for name in names),
        )
        for each in result["reading"]
    ]
    head = (
        "tokens of a document",
        "documents of a block",
        "full",
        "blocks",
        "in order",
        "1 of 8: full",
        "1 of 8: blocks",
    )
    return table(head, rows)


def _finding(result: dict) -> str:  # type: ignore[type-arg]
    rows = [
        (f"{each['examples']:,}", *(f"{1e3 * each[name]['median']:,.2f}" for name in ("sorted", "full", "blocks")))
        for each in result["finding"]
    ]
    return table(("examples", "sorted", "full", "blocks"), rows)


def _sampling(result: dict) -> str:  # type: ignore[type-arg]
    rows = [
        (
            each["store"],
            str(each["batch"]),
            f"{each['window']:,}",
            f"{each['step_ratio']:.2f}",
            f"{each['stretch_ratio']:.2f}",
            f"{each['mates']:.2f}",
        )
        for each in result["sampling"]
    ]
    return table(("store", "examples of a step", "blocks of a window", "step", "16 steps", "others of its block"), rows)


def _students(result: dict) -> str:  # type: ignore[type-arg]
    rows = []
    for case in result["cases"].values():
        blocks = case["blocks_of_an_example"]
        order = "full" if blocks is None else f"blocks, {blocks:g} for each example of a batch"
        rows.append(("sorted" if case["sorted"] else "as captured", order, spread(case["loss"], ".4f")))
    return table(("store", "order", "held-out loss"), rows)
