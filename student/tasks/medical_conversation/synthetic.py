"""Grammar-made conversations, each with its true record. A stand-in for data where none is given, and labelled.

Number i depends on the seed and i alone. What a conversation does not say is "NOT PROVIDED" in its record.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cache.errors import InputError
from student.tasks.medical_conversation.cases import (
    CONDITIONS,
    FIRST_NAMES,
    HISTORY,
    LAST_NAMES,
    RELATIVES,
    REMARKS,
    Condition,
    Medication,
)
from student.tasks.medical_conversation.conversation import Turn
from student.tasks.medical_conversation.record import (
    NOT_PROVIDED,
    Absent,
    PatientDetails,
    PatientRecord,
    Prescription,
)

# In the order in which they may occur. A conversation of n exchanges has the opening and n - 1 of the others.
PARTS = ("identity", "history", "duration", "family", "habits", "past_medicine", "diagnosis", "treatment", "follow_up")
MAX_EXCHANGES = 1 + len(PARTS)
# How much more likely a part is than a filler.
WEIGHTS = {"identity": 4, "history": 3, "diagnosis": 4, "treatment": 5}


@dataclass(slots=True)
class _Draft:
    """A conversation while it is written: its turns, and what they have said so far."""

    draw: random.Random
    condition: Condition
    mood: str
    gender: str
    name: str
    age: int
    turns: list[Turn] = field(default_factory=list)
    said: dict[str, str | int] = field(default_factory=dict)
    history: list[str] | Absent = "NOT PROVIDED"
    diagnosis: list[str] | Absent = "NOT PROVIDED"
    prescription: list[Prescription] | Absent = "NOT PROVIDED"

    def exchange(self, doctor: str, patient: str) -> None:
        remark = self.draw.choice(REMARKS[self.mood])
        self.turns += [Turn("Doctor", doctor), Turn("Patient", f"{patient} {remark}".strip())]

    def record(self) -> PatientRecord:
        values = {key: self.said.get(key, NOT_PROVIDED) for key in PatientDetails.model_fields}
        return PatientRecord(
            patient_details=PatientDetails.model_validate(values),
            medical_history=self.history,
            current_diagnosis=self.diagnosis,
            prescription=self.prescription,
        )


@dataclass(frozen=True, slots=True)
class LabelledConversation:
    """turns: of doctor and patient. name: of the patient, whether or not the conversation says it."""

    turns: Sequence[Turn]
    record: PatientRecord
    topic: str
    mood: str
    exchanges: int
    name: str


def make_conversation(
    topics: Sequence[str], moods: Sequence[str], exchanges: tuple[int, int], seed: int, number: int
) -> LabelledConversation:
    """Make one conversation. Raises InputError for a topic, a mood or a number that the grammar does not have."""
    for names, known, what in ((topics, CONDITIONS, "topics"), (moods, REMARKS, "moods")):
        if unknown := [name for name in names if name not in known]:
            raise InputError(
                f"task.{what}: {unknown[0]!r} is none of the {what} for which grammar-made conversations are written "
                f'({", ".join(known)}); let a teacher write conversations for it (task.stage = "conversations")'
            )
    if exchanges[1] > MAX_EXCHANGES:
        raise InputError(f"task.exchanges: grammar-made conversations have at most {MAX_EXCHANGES}, not {exchanges[1]}")
    draw = random.Random(f"grammar:{seed}:{number}")
    topic, mood = topics[number % len(topics)], draw.choice(list(moods))
    gender = draw.choice(sorted(FIRST_NAMES))
    name = f"{draw.choice(FIRST_NAMES[gender])} {draw.choice(LAST_NAMES)}"
    draft = _Draft(draw, CONDITIONS[topic], mood, gender, name, draw.randint(19, 89))
    count = draw.randint(*exchanges)
    _opening(draft)
    for part in _choose_parts(draw, count - 1):
        _WRITERS[part](draft)
    return LabelledConversation(draft.turns, draft.record(), topic, mood, count, name)


def _choose_parts(draw: random.Random, count: int) -> list[str]:
    keys = {part: draw.random() ** (1 / WEIGHTS.get(part, 1)) for part in PARTS}
    chosen = sorted(PARTS, key=lambda part: -keys[part])[:count]
    return [part for part in PARTS if part in chosen]


def _opening(draft: _Draft) -> None:
    draw = draft.draw
    greeting = draw.choice(("Hello", "Good morning", "Good afternoon"))
    if draw.random() < 0.15:
        greeting = f"{greeting}, {draft.name}"
        draft.said["name"] = draft.name
    question = draw.choice(("What brings you in today?", "How can I help you?", "What seems to be the problem?"))
    draft.exchange(f"{greeting}. {question}", f"{draw.choice(draft.condition.complaints)}.")


def _identity(draft: _Draft) -> None:
    noun = {"Female": "woman", "Male": "man"}[draft.gender]
    question, answer, keys = draft.draw.choice(
        (
            ("Can you tell me your name and age?", f"I am {draft.name}, {draft.age} years old.", ("name", "age")),
            ("May I have your full name?", f"My name is {draft.name}.", ("name",)),
            ("How old are you?", f"I am {draft.age}.", ("age",)),
            (
                "Please tell me about yourself.",
                f"My name is {draft.name} and I am a {draft.age}-year-old {noun}.",
                ("name", "age", "gender"),
            ),
            ("Who am I speaking with?", f"I am a {draft.age}-year-old {noun}.", ("age", "gender")),
        )
    )
    draft.exchange(question, answer)
    values: dict[str, str | int] = {"name": draft.name, "age": draft.age, "gender": draft.gender}
    draft.said |= {key: values[key] for key in keys}


def _history(draft: _Draft) -> None:
    question = draft.draw.choice(("Have you had any illnesses before?", "What is your medical history?"))
    found = draft.draw.sample(HISTORY, draft.draw.choice((0, 1, 1, 2)))
    if not found:
        draft.exchange(question, draft.draw.choice(("No, I have always been healthy.", "Nothing at all.")))
    elif draft.draw.random() < 0.5:
        draft.exchange(question, f"I had {' and '.join(found)}.")
    else:
        draft.exchange(question, f"Yes, {' and '.join(found)}, some years ago.")
    draft.history = [name.removeprefix("a ").removeprefix("an ") for name in found]


def _duration(draft: _Draft) -> None:
    time = draft.draw.choice(("two days", "a week", "three weeks", "a few months"))
    draft.exchange(draft.draw.choice(("How long has this been going on?", "When did it start?")), f"For about {time}.")


def _family(draft: _Draft) -> None:
    """An illness of a relative, which is not the patient's."""
    illness, relative = draft.draw.choice(HISTORY), draft.draw.choice(RELATIVES)
    draft.exchange("Does anything run in your family?", f"My {relative} had {illness}.")


