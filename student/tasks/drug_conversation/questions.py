"""Questions about edits with their true answers, in words for training and in new words that training never has."""

from dataclasses import dataclass

import numpy as np

from student.tasks.drug_editing.wordings import NEW_PHRASES, PHRASES, Key


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its true answer ("" for an open question), its kind, and the change that it is about."""

    text: str
    answer: str
    kind: str
    about: Key


PROPERTIES = {
    "LogP": "LogP",
    "QED": "QED",
    "TPSA": "TPSA",
    "acceptors": "the number of hydrogen bond acceptors",
    "donors": "the number of hydrogen bond donors",
}
# Why the change of a property has its effect.
REASONS: dict[Key, str] = {
    ("LogP", -1): "A molecule with a lower LogP prefers water to oil",
    ("LogP", +1): "A molecule with a higher LogP prefers oil to water",
    ("QED", +1): "A higher QED means that its properties are closer to those of known drugs",
    ("QED", -1): "A lower QED means that its properties are further from those of known drugs",
    ("TPSA", -1): "A smaller polar surface lets a molecule pass through membranes",
    ("TPSA", +1): "A larger polar surface keeps a molecule from passing through membranes",
    ("acceptors", +1): "Each additional acceptor can bind one more hydrogen atom",
    ("donors", +1): "Each additional donor can offer one more hydrogen atom",
}
# Frames of questions: for training, and new ones.
MEANING = (
    "Which property has to change to make a molecule {wording}?",
    "A chemist wants a molecule {wording}. What has to change?",
    "What do I have to change to get a molecule {wording}?",
    "What decides whether a molecule is one {wording}?",
)
NEW_MEANING = (
    "Suppose we look for a compound {wording}. Which property should we work on?",
    "Tell me what to aim at if the result should be {wording}.",
)
EFFECT = (
    "{property} {verb} by {size}. What does that mean?",
    "What happens to a molecule when {property} {verb} by {size}?",
    "After an edit, {property} {verb} by {size}. Is that good or bad, and for what?",
)
NEW_EFFECT = (
    "Explain in plain words: {property} {verb} by {size}.",
    "We measured that {property} {verb} by {size}. How would you describe the new molecule?",
)
REWORD = (
    "Say it in other words: a molecule {wording}.",
    "What is another way to ask for a molecule {wording}?",
)
NEW_REWORD = ("Please rephrase this wish: a molecule {wording}.",)
OPEN = (
    "What is a molecule {wording} good for? Answer in one sentence.",
    "Why would a chemist want a molecule {wording}? Answer in one sentence.",
)
NEW_OPEN = ("In one sentence, when is a molecule {wording} useful?",)


def draw_question(rng: np.random.Generator, is_new: bool) -> Question:
    """A question with a true answer, in words for training or in new ones."""
    phrases = NEW_PHRASES if is_new else PHRASES
    keys = list(PHRASES)
    key = keys[int(rng.integers(len(keys)))]
    wording = str(rng.choice(phrases[key]))
    kind = str(rng.choice(["meaning", "meaning", "effect", "reword"]))
    if kind == "meaning":
        text = str(rng.choice(NEW_MEANING if is_new else MEANING)).format(wording=wording)
        return Question(text, meaning(key), kind, key)
    if kind == "effect":
        return _effect(rng, key, str(rng.choice(NEW_EFFECT if is_new else EFFECT)))
    others = [phrase for phrase in PHRASES[key] if phrase != wording]
    text = str(rng.choice(NEW_REWORD if is_new else REWORD)).format(wording=wording)
    return Question(text, f"It should be a molecule {rng.choice(others)}.", kind, key)


def open_questions(is_new: bool) -> list[Question]:
    """Every question that only the teacher answers."""
    phrases, frames = (NEW_PHRASES, NEW_OPEN) if is_new else (PHRASES, OPEN)
    return [
        Question(frame.format(wording=wording), "", "open", key)
        for key, wordings in phrases.items()
        for wording in wordings
        for frame in frames
    ]


def meaning(key: Key) -> str:
    """The change that is asked for, and why it helps."""
    name, direction = key
    verb = "rise" if direction > 0 else "fall"
    subject = PROPERTIES[name]
    return f"{subject[0].upper()}{subject[1:]} has to {verb}. {REASONS[key]}."


def _effect(rng: np.random.Generator, key: Key, frame: str) -> Question:
    name, direction = key
    size = f"{rng.uniform(0.11, 0.4):.2f}" if name == "QED" else f"{rng.uniform(0.6, 40 if name == 'TPSA' else 3):.1f}"
    if name in ("acceptors", "donors"):
        size = str(int(rng.integers(2, 5)))
    verb = "rises" if direction > 0 else "falls"
    text = frame.format(property=PROPERTIES[name], verb=verb, size=size)
    answer = f"{REASONS[key]}, so we get a molecule {PHRASES[key][int(rng.integers(len(PHRASES[key])))]}."
    return Question(text[0].upper() + text[1:], answer, "effect", key)
