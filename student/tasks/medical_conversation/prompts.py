"""What teachers are asked: to write a conversation, and to extract a record from one."""

import random
from collections.abc import Mapping

from cache.examples.example import Example
from cache.json_documents import digest
from student.tasks.medical_conversation.cases import CONDITIONS, REMARKS
from student.tasks.medical_conversation.conversation import write_turns
from student.tasks.medical_conversation.synthetic import MAX_EXCHANGES, make_conversation

MOODS = ("calm", "anxious", "frustrated", "cheerful", "confused")
EXTRACTION = (
    'Extract the patient record from the conversation as one JSON object with the keys "patient_details" (with '
    '"name", "age", "gender"), "medical_history" (a list), "current_diagnosis" (a list) and "prescription" (a list of '
    'objects with "medication", "dosage", "purpose", "instructions"). Write "NOT PROVIDED" for whatever the '
    "conversation does not say."
)
WRITING = (
    "Write a conversation between a doctor and a patient about {topic}. The patient is {mood}. Write exactly "
    '{exchanges} exchanges. Each exchange is one line that begins with "Doctor:" and one line that begins with '
    '"Patient:". The patient may give a name, an age and earlier illnesses. The doctor may name a diagnosis and '
    "prescribe a medication with its dosage, its purpose and instructions. Write only the conversation."
)


def conversation_prompts(
    topics: tuple[str, ...], moods: tuple[str, ...], exchanges: tuple[int, int], count: int, seed: int, shown: int
) -> list[Example]:
    """Prompts for conversations. Number i depends on the seed and i alone: a larger count keeps the first ones.

    Topics and moods take turns, so that each pair of them is as frequent as any other. shown: grammar-made
    conversations of other topics that a chat shows first, as earlier answers.
    """
    prompts = []
    for i in range(count):
        draw = random.Random(f"{seed}:{i}")
        facts = {
            "topic": topics[i % len(topics)],
            "mood": moods[(i // len(topics)) % len(moods)],
            "exchanges": draw.randint(*exchanges),
        }
        turns: list[dict[str, str]] = []
        for _ in range(shown):
            turns += _shown(draw, str(facts["topic"]), int(str(facts["exchanges"])))
        prompts.append(
            Example(
                id=f"conversation-{seed}-{i}",
                messages=(*turns, {"role": "user", "content": WRITING.format(**facts)}),
                metadata={"kind": "conversation", **facts, "number": i},
            )
        )
    return prompts


def _shown(draw: random.Random, topic: str, exchanges: int) -> list[dict[str, str]]:
    """A request and its answer: a grammar-made conversation of another topic with so many exchanges."""
    exchanges = min(exchanges, MAX_EXCHANGES)
    others = [name for name in CONDITIONS if name != topic]
    made = make_conversation([draw.choice(others)], list(REMARKS), (exchanges, exchanges), draw.getrandbits(30), 0)
    content = WRITING.format(topic=made.topic, mood=made.mood, exchanges=exchanges)
    return [{"role": "user", "content": content}, {"role": "assistant", "content": write_turns(made.turns)}]


def record_example(
    conversation: str, instruction: str, metadata: Mapping[str, object], response: str = "", name: str = ""
) -> Example:
    """A prompt to extract a record. response: the record in JSON, if it is known."""
    content = f"{instruction}\n\n{conversation}"
    return Example(
        id=name or f"record-{digest(conversation)[:16]}",
        messages=({"role": "user", "content": content},),
        response=response,
        metadata={"kind": "record", "conversation": conversation, **metadata},
    )
