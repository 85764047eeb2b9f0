"""Conversations: turns, validation by reason, prompts by configuration, and the grammar with its true records."""

import json
from pathlib import Path

import pytest

from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.files.jsonl import write_examples
from cache.progress import no_progress
from cluster.runtime.job_file import load_job
from student.tasks.medical_conversation import TASK
from student.tasks.medical_conversation.conversation import (
    Limits,
    Turn,
    count_exchanges,
    find_problem,
    mentions,
    opening_turn,
    parse_turns,
    write_turns,
)
from student.tasks.medical_conversation.record import parse_record
from student.tasks.medical_conversation.record_scores import record_metrics
from student.tasks.medical_conversation.task import MedicalConversation

LIMITS = Limits((1, 3), True, (4, 60))
GOOD = "Doctor: How is your asthma today?\nPatient: Worse,\nI cough at night.\nDoctor: I see.\nPatient: Thank you."


def task(**values: object) -> MedicalConversation:
    made = TASK.settings.model_validate({"name": "medical_conversation", **values})
    assert isinstance(made, MedicalConversation)
    return made


def test_turns_are_read_as_models_and_data_sets_write_them() -> None:
    assert parse_turns(
        "Sure!\n\n**Doctor:** Hello.\n\n[patient] hi , doc\nDr. Lee: So?\nPhysician: And?\n> Patient: No"
    ) == [
        Turn("Doctor", "Hello."),
        Turn("Patient", "hi , doc"),
        Turn("Doctor", "So?"),
        Turn("Doctor", "And?"),
        Turn("Patient", "No"),
    ]
    others = "Guest_family: And I?\nDoctor_2: You too.\n1. Doctor: One.\n2) **Patient:** Two.\nMr. Jones: Three."
    others += "\nNote: a note."
    assert [(turn.speaker, turn.text) for turn in parse_turns(f"{others}\n[laughs]\n[patient_guest] So .")] == [
        ("Guest_family", "And I?"),
        ("Doctor_2", "You too."),
        ("Doctor", "One."),
        ("Patient", "Two."),
        ("Patient", "Three. Note: a note. [laughs]"),
        ("Patient_guest", "So ."),
    ]
    turns = parse_turns(GOOD)
    assert turns[1].text == "Worse, I cough at night." and count_exchanges(turns) == 2
    assert parse_turns(write_turns(turns)) == turns


def test_words_before_the_first_speaker_are_a_turn_of_the_other_one() -> None:
    text = "hi , susan ,\nhow are you ?\n[patient] fine .\n[doctor] good ."
    assert opening_turn(text, parse_turns(text)) == Turn("Doctor", "hi , susan , how are you ?")
    assert opening_turn(f"\n---\n{GOOD}", parse_turns(GOOD)) is None


@pytest.mark.parametrize(
    "text, exchanges, problem",
    [
        (GOOD, 2, ""),
        (GOOD, 3, "another number of exchanges than requested"),
        (GOOD.replace("\nDoctor: I see.", ""), 1, "the speakers do not alternate"),
        (GOOD.replace("I see.", "..."), 2, "an empty turn"),
        (
            f"{GOOD}\nDoctor: Worse, I cough at night every day.\nPatient: Worse, I cough at night every day.",
            3,
            "a turn is repeated",
        ),
        ("It is about asthma.", 2, "no turn that begins with Doctor: or Patient:"),
        (GOOD.replace("asthma", "cough"), 2, "the topic is not mentioned"),
        ("Patient: My asthma is bad today.\nDoctor: I see.", None, "not 1 to 3 exchanges"),
        (GOOD.replace("cough", "cough " * 60), 2, "not 4 to 60 words"),
    ],
)
def test_each_reason_is_found(text: str, exchanges: int | None, problem: str) -> None:
    assert find_problem(parse_turns(text), LIMITS, "asthma", exchanges) == problem


def test_a_topic_is_mentioned_in_any_of_its_forms() -> None:
    assert mentions("He is diabetic.", "diabetes") and mentions("My BACK aches", "back pain")
    assert not mentions("My head aches", "back pain") and mentions("a flu shot", "flu")


