"""Records: the schema, the tolerant and the strict parser, and scores against values worked out by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from student.tasks.medical_conversation.record import PatientRecord, parse_record, record_schema
from student.tasks.medical_conversation.record_scores import record_metrics, score_record, spelled

NP = "NOT PROVIDED"
TRUE: dict[str, Any] = {
    "patient_details": {"name": "Anna Silva", "age": 45, "gender": NP},
    "medical_history": ["gout", "anemia"],
    "current_diagnosis": ["migraine"],
    "prescription": [{"medication": "ibuprofen", "dosage": "400 mg", "purpose": NP, "instructions": "once a day"}],
}
CONVERSATION = (
    "Doctor: Hello, Anna Silva. Patient: I am 45 and had gout and anemia. Doctor: It is a migraine. Take ibuprofen 400 "
    "mg once a day. Patient: My sister has asthma."
)
GIVEN: dict[str, Any] = {
    "patient_details": {"name": "anna silva.", "age": 54, "gender": "Female"},
    "medical_history": ["gout", "asthma"],
    "current_diagnosis": NP,
    "prescription": [
        {"medication": "Ibuprofen", "dosage": "400 mg", "purpose": NP, "instructions": NP},
        {"medication": "codeine", "dosage": "10 mg", "purpose": NP, "instructions": NP},
    ],
}


@pytest.mark.parametrize(
    "text, status",
    [
        (json.dumps(TRUE), "strict"),
        (f"  {json.dumps(TRUE, indent=1)}\n", "strict"),
        (f"<think>a {{b}}</think>\n{json.dumps(TRUE)}", "strict"),
        (f"```json\n{json.dumps(TRUE)}\n```", "tolerant"),
        (f"Here {{it}} is: {json.dumps(TRUE)} I hope that helps.", "tolerant"),
        (f'{{"other": 1}} {json.dumps(TRUE)}', "tolerant"),
        (json.dumps(TRUE)[:-1], "none"),
        (json.dumps(TRUE).replace("45", "NaN"), "none"),
        (f'{{"record": {json.dumps(TRUE)}}}', "tolerant"),
        ("{}", "none"),
        ('{"foo": 1}', "none"),
        ("[1]", "none"),
        ("", "none"),
        ("{" * 5000, "none"),
    ],
)
def test_an_answer_is_found_in_its_words(text: str, status: str) -> None:
    parsed = parse_record(text)
    assert parsed.status == status and (parsed.value == TRUE) == (status != "none")
    assert parsed.conforms == (status != "none")
    assert parse_record(text, strict=True).status == ("strict" if status == "strict" else "none")


@pytest.mark.parametrize(
    "place, value, problem",
    [
        (("patient_details", "age"), "45", "patient_details.age"),
        (("patient_details", "age"), None, "patient_details.age"),
        (("medical_history",), "gout", "medical_history"),
        (("prescription",), [{"medication": "a"}], "prescription"),
        (("extra",), 1, "extra"),
    ],
)
def test_what_does_not_have_the_form_is_named(place: tuple[str, ...], value: Any, problem: str) -> None:
    wrong = json.loads(json.dumps(TRUE))
    (wrong if len(place) == 1 else wrong[place[0]])[place[-1]] = value
    parsed = parse_record(json.dumps(wrong))
    assert parsed.status == "strict" and not parsed.conforms and parsed.problem.startswith(problem)


def test_the_schema_file_of_the_jobs_is_that_of_the_record() -> None:
    import jsonschema

    path = Path("cluster/jobs/medical_conversation/record.schema.json")
    schema = json.loads(path.read_text())
    assert schema == record_schema()
    for value, is_valid in ((TRUE, True), (GIVEN, True), ({**TRUE, "medical_history": []}, True), ({"a": 1}, False)):
        assert jsonschema.Draft202012Validator(schema).is_valid(value) is is_valid
    assert json.loads(PatientRecord.model_validate(TRUE).to_json()) == TRUE


def test_counts_are_those_worked_out_by_hand() -> None:
    scores = score_record(parse_record(json.dumps(GIVEN)), TRUE, CONVERSATION)
    counts = {key: value for key, value in scores.items() if value}
    assert counts == {
        **{"parsed": 1, "strict": 1, "conforms": 1, "labelled": 1},
        **{"name_tp": 1, "age_fp": 1, "age_fn": 1, "gender_fp": 1},
        **{"medical_history_tp": 1, "medical_history_fp": 1, "medical_history_fn": 1, "current_diagnosis_fn": 1},
        **{"medication_tp": 1, "medication_fp": 1, "dosage_tp": 1, "dosage_fp": 1, "instructions_fn": 1},
        # gender, and the purpose of ibuprofen, are not provided. The answer says so of the diagnosis, of purpose and
        # instructions of both medications.
        **{"absent_tp": 1, "absent_fp": 4, "absent_fn": 1, "absent_cells": 1},
        # 3 single values, 2 of the history, 2 medications and 2 dosages; 3 and 2, 1, 1, 1, 1 are true.
        **{"values": 9, "labelled_values": 9, "true_values": 8},
        # 54, Female, codeine, and its dosage have no support; asthma is the sister's, but it is there.
        **{"unsupported": 4, "hallucinated": 4},
        # anemia, migraine and the instructions are missing; the age is wrong, which is no omission.
        "omitted": 3,
    }
    metrics = record_metrics([scores])
    assert metrics["field_micro_f1"] == pytest.approx(2 * 4 / (2 * 4 + 5 + 4))
    by_field = [1, 0, 0, 0.5, 0, 2 / 3, 2 / 3, 0]  # nobody gives a purpose
    assert metrics["field_macro_f1"] == pytest.approx(sum(by_field) / 8)
    assert metrics["prescription_slot_f1"] == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))
    assert (metrics["not_provided_precision"], metrics["not_provided_recall"]) == (pytest.approx(0.2), 0.5)
    assert metrics["hallucination_rate"] == pytest.approx(4 / 9) and metrics["omission_rate"] == pytest.approx(3 / 8)
    assert metrics["false_value_rate"] == pytest.approx(5 / 9), "the sister's asthma is false, and has support"


def test_the_true_record_scores_one_and_no_answer_scores_zero() -> None:
    best = record_metrics([score_record(parse_record(json.dumps(TRUE)), TRUE, CONVERSATION)] * 2)
    none = record_metrics([score_record(parse_record("no"), TRUE, CONVERSATION)])
    for name in ("parse_rate", "schema_conformance", "record_exact_match", "field_micro_f1", "not_provided_recall"):
        assert (best[name], none[name]) == (1, 0)
    assert (best["hallucination_rate"], best["omission_rate"], none["omission_rate"]) == (0, 0, 1)


def test_without_a_true_record_only_metrics_without_labels_are_given() -> None:
    metrics = record_metrics([score_record(parse_record(json.dumps(GIVEN)), None, CONVERSATION)])
    assert metrics["unsupported_rate"] == pytest.approx(4 / 9) and metrics["not_provided_share"] == pytest.approx(1 / 6)
    assert not {"field_micro_f1", "hallucination_rate", "f1_name"} & set(metrics)


@pytest.mark.parametrize(
    "value", [{"prescription": [5, None]}, {"patient_details": [1]}, {"medical_history": [{"a": 1}]}]
)
def test_values_of_another_type_are_no_values(value: dict[str, Any]) -> None:
    scores = score_record(parse_record(json.dumps(value)), TRUE, CONVERSATION)
    assert scores["parsed"] and not scores["conforms"] and not scores["values"]


def test_ages_and_genders_are_supported_by_other_words() -> None:
    said = {"patient_details": {"name": NP, "age": 76, "gender": "Male"}}
    words = "Patient: I am seventy-six, sir."
    assert score_record(parse_record(json.dumps(said)), None, words)["unsupported"] == 0
    assert score_record(parse_record(json.dumps(said)), None, "Patient: I am seventy.")["unsupported"] == 2
    assert [spelled(number) for number in (0, 13, 20, 99)] == ["zero", "thirteen", "twenty", "ninety nine"]
    assert [spelled(number) for number in (100, 104, 120)] == ["hundred", "hundred four", "120"]


def scores_of(value: dict[str, Any], truth: dict[str, Any] | None = TRUE) -> dict[str, float]:
    return score_record(parse_record(json.dumps(value)), truth, CONVERSATION)


def test_a_dose_ten_times_as_large_is_another_value() -> None:
    """Would catch the normalisation of SQuAD, which has no decimal points."""
    true, given = json.loads(json.dumps(TRUE)), json.loads(json.dumps(TRUE))
    true["prescription"][0]["dosage"], given["prescription"][0]["dosage"] = "2.5 mg", "25 mg"
    scores = scores_of(given, true)
    assert (scores["dosage_tp"], scores["dosage_fp"], scores["dosage_fn"], scores["exact"]) == (0, 1, 1, 0)


def test_slots_without_a_medication_count_and_an_empty_prescription_is_none() -> None:
    """Would catch invented slots that cost nothing because their medication is missing."""
    given = json.loads(json.dumps(TRUE))
    given["prescription"].append({"medication": NP, "dosage": "90 mg", "purpose": "cancer", "instructions": NP})
    scores = scores_of(given)
    assert (scores["dosage_fp"], scores["purpose_fp"], scores["hallucinated"], scores["exact"]) == (1, 1, 2, 0)
    empty = {**TRUE, "prescription": [dict.fromkeys(("medication", "dosage", "purpose", "instructions"), NP)]}
    assert scores_of(empty, {**TRUE, "prescription": NP})["exact"] == 1


def test_values_of_records_without_a_truth_do_not_dilute_the_rate_of_hallucinations() -> None:
    labelled, unlabelled = scores_of(GIVEN), scores_of(GIVEN, None)
    rate = record_metrics([labelled])["hallucination_rate"]
    assert rate == 4 / 9 == record_metrics([labelled, unlabelled, unlabelled])["hallucination_rate"]


def test_a_field_without_any_value_has_no_part_in_macro_f1() -> None:
    """Would catch an answer that is no record and has most of its fields right, because there is nothing to find."""
    true = {**TRUE, "medical_history": NP, "prescription": NP}
    metrics = record_metrics([score_record(parse_record("no"), true, CONVERSATION)])
    assert metrics["field_macro_f1"] == 0 == metrics["f1_name"]
    assert not {"prescription_slot_f1", "f1_medical_history", "f1_gender"} & set(metrics)
