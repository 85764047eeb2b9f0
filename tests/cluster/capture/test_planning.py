"""A plan is the same on another day, and says what becomes of every line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cache.errors import InputError, SpecMismatchError
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cluster.capture.planning import CapturePlan, plan_job, preview_job
from cluster.capture.settings import CaptureSettings
from tests.cache.rendering.published_templates import DATED, THINKING


@pytest.fixture
def job(tmp_path: Path, tiny_model: Path) -> Any:
    """Makes the settings of a job with another chat template."""
    shutil.copytree(tiny_model, tmp_path / "teacher")
    lines = [
        {"prompt": "say one", "response": "one"},
        {"prompt": "say two"},
        {"id": "b", "prompt": "say one", "response": "one"},
        {"id": "b", "prompt": "say one", "response": "one"},
        {"prompt": "say one", "response": "one"},
        {"prompt": "red " * 80, "response": "one"},
    ]
    (tmp_path / "examples.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n{\n\n")

    def make(template: str, **teacher: Any) -> CaptureSettings:
        (tmp_path / "teacher" / "chat_template.jinja").write_text(template)
        known = {"model": str(tmp_path / "teacher"), "max_tokens": 120, **teacher}
        fields = {"examples": tmp_path / "examples.jsonl", "store": tmp_path / "store", "teacher": known}
        return CaptureSettings.model_validate({**fields, "engine": {"kind": "transformers"}, "targets": {"k": 4}})

    return make


def keys_of(plan: CapturePlan) -> list[str]:
    return [key.tobytes().hex() for work in plan.works for key in work.keys]


def test_every_line_is_accounted_for(job: Any) -> None:
    plan = plan_job(job(THINKING))
    summary = plan.input.summary
    assert (summary.lines, summary.captured, summary.unanswered) == (7, 2, 1)
    assert (summary.duplicates, summary.rejected, summary.invalid) == (2, 1, 1)
    preview = preview_job(job(THINKING))
    assert (
        "of 7 lines 2 are examples to capture, 1 without a response, 2 equal to earlier ones, 1 rejected, " in preview
    )
    for line in ("without a response: example 2", "example b is equal to example b", "example 5 is equal to example 1"):
        assert line in preview
    assert "rejected 6: " in preview and "rejected 7: line 7: is not JSON" in preview


def test_a_capture_that_goes_on_the_next_day_asks_for_nothing_again(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("teacher_serving.engines.prompt_settings.today", lambda: "2026-02-03")
    first = plan_job(job(DATED))
    create_store(LocalStorage(first.job.storage.root), first.job.description.spec)
    monkeypatch.setattr("teacher_serving.engines.prompt_settings.today", lambda: "2026-02-04")
    again = plan_job(job(DATED))
    assert again.job.description.spec.template_date == "2026-02-03"
    assert keys_of(again) == keys_of(first)
    assert again.job.description.spec.fingerprint == first.job.description.spec.fingerprint
    text = again.job.description.tokenizer.decode(again.works[0].units[0][0].tokenized.tokens)
    assert "03 Feb 2026" in text
    with pytest.raises(SpecMismatchError, match="template_date"):
        plan_job(job(DATED, template_date="2026-02-04"))


def test_variables_of_the_template_belong_to_the_content(job: Any) -> None:
    thinking, silent = (plan_job(job(THINKING, chat_template_kwargs={"enable_thinking": on})) for on in (True, False))
    assert thinking.job.description.spec.fingerprint != silent.job.description.spec.fingerprint
    assert not set(keys_of(thinking)) & set(keys_of(silent))
    assert plan_job(job(THINKING)).job.description.spec.fingerprint != silent.job.description.spec.fingerprint


@pytest.mark.parametrize(
    "template, teacher, message",
    [
        (THINKING, {"chat_template_kwargs": {"enable_thinkin": False}}, r"chat_template_kwargs\.enable_thinkin: "),
        (THINKING, {"template_date": "2026-02-03"}, "template_date.*the chat template writes no date"),
    ],
)
def test_settings_that_a_template_does_not_use_are_refused(
    job: Any, template: str, teacher: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan_job(job(template, **teacher))
