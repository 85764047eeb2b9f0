"""The job files of the task are valid, and each service gets its own form and no key in a file."""

from pathlib import Path

import pytest

from cluster.capture.settings import CaptureSettings
from cluster.evaluation.settings import EvaluateSettings, ExamplesSettings
from cluster.report.settings import ReportSettings
from cluster.runtime.job_file import load_job
from student.training.settings import TrainSettings
from teacher_serving.engines.endpoint.settings import EndpointEngineSettings

ROOT = Path(__file__).resolve().parents[4]
JOBS = ROOT / "cluster" / "jobs" / "medical_conversation"
SERVICES = {
    "deepseek": ("openai", "DEEPSEEK_API_KEY", "json_object"),
    "groq": ("openai", "GROQ_API_KEY", "json_object"),
    "openai": ("openai", "OPENAI_API_KEY", "json_schema"),
    "anthropic": ("anthropic", "ANTHROPIC_API_KEY", "json_schema"),
    "vllm": ("vllm", None, "json_schema"),
}
RECORDS = (
    "examples=runs/medical/records/records.jsonl",
    "generation.temperature=0.0",
    "generation.json_schema=cluster/jobs/medical_conversation/record.schema.json",
)


def kind_of(text: str) -> type:
    marks = {"[models]": EvaluateSettings, "[trainings]": ReportSettings, "[optimizer]": TrainSettings}
    found = [kind for mark, kind in marks.items() if mark in text]
    return found[0] if found else CaptureSettings if "\nstore = " in text else ExamplesSettings


@pytest.mark.parametrize("path", sorted(JOBS.rglob("*.toml")), ids=lambda path: str(path.relative_to(JOBS)))
def test_a_job_file_is_valid(path: Path) -> None:
    load_job(path, [], kind_of(path.read_text()), ROOT)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_writes_conversations_and_records(name: str) -> None:
    api, variable, form = SERVICES[name]
    for changes in ((), RECORDS):
        job = load_job(JOBS / "teachers" / f"{name}.toml", changes, CaptureSettings, ROOT)
        assert isinstance(job.engine, EndpointEngineSettings) and not job.score
        endpoint = job.engine.endpoint
        assert (endpoint.api, endpoint.key_variable, endpoint.schema_form) == (api, variable, form)
        assert job.generation is not None and bool(job.generation.sampling.json_schema) == bool(changes)
