"""Questions about edits are true, held-out ones are in new words, and answers are judged by what they say."""

import pytest

from cache.errors import InputError
from cache.examples.example import Example
from cache.progress import no_progress
from student.tasks.drug_conversation.task import DrugConversation, names_change
from student.tasks.drug_editing.wordings import NEW_PHRASES, PHRASES


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Example]]:
    return DrugConversation(train_questions=600, heldout_questions=100).build(no_progress).splits


def test_a_true_answer_is_judged_right(splits: dict[str, list[Example]]) -> None:
    task, seen = DrugConversation(), set()
    for example in [*splits["train"], *splits["heldout"]]:
        scores = task.judge(example, example.response)
        seen.add(example.metadata["kind"])
        assert scores["rouge_l"] == scores["has_answer"] == float(bool(example.response))
        assert scores["meaning"] == scores["asks_meaning"]
    assert seen == {"meaning", "effect", "reword", "open"}


def test_heldout_questions_are_in_new_words(splits: dict[str, list[Example]]) -> None:
    train = [str(example.messages[0]["content"]) for example in splits["train"]]
    heldout = [str(example.messages[0]["content"]) for example in splits["heldout"]]
    assert not set(train) & set(heldout)
    old = [phrase for phrases in PHRASES.values() for phrase in phrases]
    new = [phrase for phrases in NEW_PHRASES.values() for phrase in phrases]
    assert not any(phrase in text for text in train for phrase in new)
    assert not any(phrase in text for text in heldout for phrase in old)
    assert len({example.id for example in splits["train"]}) == len(train) == 664


def test_open_questions_come_first_and_have_no_answer(splits: dict[str, list[Example]]) -> None:
    for name, count in (("train", 64), ("heldout", 16)):
        kinds = [example.metadata["kind"] == "open" for example in splits[name]]
        assert all(kinds[:count]) and not any(kinds[count:])
        assert not any(example.response for example in splits[name][:count])


@pytest.mark.parametrize(
    "text, is_right",
    [
        ("LogP has to fall. It rises otherwise, and TPSA too.", True),
        ("You should reduce its LogP", True),
        ("LogP has to rise.", False),
        ("LogP has to rise or fall.", False),
        ("LogP and TPSA have to fall.", False),
        ("It has to fall.", False),
        ("", False),
        ("The number of donors has to fall.", False),
    ],
)
def test_the_first_sentence_counts(text: str, is_right: bool) -> None:
    assert names_change(text, "LogP", -1) == is_right


def test_metrics_by_hand(splits: dict[str, list[Example]]) -> None:
    task = DrugConversation()
    meaning = next(example for example in splits["heldout"] if example.metadata["kind"] == "meaning")
    opened = splits["heldout"][0]
    scores = [task.judge(meaning, meaning.response), task.judge(meaning, "no"), task.judge(opened, "anything")]
    assert task.summarise(scores) == {"rouge_l": 0.5, "meaning_accuracy": 0.5, "meaning_questions": 2}
    panel = task.panel(meaning, "<b>")
    assert panel is not None and panel.answer == "<p>&lt;b&gt;</p>" and panel.caption.startswith("wrong change")


def test_an_example_of_another_task_and_too_many_questions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="is not an example of drug_conversation"):
        DrugConversation().judge(Example("7", (), metadata={"task": 101}), "x")
    monkeypatch.setattr("student.tasks.drug_conversation.task.MAX_DRAWS", 1)
    with pytest.raises(InputError, match=r"task\.heldout_questions = 300: there are about \d+ different ones"):
        DrugConversation(train_questions=1, heldout_questions=300).build(no_progress)
