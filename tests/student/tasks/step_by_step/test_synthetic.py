"""Word problems of the grammar: different, solvable, and with rationales whose steps are right."""

import re

from cache.answers.equations import evaluate_equation
from student.tasks.step_by_step.judging import count_steps, reaches
from student.tasks.step_by_step.synthetic import FAMILIES, make_problems

PROBLEMS = make_problems(3000, 0)


def test_rationales_lead_to_the_value_of_the_equation() -> None:
    """Would catch a family whose rationale computes something else than its equation."""
    for item in PROBLEMS:
        steps, right = count_steps(item.rationale)
        assert 1 <= steps == right <= 2, item
        assert reaches(item.rationale, item.label), item
        value = evaluate_equation(item.label)
        assert value.denominator == 1 and value > 0, item


def test_all_families_occur_and_no_problem_twice() -> None:
    assert len({item.input for item in PROBLEMS}) == len({item.id for item in PROBLEMS}) == 3000
    forms = {"".join(c for c in item.label if not c.isdigit()) for item in PROBLEMS}
    assert len(forms) == len(
        {family.equation.replace("{a}", "").replace("{b}", "").replace("{c}", "") for family in FAMILIES}
    )


def test_more_problems_keep_the_first_and_a_seed_gives_others() -> None:
    assert make_problems(100, 0) == PROBLEMS[:100] != make_problems(100, 1)


def test_some_problems_have_a_number_that_is_not_needed() -> None:
    counts = [(len(re.findall(r"\d+", item.input)), len(re.findall(r"\d+", item.label))) for item in PROBLEMS]
    assert all(given >= needed for given, needed in counts)
    assert 0.3 < sum(given > needed for given, needed in counts) / len(counts) < 0.5
