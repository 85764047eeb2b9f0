"""Templates give the documented messages; an example that cannot be rendered is named."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.answers.parsing import parse_answer
from cache.errors import InputError
from cache.examples.example import Example
from teacher_serving.asking.prompt_templates import PromptTemplate, Shot, fill_template, load_template, read_shots

SYSTEM = {"role": "system", "content": "You teach children."}
ASKED = {"role": "user", "content": "What is 2 + 2?"}
SHOTS = (Shot("What is 1 + 1?", "One more than 1 is 2.", "2"), Shot("What is 3 - 3?", "Nothing is left.", "0"))


def example(*messages: dict[str, str]) -> Example:
    return Example("e7", messages or (SYSTEM, ASKED), metadata={"level": "easy"}, label="four")


def content(source: str, hint: str = "", **changes: str) -> str:
    filled = fill_template(PromptTemplate("mine", source), example(SYSTEM, {**ASKED, **changes}), SHOTS, hint)
    return str(filled[-1]["content"])


def test_only_the_last_user_turn_changes_and_the_example_stays_as_it_was() -> None:
    reply, more = {"role": "assistant", "content": "Four."}, {"role": "user", "content": "And 3 + 3?"}
    prefill = {"role": "assistant", "content": "Let me see."}
    given_example = example(SYSTEM, ASKED, reply, more, prefill)
    filled = fill_template(PromptTemplate("mine", "<{{ prompt }}>"), given_example)
    assert filled == (SYSTEM, ASKED, reply, {"role": "user", "content": "<And 3 + 3?>"}, prefill)
    assert given_example.messages == (SYSTEM, ASKED, reply, more, prefill)


def test_every_variable_arrives() -> None:
    source = "{{ id }}|{{ messages[0].content }}|{{ metadata.level }}|{{ hint }}|{{ shots[1].label }}|[{{ label }}]"
    assert content(source, "4") == "e7|You teach children.|easy|4|0|[four]"


def test_blocks_leave_no_lines_behind() -> None:
    assert (
        content("{% for shot in shots %}\n  {% if true %}\n{{ shot.label }}\n  {% endif %}\n{% endfor %}\n") == "2\n0\n"
    )


@given(st.text())
def test_text_of_an_example_is_never_a_template(text: str) -> None:
    assert content("{{ prompt }}", content=text + "{{ 6 * 7 }}{% x %}<b>") == text + "{{ 6 * 7 }}{% x %}<b>"


@pytest.mark.parametrize(
    "source, named",
    [
        ("{{ promt }}", "'promt' is undefined"),
        ("{{ metadata.grade }}", "has no attribute 'grade'"),
        ("{% if metadata.grade %}{% endif %}", "has no attribute 'grade'"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% include 'other.jinja' %}", "no loader"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{{ metadata.update(level=1) }}", "SecurityError"),
        ("{{ prompt.__class__.__mro__ }}", "SecurityError"),
    ],
)
def test_what_cannot_be_rendered_names_example_and_template(source: str, named: str) -> None:
    with pytest.raises(InputError, match="example e7, template mine: ") as caught:
        content(source)
    assert named in str(caught.value)


def test_an_example_without_a_question_is_refused() -> None:
    with pytest.raises(InputError, match=r"example e7.*no turn has the role 'user'"):
        fill_template(PromptTemplate("mine", "{{ prompt }}"), example(SYSTEM))


def test_step_by_step_requests_the_line_that_the_parser_reads() -> None:
    system, asked = fill_template(load_template("step_by_step"), example())
    assert system == SYSTEM
    assert asked["content"].startswith("What is 2 + 2?\n\nThink step by step.")
    assert asked["content"].endswith("\nAnswer: <label>")


def test_few_shot_shows_the_shots_in_order_and_ends_where_the_reasoning_starts() -> None:
    asked = fill_template(load_template("few_shot"), example(), SHOTS)[-1]["content"]
    instruction, _, shown = asked.partition("\n\n")
    assert '"Answer:"' in instruction
    assert shown == (
        "Question: What is 1 + 1?\nReasoning: One more than 1 is 2.\nAnswer: 2\n\n"
        "Question: What is 3 - 3?\nReasoning: Nothing is left.\nAnswer: 0\n\n"
        "Question: What is 2 + 2?\nReasoning:"
    )
    # What a base model makes of it: it answers and runs on.
    parsed = parse_answer(" Two pairs.\nAnswer: 4\n\nQuestion: What is 9?\nAnswer: 9", "Answer:", "Question:")
    assert (parsed.rationale, parsed.label) == ("Two pairs.", "4")


def test_hint_contains_the_answer_and_a_request_not_to_mention_it() -> None:
    asked = fill_template(load_template("hint"), example(), hint="4")[-1]["content"]
    assert asked.startswith("What is 2 + 2?\n\nThe right answer is: 4\n")
    assert "Do not mention that you were told" in asked
    assert asked.endswith("\nAnswer: 4")
    assert "The right answer is: four\n" in fill_template(load_template("hint"), example())[-1]["content"]


def test_an_unknown_name_lists_the_choices() -> None:
    with pytest.raises(
        InputError, match=r"'steps': unknown.*few_shot, hint, step_by_step, or a path ending in \.jinja"
    ):
        load_template("steps")


def test_a_template_is_read_from_a_path_and_its_digest_is_of_its_source(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("{{ prompt }} é")
    template = load_template(str(path))
    assert template == PromptTemplate(str(path), "{{ prompt }} é")
    assert template.digest == PromptTemplate("elsewhere", "{{ prompt }} é").digest
    assert template.digest != PromptTemplate(str(path), "{{ prompt }} e").digest


@pytest.mark.parametrize("source", ["fine\n{% for %}", "fine\n{{ prompt | no_such_filter }}"])
def test_a_syntax_error_names_file_and_line(tmp_path: Path, source: str) -> None:
    path = tmp_path / "broken.jinja"
    path.write_text(source)
    with pytest.raises(InputError, match=r"broken\.jinja, line 2: "):
        load_template(str(path))


def test_an_unreadable_template_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.jinja").write_bytes(b"\xe9")
    for name in ("absent.jinja", "latin.jinja"):
        with pytest.raises(InputError, match=name):
            load_template(str(tmp_path / name))


def test_shots_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "shots.jsonl"
    path.write_text(
        "\n".join(json.dumps({"prompt": s.prompt, "rationale": s.rationale, "label": s.label}) for s in SHOTS)
    )
    assert read_shots(path) == SHOTS


@pytest.mark.parametrize(
    "line, named",
    [
        ("{", "Expecting"),
        ("[]", "expected a JSON object, found list"),
        ('{"prompt": "p", "rationale": "r"}', "'label' must be given"),
        ('{"prompt": "p", "rationale": "r", "label": 4}', "'label' must be given, as text"),
        ('{"prompt": "p", "rationale": "r", "label": "l", "answer": "l"}', "unknown key 'answer'; known keys: prompt"),
        ('{"prompt": "\\ud800", "rationale": "r", "label": "l"}', "surrogates not allowed"),
    ],
)
def test_a_bad_shot_names_its_line(tmp_path: Path, line: str, named: str) -> None:
    path = tmp_path / "shots.jsonl"
    path.write_text('{"prompt": "p", "rationale": "r", "label": "l"}\n\n' + line)
    with pytest.raises(InputError, match=r"shots\.jsonl, line 3: ") as caught:
        read_shots(path)
    assert named in str(caught.value)


def test_a_shots_file_without_shots_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    for name, problem in (("empty.jsonl", "empty"), ("absent.jsonl", "no such file")):
        with pytest.raises(InputError, match=f"{name}: {problem}"):
            read_shots(tmp_path / name)