def test_prompts_follow_the_configuration_and_a_larger_count_keeps_the_first() -> None:
    few = task(stage="conversations", topics=["gout", "scurvy at sea"], moods=["calm", "angry"], count=8, seed=3)
    prompts = few.build(no_progress).splits["prompts"]
    more = few.model_copy(update={"count": 20}).build(no_progress).splits["prompts"]
    assert more[:8] == prompts
    pairs = [(prompt.metadata["topic"], prompt.metadata["mood"]) for prompt in more]
    assert {pair: pairs.count(pair) for pair in pairs} == dict.fromkeys(pairs, 5)
    assert {
        prompt.metadata["exchanges"] for prompt in task(stage="conversations").build(no_progress).splits["prompts"]
    } == {*range(3, 9)}
    assert all(str(p.metadata["exchanges"]) in p.messages[0]["content"] for p in prompts)
    assert "scurvy at sea" in prompts[1].messages[0]["content"]
    again = few.model_copy(update={"seed": 4}).build(no_progress).splits["prompts"]
    assert [p.metadata["exchanges"] for p in again] != [p.metadata["exchanges"] for p in prompts]


def test_written_conversations_are_validated_and_counted(tmp_path: Path) -> None:
    facts = {"topic": "asthma", "mood": "calm", "exchanges": 2}
    texts = [
        GOOD,
        GOOD.upper().replace("DOCTOR", "Doctor"),
        GOOD.replace("asthma", "cough"),
        "nothing",
        GOOD + "\nPatient:",
    ]
    file = tmp_path / "written.jsonl"
    write_examples(
        file, [Example(str(i), ({"role": "user", "content": "w"},), "", t, facts) for i, t in enumerate(texts)]
    )
    built = task(data="conversations", conversations=str(file), exchanges=(1, 3), words=(4, 60)).build(no_progress)
    (example,) = built.splits["records"]
    assert example.metadata["conversation"] == write_turns(parse_turns(GOOD)) and not example.response
    assert built.facts["conversations_read"] == 5 and built.facts["conversations"] == 1
    assert built.facts["left_out"] == {
        "the same as an earlier one": 1,
        "the topic is not mentioned": 1,
        "no turn that begins with Doctor: or Patient:": 1,
        "an empty turn": 1,
    }


RECORD = {
    "patient_details": {"name": "NOT PROVIDED", "age": 40, "gender": "NOT PROVIDED"},
    "medical_history": ["asthma"],
    "current_diagnosis": "NOT PROVIDED",
    "prescription": "NOT PROVIDED",
}


@pytest.mark.parametrize("output", [json.dumps(RECORD), f"Here it is:\n```json\n{json.dumps(RECORD)}\n```", RECORD])
def test_the_published_form_is_read_with_its_records(tmp_path: Path, output: object) -> None:
    """The record becomes the answer to learn, and the truth that answers are held against."""
    file = tmp_path / "published.jsonl"
    line = {"instruction": "Extract structured patient information...", "input": GOOD, "output": output}
    other = {**line, "input": GOOD.replace("cough", "wheeze")}
    bad = {"patient_details": {}}, "not json at all"
    lines = [line, *({**other, "output": each} for each in bad)]
    file.write_text("".join(json.dumps(each) + "\n" for each in lines))
    made = task(data="conversations", conversations=str(file), exchanges=(1, 3), words=(4, 60))
    built = made.build(no_progress)
    (example,) = built.splits["records"]
    assert json.loads(example.response) == RECORD == example.metadata["record"]
    assert sorted(built.facts["left_out"]) == [
        "its output is no record of the schema: no JSON object with a key of the schema",
        "its output is no record of the schema: patient_details.name: Field required",
    ]
    scores = made.judge(example, example.response)
    assert made.summarise([scores])["field_micro_f1"] == 1.0
    file.write_text(json.dumps(line) + "\n" + '{"instruction": "a"}x\n')
    with pytest.raises(InputError, match=r"published.jsonl, line 2: is not JSON: extra data at character 21"):
        made.build(no_progress)
    line["output"] = ""
    file.write_text(json.dumps({**line, "input": "none"}) + "\n")
    with pytest.raises(InputError, match="no conversation is valid: 1: no turn that begins"):
        task(data="conversations", conversations=str(file)).build(no_progress)


