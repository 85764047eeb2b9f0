"""The patient record: its schema, and the parser of records that models write."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cache.answers.reasoning import find_reasoning_end

NOT_PROVIDED = "NOT PROVIDED"
Absent = Literal["NOT PROVIDED"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PatientDetails(_Strict):
    """Who the patient is. Each value is "NOT PROVIDED" if the conversation does not say it."""

    name: str
    age: int | Absent = Field(description="in years")
    gender: str


class Prescription(_Strict):
    """One medication that the doctor prescribes in the conversation."""

    medication: str
    dosage: str
    purpose: str
    instructions: str


class PatientRecord(_Strict):
    """What a conversation says of a patient.

    "NOT PROVIDED" in place of a list: the conversation does not speak of it. An empty list: it says that there is none.
    """

    patient_details: PatientDetails
    medical_history: list[str] | Absent
    current_diagnosis: list[str] | Absent
    prescription: list[Prescription] | Absent

    def to_json(self) -> str:
        """One line of JSON, as examples and answers have it."""
        return json.dumps(self.model_dump(), ensure_ascii=False)


SCALARS = tuple(PatientDetails.model_fields)
LISTS = ("medical_history", "current_diagnosis")
SLOTS = tuple(Prescription.model_fields)
KEYS = tuple(PatientRecord.model_fields)


@dataclass(frozen=True, slots=True)
class ParsedRecord:
    """The record of an answer.

    status: "strict", the answer is one JSON object and nothing else; "tolerant", the object was in a block of code or
        among words; "none", there is no JSON object with a key of the schema.
    value: the object as it was written; empty if status is "none".
    problem: why the object does not have the form of the schema; "" if it has.
    """

    status: Literal["strict", "tolerant", "none"]
    value: dict[str, Any]
    problem: str

    @property
    def conforms(self) -> bool:
        """Whether there is an object, and it has the form of the schema."""
        return self.status != "none" and not self.problem


def parse_record(text: str, strict: bool = False) -> ParsedRecord:
    """Parse an answer. Reasoning before it is ignored.

    strict: accept only an answer that is one JSON object. Otherwise the first object with a key of the schema counts.
    """
    answer = text[find_reasoning_end(text) :].strip()
    value = _load(answer)
    if value is not None and set(KEYS) & set(value):
        return ParsedRecord("strict", value, _problem(value))
    if not strict:
        start = answer.find("{")
        while start >= 0:
            value = _load(answer, start)
            if value is not None and set(KEYS) & set(value):
                return ParsedRecord("tolerant", value, _problem(value))
            start = answer.find("{", start + 1)
    return ParsedRecord("none", {}, "no JSON object with a key of the schema")


def _load(text: str, start: int | None = None) -> dict[str, Any] | None:
    """The object that is the whole text, or that begins at `start`; None if there is none. NaN is no JSON."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    try:
        value = decoder.decode(text) if start is None else decoder.raw_decode(text, start)[0]
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _problem(value: dict[str, Any]) -> str:
    """The first reason why an object does not have the form of the schema, with the place; "" if it has."""
    try:
        PatientRecord.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return ""


def record_schema() -> dict[str, Any]:
    """The JSON schema of the record, for services and engines that follow one."""
    return dict(_closed(PatientRecord.model_json_schema()))


def _closed(schema: Any) -> Any:
    """The schema without titles and descriptions, which cost tokens and are no part of the form."""
    if isinstance(schema, dict):
        # The names of properties are no keywords: a property may be called "title".
        return {
            key: {name: _closed(each) for name, each in value.items()}
            if key in ("properties", "$defs")
            else _closed(value)
            for key, value in schema.items()
            if key not in ("title", "description")
        }
    return [_closed(each) for each in schema] if isinstance(schema, list) else schema