def _habits(draft: _Draft) -> None:
    draft.exchange(
        "Do you smoke or drink?", draft.draw.choice(("I quit smoking.", "Only wine on weekends.", "Neither."))
    )


def _past_medicine(draft: _Draft) -> None:
    """A medication that the patient stopped, which is no prescription of this conversation."""
    other = draft.draw.choice(CONDITIONS[draft.draw.choice(sorted(CONDITIONS))].medications)
    draft.exchange("Have you taken anything for it?", f"I tried {other.name} but it did not help.")


def _diagnosis(draft: _Draft) -> None:
    diagnosis = draft.draw.choice(draft.condition.diagnoses)
    doctor = draft.draw.choice(("You have {}.", "This looks like {}.", "The tests show {}.")).format(diagnosis)
    draft.exchange(doctor, draft.draw.choice(("I see.", "What can we do about it?", "I thought so.")))
    draft.diagnosis = [diagnosis]


def _treatment(draft: _Draft) -> None:
    if draft.draw.random() < 0.15:
        draft.exchange("You do not need any medication.", "That is good to hear.")
        draft.prescription = []
        return
    medications = draft.draw.sample(draft.condition.medications, draft.draw.choice((1, 1, 2)))
    sentences, items = zip(*(_prescribe(draft.draw, medication) for medication in medications), strict=True)
    draft.exchange(" ".join(sentences), draft.draw.choice(("All right.", "Thank you, doctor.", "I will do that.")))
    draft.prescription = list(items)


def _prescribe(draw: random.Random, medication: Medication) -> tuple[str, Prescription]:
    """A sentence and what it says. Each of the three details is left out in a quarter of the cases."""
    dosage, how = draw.choice(medication.dosages), draw.choice(medication.instructions)
    has_dosage, has_purpose, has_how = (draw.random() < 0.75 for _ in range(3))
    verb = draw.choice(("I am prescribing", "I will give you", "Please start"))
    sentence = f"{verb} {medication.name}" + (f" {dosage}" if has_dosage else "")
    sentence += f" for {medication.purpose}" if has_purpose else ""
    sentence += f". Take it {how}." if has_how else "."
    return sentence, Prescription(
        medication=medication.name,
        dosage=dosage if has_dosage else NOT_PROVIDED,
        purpose=medication.purpose if has_purpose else NOT_PROVIDED,
        instructions=how if has_how else NOT_PROVIDED,
    )


def _follow_up(draft: _Draft) -> None:
    time = draft.draw.choice(("in two weeks", "next month", "if it gets worse"))
    draft.exchange(f"Please come back {time}.", draft.draw.choice(("I will.", "Of course.", "See you then.")))


_WRITERS: dict[str, Callable[[_Draft], None]] = {
    "identity": _identity,
    "history": _history,
    "duration": _duration,
    "family": _family,
    "habits": _habits,
    "past_medicine": _past_medicine,
    "diagnosis": _diagnosis,
    "treatment": _treatment,
    "follow_up": _follow_up,
}
