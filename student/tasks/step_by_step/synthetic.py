"""Synthetic word problems from a small grammar: each has an equation, and a rationale that leads to it.

They stand in for SVAMP where no data are given. Figures on them are figures on a grammar, and say nothing of SVAMP.
Numbers are small, so that a small student learns in minutes to copy them.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from cache.answers.equations import evaluate_equation
from student.tasks.step_by_step.items import Item

NAMES = ("Ann", "Ben", "Carla", "David", "Emma", "Farid", "Grace", "Hugo", "Iris", "Jun", "Kate", "Leo", "Mia", "Nils")
THINGS = ("apples", "books", "stamps", "shells", "coins", "cards", "pens", "eggs", "plants", "stones", "toys", "keys")
HOLDERS = ("boxes", "bags", "shelves", "baskets", "jars", "drawers")
# Share of problems with a number that is not needed.
DISTRACTED = 0.4
DISTRACTIONS = ("{n} also has {d} {u}.", "{m} has {d} {u}.", "{n} is {d} years old.", "There are {d} {u} on the table.")
Numbers = dict[str, int]


@dataclass(frozen=True, slots=True)
class Family:
    """Problems that one equation solves.

    draw: the numbers of a problem. stories: sentences, of which one is used, and questions: the same. equation and
    rationale: of all of them. {n}, {m}: names; {t}, {u}: things; {h}: what holds them; {x}: the value.
    """

    draw: Callable[[random.Random], Numbers]
    stories: tuple[str, ...]
    questions: tuple[str, ...]
    equation: str
    rationale: str


def _two(rng: random.Random) -> Numbers:
    return {"a": rng.randint(2, 9), "b": rng.randint(2, 9)}


def _falling(rng: random.Random) -> Numbers:
    b = rng.randint(2, 9)
    return {"a": b + rng.randint(1, 9), "b": b}


def _product(rng: random.Random) -> Numbers:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    return {"a": a, "b": b, "c": rng.randint(1, min(a * b - 1, 9))}


def _quotient(rng: random.Random) -> Numbers:
    b = rng.randint(2, 9)
    return {"a": b * rng.randint(2, 9), "b": b}


def _three(rng: random.Random) -> Numbers:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    return {"a": a, "b": b, "c": rng.randint(1, min(a + b - 1, 9))}


def _shared_rest(rng: random.Random) -> Numbers:
    c, b = rng.randint(2, 5), rng.randint(1, 9)
    return {"a": b + c * rng.randint(2, 5), "b": b, "c": c}


FAMILIES = (
    Family(
        _two,
        ("{n} has {a} {t}. {m} gives {n} {b} more.", "{n} had {a} {t} and found {b} others."),
        ("How many {t} does {n} have now?",),
        "( {a} + {b} )",
        "{n} starts with {a} {t}. {b} are added. So {n} has {a} + {b} = {x} {t}.",
    ),
    Family(
        _falling,
        ("{n} had {a} {t}. {n} lost {b} of them.", "{n} had {a} {t} and gave {b} of them to {m}."),
        ("How many {t} are left?", "How many {t} does {n} still have?"),
        "( {a} - {b} )",
        "{n} starts with {a} {t}. {b} are taken away. So {a} - {b} = {x} {t} are left.",
    ),
    Family(
        _two,
        ("{n} gave {b} {t} to {m}. Now {n} has {a} {t}.", "After {n} lost {b} {t}, {a} were left."),
        ("How many {t} did {n} have at first?",),
        "( {a} + {b} )",
        "{a} {t} are left and {b} are gone. So {n} had {a} + {b} = {x} {t} at first.",
    ),
    Family(
        _falling,
        (
            "{n} had {b} {t} and bought some more. Now {n} has {a}.",
            "{n} had {b} {t}. {m} brought some, and now there are {a}.",
        ),
        ("How many {t} were added?",),
        "( {a} - {b} )",
        "There were {b} {t} before and {a} after. So {a} - {b} = {x} {t} were added.",
    ),
    Family(
        _falling,
        ("{n} has {a} {t}. {m} has {b} {t}.", "{m} has {b} {t} and {n} has {a} {t}."),
        ("How many more {t} does {n} have than {m}?", "How many fewer {t} does {m} have than {n}?"),
        "( {a} - {b} )",
        "{n} has {a} {t} and {m} has {b}. So the difference is {a} - {b} = {x} {t}.",
    ),
    Family(
        _falling,
        ("{n} has {a} {t}. {m} has {b} {t} fewer than {n}.", "{m} has {b} {t} fewer than {n}, who has {a}."),
        ("How many {t} does {m} have?",),
        "( {a} - {b} )",
        "{n} has {a} {t}. {m} has {b} fewer. So {m} has {a} - {b} = {x} {t}.",
    ),
    Family(
        _product,
        ("There are {a} {h} with {b} {t} in each.", "{n} filled {a} {h}. Each holds {b} {t}."),
        ("How many {t} are there in all?",),
        "( {a} * {b} )",
        "There are {a} {h} with {b} {t} each. So there are {a} * {b} = {x} {t}.",
    ),
    Family(
        _quotient,
        ("{n} puts {a} {t} into {b} {h}, the same number in each.", "{a} {t} are shared equally among {b} {h}."),
        ("How many {t} are in each?",),
        "( {a} / {b} )",
        "{a} {t} are divided among {b} {h}. So each has {a} / {b} = {x} {t}.",
    ),
    Family(
        _three,
        (
            "{n} had {a} {t}, bought {b} more and then gave {c} to {m}.",
            "{n} found {a} {t} and {b} others, and lost {c} of them.",
        ),
        ("How many {t} does {n} have now?",),
        "( ( {a} + {b} ) - {c} )",
        "{n} gets {a} + {b} = {y} {t}. {c} are taken away. So {n} has {y} - {c} = {x} {t}.",
    ),
    Family(
        _product,
        ("There are {a} {h} with {b} {t} in each, and {c} {t} beside them.",),
        ("How many {t} are there in all?",),
        "( ( {a} * {b} ) + {c} )",
        "The {h} hold {a} * {b} = {y} {t}. {c} are beside them. So there are {y} + {c} = {x} {t}.",
    ),
    Family(
        _product,
        ("{n} filled {a} {h} with {b} {t} each. {c} of the {t} broke.",),
        ("How many {t} are whole?",),
        "( ( {a} * {b} ) - {c} )",
        "The {h} hold {a} * {b} = {y} {t}. {c} broke. So {y} - {c} = {x} {t} are whole.",
    ),
    Family(
        _shared_rest,
        ("{n} had {a} {t}, lost {b} and shared the others equally among {c} {h}.",),
        ("How many {t} are in each?",),
        "( ( {a} - {b} ) / {c} )",
        "{n} keeps {a} - {b} = {y} {t}. They are divided among {c} {h}. So each has {y} / {c} = {x} {t}.",
    ),
)


def make_problems(count: int, seed: int) -> list[Item]:
    """Make `count` different problems. The first of them do not depend on `count`."""
    problems: dict[str, Item] = {}
    for text, equation, rationale in _draw(random.Random(seed)):
        if len(problems) == count:
            break
        problems.setdefault(text, Item(f"synthetic-{len(problems)}", text, equation, True, rationale))
    return list(problems.values())


def _draw(rng: random.Random) -> Iterator[tuple[str, str, str]]:
    """Endless problems: text, equation, rationale."""
    while True:
        family = rng.choice(FAMILIES)
        numbers: dict[str, object] = dict(family.draw(rng))
        (n, m), (t, u) = rng.sample(NAMES, 2), rng.sample(THINGS, 2)
        words = numbers | {"n": n, "m": m, "t": t, "u": u, "h": rng.choice(HOLDERS), "d": rng.randint(2, 9)}
        story = rng.choice(family.stories)
        if rng.random() < DISTRACTED:
            story = f"{story} {rng.choice(DISTRACTIONS)}"
        equation = family.equation.format(**words)
        first = equation[2 : equation.rindex(")", 0, -1) + 1] if equation.startswith("( (") else equation
        values = {"x": _whole(evaluate_equation(equation)), "y": _whole(evaluate_equation(first))}
        question = rng.choice(family.questions)
        rationale = family.rationale.format(**words, **values)
        yield f"{story} {question}".format(**words), equation, rationale


def _whole(value: Fraction) -> int:
    if value.denominator != 1:
        raise AssertionError(f"a family gives {value}, which is no whole number")
    return int(value)
