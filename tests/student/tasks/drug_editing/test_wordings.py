"""Held-out words occur in no training prompt, and every instruction can be said in all of them."""

from collections import Counter

from student.tasks.drug_editing.building import Options, build_examples
from student.tasks.drug_editing.instructions import INSTRUCTIONS
from student.tasks.drug_editing.pairs import pairs_of_molecules
from student.tasks.drug_editing.wordings import (
    FRAMES,
    NEW_FRAMES,
    NEW_PHRASES,
    PHRASES,
    canonical_prompt,
    key_of,
    prompt,
    wordings,
)
from tests.student.tasks.drug_editing.test_feedback import MOLECULES


def test_new_words_are_new() -> None:
    """Would catch a phrase or frame that training has too, in part or as a whole."""
    old = [phrase for phrases in PHRASES.values() for phrase in phrases]
    new = [phrase for phrases in NEW_PHRASES.values() for phrase in phrases]
    assert not any(phrase in other or other in phrase for phrase in new for other in old)
    assert not set(FRAMES) & set(NEW_FRAMES)
    assert len(set(new)) == len(new) and len(set(old)) == len(old)
    for _, changes in INSTRUCTIONS.values():
        assert all(key_of(change) in PHRASES and key_of(change) in NEW_PHRASES for change in changes)


def test_the_first_wording_is_that_of_chatdrug() -> None:
    for number, (words, _) in INSTRUCTIONS.items():
        assert wordings(number, is_new=False)[0] == words
        assert canonical_prompt(number, "CCO") == prompt(number, "CCO", 0.0, is_new=False)


def test_every_wording_and_frame_is_chosen_for_some_chance() -> None:
    seen = {prompt(201, "CCO", i / 1000, is_new=True) for i in range(1000)}
    assert len(seen) == len(NEW_FRAMES) * 4
    assert all("CCO" in text for text in seen)


def test_a_benchmark_asks_every_instruction_of_held_out_molecules() -> None:
    pairs = pairs_of_molecules(MOLECULES, Counter(), 0.2, lambda done, total: None)
    built = build_examples(pairs, Options(0.3, balanced=True, varied=True), lambda done, total: None)
    heldout = {example.metadata["source"] for example in built.splits["heldout"]}
    trained = {e.metadata[end] for e in built.splits["train"] for end in ("source", "answer")}
    benchmark, new = built.splits["benchmark"], built.splits["new_words"]
    assert len(benchmark) == len(new) == 14 * built.facts["heldout_molecules"]
    assert heldout <= {example.metadata["source"] for example in benchmark}
    assert not trained & {example.metadata["source"] for example in benchmark}
    assert [example.metadata for example in benchmark] == [example.metadata for example in new]
    assert all(a.messages != b.messages and not a.response for a, b in zip(benchmark, new, strict=True))
    first = Counter(example.metadata["task"] for example in benchmark[: built.facts["heldout_molecules"]])
    assert max(first.values()) - min(first.values()) <= 1 and len(first) == min(14, built.facts["heldout_molecules"])


def test_rare_instructions_are_preferred_where_a_pair_is_a_hit_of_several() -> None:
    pairs = pairs_of_molecules(MOLECULES, Counter(), 0.2, lambda done, total: None)
    plain, balanced = (
        build_examples(pairs, Options(0.1, balanced=is_balanced), lambda done, total: None).facts
        for is_balanced in (False, True)
    )
    before, after = plain["training_edits_by_task"], balanced["training_edits_by_task"]
    assert sum(before.values()) == sum(after.values())
    assert after["104"] > before["104"] and after["206"] > before["206"] and after["106"] < before["106"]
