"""What the report shows of answers: escaped text, marked mistakes, tables of fields."""

import json
from typing import Any

from cache.examples.example import Example
from cache.progress import no_progress
from student.tasks.medical_conversation.task import MedicalConversation
from tests.student.tasks.medical_conversation.test_record import CONVERSATION, GIVEN, TRUE

TASK = MedicalConversation()


def example(**facts: Any) -> Example:
    return Example("e", (), metadata={"kind": "record", "conversation": CONVERSATION + "<b>", **facts})


def test_a_record_is_shown_beside_its_conversation() -> None:
    panel = TASK.panel(example(record=TRUE), json.dumps(GIVEN))
    assert panel is not None and "&lt;b&gt;" in panel.prompt and "<b>" not in panel.prompt
    assert "<dd class=wrong>54</dd>" in panel.answer and "<dt>age (true)</dt><dd>45</dd>" in panel.answer
    assert "<dt>current_diagnosis (true)</dt><dd>migraine</dd>" in panel.answer
    right = TASK.panel(example(record=TRUE), json.dumps(TRUE))
    assert right is not None and "wrong" not in right.answer and right.caption.endswith("the true record")
    none = TASK.panel(example(record=TRUE), "no")
    assert none is not None and not none.answer and "no JSON object" in none.caption
    unlabelled = TASK.panel(example(), json.dumps(GIVEN))
    assert unlabelled is not None and "wrong" not in unlabelled.answer


def test_charts_have_each_model_and_field() -> None:
    def answers(text: str, count: int = 3) -> list[dict[str, Any]]:
        made = example(record=TRUE)
        return [{"id": "e", "text": text, "scores": TASK.judge(made, text), "metadata": made.metadata}] * count

    charts = TASK.charts({"good": answers(json.dumps(TRUE)), "bad": answers("no")})
    assert [chart.caption for chart in charts][-1] == "The evaluated conversations"
    table = charts[1].html
    assert "<th>good</th><th>bad</th>" in table and "<td>dosage</td><td>1.000</td><td>0.000</td>" in table
    assert "<td>gender: NOT PROVIDED</td><td>100.0%</td>" in charts[-1].html
    assert "<svg" in charts[0].html


def test_sections_have_a_confusion_matrix() -> None:
    facts = {"kind": "section", "header": "CC", "section_text": "a cough", "conversation": "Doctor: Hi."}
    made = Example("s", (), metadata=facts)
    scores = [TASK.judge(made, text) for text in ("CC\na cough", "ROS\nx", "nothing")]
    rows = [{"id": "s", "text": "", "scores": each, "metadata": facts} for each in scores]
    (chart,) = TASK.charts({"model": rows})
    assert chart.caption == "Headers given by model" and "<svg" in chart.html
    panel = TASK.panel(made, "ROS\nx")
    assert panel is not None and panel.caption == "wrong header"
    assert TASK.charts({}) == [] and TASK.build(no_progress).splits.keys() == {"train", "heldout"}
