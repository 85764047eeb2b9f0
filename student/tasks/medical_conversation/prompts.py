"""What teachers are asked: to write a conversation, and to extract a record from one."""

import random
from collections.abc import Mapping

from cache.examples.example import Example
from cache.json_documents import digest

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
    topics: tuple[str, ...], moods: tuple[str, ...], exchanges: tuple[int, int], count: int, seed: int
) -> list[Example]:
    """Prompts for conversations. Number i depends on the seed and i alone: a larger count keeps the first ones.

    Topics and moods take turns, so that each pair of them is as frequent as any other.
    """
    prompts = []
    for i in range(count):
        draw = random.Random(f"{seed}:{i}")
        facts = {
            "topic": topics[i % len(topics)],
            "mood": moods[(i // len(topics)) % len(moods)],
            "exchanges": draw.randint(*exchanges),
        }
        content = WRITING.format(**facts)
        prompts.append(
            Example(
                id=f"conversation-{seed}-{i}",
                messages=({"role": "user", "content": content},),
                metadata={"kind": "conversation", **facts, "number": i},
            )
        )
    return prompts


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