def test_a_given_conversation_is_kept_as_it_is(tmp_path: Path) -> None:
    """The rules for what a teacher writes would leave out most real dialogues, and words before the first speaker."""
    real = "hi , Susan .\nPatient: Hello.\nPatient: I cough.\nDr. Jane Smith: I see.\nMr. Robert Lee Jones: no"
    line = {"instruction": "Extract", "input": real, "output": ""}
    file = tmp_path / "given.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in (line, {**line, "input": f"{real}!"}, line)))
    built = task(data="conversations", conversations=str(file)).build(no_progress)
    assert built.facts["left_out"] == {"the same as an earlier one": 1}
    first = built.splits["records"][0].messages[-1]["content"]
    whole = "Doctor: hi , Susan .\nPatient: Hello.\nPatient: I cough.\nDoctor: I see.\nPatient: no"
    assert whole in first
    assert [turn.speaker for turn in parse_turns("Doctor: a\nMrs. Jones complains of: pain")] == ["Doctor"]


def test_grammar_made_records_are_true() -> None:
    grammar = task(count=150, heldout_count=40)
    built = grammar.build(no_progress)
    assert {name: len(examples) for name, examples in built.splits.items()} == {"heldout": 40, "train": 150}
    examples = [example for split in built.splits.values() for example in split]
    metrics = record_metrics([grammar.judge(example, example.response) for example in examples])
    for name in ("schema_conformance", "record_exact_match", "field_macro_f1", "not_provided_precision"):
        assert metrics[name] == 1
    # Every value is in the words of its conversation, so an answer can be right.
    assert metrics["unsupported_rate"] == 0 and 0.2 < metrics["not_provided_share"] < 0.6
    for example in examples:
        turns = parse_turns(example.metadata["conversation"])
        assert not find_problem(turns, Limits((3, 8), True, (10, 600)), "", example.metadata["exchanges"])
        assert example.messages[0]["content"].endswith("\n\n" + example.metadata["conversation"])
    assert len({example.metadata["conversation"] for example in examples}) == 190
    assert {e.metadata["exchanges"] for e in examples} == {*range(3, 9)}


def test_no_held_out_patient_is_a_patient_of_the_training_set() -> None:
    built = task(count=400, heldout_count=100).build(no_progress)
    names = {
        split: {parse_record(e.response).value["patient_details"]["name"] for e in examples} - {"NOT PROVIDED"}
        for split, examples in built.splits.items()
    }
    assert names["train"] and names["heldout"] and not names["train"] & names["heldout"]
    assert built.facts["left_out_of_train"]["a patient of a held-out conversation"] > 0


@pytest.mark.parametrize(
    "values, message",
    [
        ({"topics": ["scurvy"]}, "'scurvy' is none of the topics for which grammar-made conversations are written"),
        ({"moods": ["bored"]}, "'bored' is none of the moods"),
        ({"exchanges": [3, 11]}, "grammar-made conversations have at most 10, not 11"),
        ({"data": "conversations"}, "task.conversations is missing"),
        (
            {"data": "conversations", "conversations": "absent/talks.jsonl"},
            "task.conversations absent/talks.jsonl: there is no such file or folder",
        ),
        ({"data": "mts_dialog"}, "task.folder is missing"),
    ],
)
def test_what_cannot_be_built_says_why(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        task(**values).build(no_progress)


@pytest.mark.parametrize("name", ["topics", "moods"])
def test_an_empty_topic_or_mood_is_refused(name: str) -> None:
    """Would catch prompts for a conversation "about ."."""
    with pytest.raises(ValueError, match=f"'{name}' has an empty text"):
        task(stage="conversations", **{name: ["asthma", " "]})


def test_keys_without_effect_are_refused(tmp_path: Path) -> None:
    from cluster.evaluation.settings import ExamplesSettings

    job = tmp_path / "job.toml"
    job.write_text(
        'output = "o"\n[task]\nname = "medical_conversation"\ndata = "mts_dialog"\nfolder = "f"\ncount = 3\n'
    )
    with pytest.raises(InputError, match=r"count.*does not read it"):
        load_job(job, [], ExamplesSettings, tmp_path)


def test_a_prompt_can_show_a_conversation_of_another_topic() -> None:
    prompts = task(stage="conversations", topics=["asthma", "gout"], exchanges=(3, 12), count=30, shown=2).build(
        no_progress
    )
    for prompt in prompts.splits["prompts"]:
        assert [turn["role"] for turn in prompt.messages] == ["user", "assistant"] * 2 + ["user"]
        for request, answer in zip(prompt.messages[:-1:2], prompt.messages[1::2], strict=True):
            found = count_exchanges(parse_turns(answer["content"]))
            assert found == min(prompt.metadata["exchanges"], 10)
            assert f"exactly {found} exchanges" in request["content"]
            assert f"about {prompt.metadata['topic']}." not in request["content"]
