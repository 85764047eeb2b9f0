"""A job file is valid, or the message names the wrong key and the valid values."""

from pathlib import Path

import pytest

from cache.errors import InputError
from cluster.capture.settings import CaptureSettings
from cluster.evaluation.settings import EvaluateSettings, ExamplesSettings
from cluster.report.settings import ReportSettings
from cluster.runtime.job_file import load_job
from student.training.settings import TrainSettings

JOBS = Path(__file__).resolve().parents[3] / "cluster" / "jobs" / "demo"
CAPTURE = 'examples = "e.jsonl"\nstore = "stores/s"\n[teacher]\nmodel = "m"\n'


def load(tmp_path: Path, text: str, *overrides: str) -> CaptureSettings:
    (tmp_path / "job.toml").write_text(text)
    return load_job(tmp_path / "job.toml", overrides, CaptureSettings, tmp_path)


@pytest.mark.parametrize(
    "name, kind",
    [
        ("examples", ExamplesSettings),
        ("teacher", TrainSettings),
        ("capture", CaptureSettings),
        ("heldout", CaptureSettings),
        ("student", TrainSettings),
        ("evaluate", EvaluateSettings),
        ("report", ReportSettings),
    ],
)
def test_shipped_jobs_are_valid(name: str, kind: type, tmp_path: Path) -> None:
    load_job(JOBS / f"{name}.toml", [], kind, tmp_path)


def test_paths_are_taken_from_the_root(tmp_path: Path) -> None:
    job = load(tmp_path, CAPTURE)
    assert job.examples == str(tmp_path / "e.jsonl")
    assert job.teacher.model == "m"  # no such folder: the name of a model on a hub
    (tmp_path / "m").mkdir()
    assert load(tmp_path, CAPTURE).teacher.model == str(tmp_path / "m")


def test_templates_and_adapters_are_taken_from_the_root(tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    given = ["generation.answer_marker=A:", "generation.shots=s.jsonl", "teacher.lora_path=lora"]
    given += ["generation.keep=rationalize"]
    own = load(tmp_path, CAPTURE, *given, "generation.template=t/mine.jinja", "generation.hint_template=h.jinja")
    assert own.generation and own.generation.shots == tmp_path / "s.jsonl"
    assert own.generation.template == str(tmp_path / "t/mine.jinja")
    assert own.generation.hint_template == str(tmp_path / "h.jinja")
    assert own.teacher.lora_path == str(tmp_path / "lora")
    built_in = load(tmp_path, CAPTURE, *given, "generation.template=step_by_step").generation
    assert built_in and (built_in.template, built_in.hint_template) == ("step_by_step", "hint")


def test_models_are_taken_from_the_root_where_they_are_folders(tmp_path: Path) -> None:
    """Would catch a key that names a model or tokenizer and is not marked as a ModelPath."""
    for name in ("ours", "tokens"):
        (tmp_path / name).mkdir()
    evaluate = load_job(JOBS / "evaluate.toml", ["models={a='ours', b='hub/name'}"], EvaluateSettings, tmp_path)
    assert evaluate.models == {"a": str(tmp_path / "ours"), "b": "hub/name"}
    changes = ["model={pretrained='ours'}", "tokenizer.path=tokens"]
    student = load_job(JOBS / "student.toml", changes, TrainSettings, tmp_path)
    assert (student.model.pretrained, student.tokenizer.path) == (str(tmp_path / "ours"), str(tmp_path / "tokens"))
    service = "engine={kind='endpoint', endpoint={api='openai', top_logprobs=5}}"
    captured = load(tmp_path, CAPTURE, "teacher.tokenizer=tokens", "store=s3://bucket/s", service)
    assert (captured.teacher.tokenizer, captured.store) == (str(tmp_path / "tokens"), "s3://bucket/s")


def test_overrides_reach_nested_keys(tmp_path: Path) -> None:
    job = load(tmp_path, CAPTURE, "targets.k=8", "teacher.dtype=bfloat16", "generation.samples=3")
    assert (job.targets.k, job.teacher.dtype) == (8, "bfloat16")
    assert job.generation and job.generation.samples == 3


@pytest.mark.parametrize(
    "text, overrides, message",
    [
        (CAPTURE + "dtpye = 'float32'\n", [], "unknown key 'teacher.dtpye'; did you mean 'dtype'"),
        (CAPTURE, ["unit_sise=3"], "unknown key 'unit_sise'; did you mean 'unit_size'"),
        (CAPTURE, ["targets.k=0"], "targets.k: .*greater than or equal to 1.*given 0"),
        (CAPTURE, ["targets.mode=best"], "targets.mode: .*'topk', 'nucleus', 'threshold' or 'sampled'.*given 'best'"),
        (CAPTURE, ["targets.mode=threshold"], '"threshold" needs a threshold up to 0.5'),
        (
            CAPTURE,
            ["targets.mode=topk", "targets.systematic=true"],
            "targets.systematic has no effect: it belongs to mode = .sampled., and the mode is .topk.",
        ),
        (CAPTURE, ["targets.k=3", "targets.draws=5"], "targets.k has no effect: .* the mode is .sampled."),
        (CAPTURE, ["targets.step=0.1"], "targets.step has no effect: .* the mode is .sampled., the default of this"),
        (CAPTURE, ["targets.mode=threshold", "targets.threshold=0.6"], "targets.threshold: .*given 0.6"),
        (
            CAPTURE,
            ["targets.mode=threshold", "targets.threshold=0.1", "targets.k=3"],
            "targets.k has no effect: it belongs to mode = .topk. or .nucleus.",
        ),
        (CAPTURE, ["targets.temperatures=[1.0]"], "temperatures must be above 0 and other than 1"),
        (CAPTURE, ["generation.template=step_by_step"], "a template needs the answer_marker"),
        (CAPTURE, ["generation.shots=s.jsonl"], "shots are shown by a template"),
        (CAPTURE, ["teacher.truncation=both"], "teacher.truncation: .*'refuse', 'left' or 'right'.*given 'both'"),
        (CAPTURE, ["targets.mode=nucleus"], '"nucleus" needs a mass between 0 and 1'),
        (CAPTURE, ["engine=vllm"], "engine: must be a table .given 'vllm'"),
        (CAPTURE, ["engine.kind=transformers", "engine.batched_tokens=64"], "it is a key of kind = 'vllm'; valid keys"),
        (CAPTURE, ["engine.kind=vlm"], "engine.kind: unknown engine kind 'vlm'; valid values: endpoint"),
        (CAPTURE, ["generation.sample=3"], "unknown key 'generation.sample'; did you mean 'samples'"),
        (CAPTURE, ["nonsense"], "expected key=value"),
        (CAPTURE, ["store.x=1"], "is a value, not a table"),
        ("examples = 'e'\n", [], "missing key 'store'"),
        ("examples = \n", [], "line 1: not valid TOML: this is no value of TOML; a text needs quotes"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, text, *overrides)


def test_an_absent_job_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: no such file"):
        load_job(tmp_path / "none.toml", [], CaptureSettings, tmp_path)


def test_batch_sizes_must_divide(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"batch_size 10 must be a multiple of ranks x micro_batch_size = 2 x 32"):
        load_job(JOBS / "student.toml", ["run.batch_size=10"], TrainSettings, tmp_path)


def test_hard_labels_are_all_that_a_file_can_teach(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no teacher"):
        load_job(JOBS / "teacher.toml", ["loss={objective='forward_kl'}"], TrainSettings, tmp_path)


@pytest.mark.parametrize("name", ["mixture", "teachers"])
def test_stores_of_a_list_start_at_the_root(tmp_path: Path, name: str) -> None:
    """Would catch workers elsewhere that look for a store below their own folder."""
    stores = "[{store='a', weight=2.0}, {store='s3://bucket/b'}]"
    job = load_job(JOBS / "student.toml", [f"data={{{name}={stores}}}"], TrainSettings, tmp_path)
    assert [item.store for item in job.data.stores] == [str(tmp_path / "a"), "s3://bucket/b"]
    assert [item.weight for item in getattr(job.data, name)] == [2.0, 1.0]


def test_a_union_and_the_metadata_of_its_examples(tmp_path: Path) -> None:
    union = "union=[{store='a'}, {store='s3://bucket/b', snapshot=3}]"
    data = f"data={{{union}, where={{topic='sums', level=2, hard=true, tags=['a', 1.5]}}}}"
    job = load_job(JOBS / "student.toml", [data], TrainSettings, tmp_path)
    assert [item.store for item in job.data.stores] == [str(tmp_path / "a"), "s3://bucket/b"]
    assert [item.snapshot for item in job.data.stores] == [None, 3]
    assert job.data.where == {"topic": "sums", "level": 2, "hard": True, "tags": ["a", 1.5]}


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["loss.objective=kl"], "valid names: forward_kl, hard_label, jsd, reverse_kl"),
        (["loss.tail=renormalise", "loss.objective=jsd"], "infinite or undefined"),
        (["loss.beta=0.3"], "beta is a parameter of jsd"),
        (["loss.objective=hard_label", "loss.temperature=2.0"], "neither a temperature nor a tail"),
        (["loss.terms=[{objective='jsd'}]", "loss.temperature=2.0"], "'terms' replaces .*temperature"),
        (["loss.segments={response=0.0, rationale=0.0, label=0.0}"], "at least one segment"),
        (["data.mixture=[{store='a'}]"], "exactly one of 'store', 'union', 'mixture', 'teachers' and 'examples'"),
        (["data.union=[{store='a'}]"], r"exactly one of .* not \['store', 'union'\]"),
        (
            ["data={union=[{store='a'}], snapshot=2}"],
            "'snapshot' is that of 'store'; give each store of a list its own",
        ),
        (["data={union=[{store='a', weight=2.0}]}"], "unknown key 'data.union.0.weight'; valid keys: snapshot, store"),
        (["data={teachers=[{store='a'}]}"], "averages several stores"),
        (["data.align=cross_tokenizer"], "needs the student's tokenizer"),
        (["run.offload=all"], "offload = 'all' needs zero_stage 3"),
        (["model.lora={rank=4}"], "'lora' adapts pretrained weights"),
        (["heldout={every=5}"], "exactly one of 'store' and 'examples'"),
        (["classes={labels=['a', 'b']}", "data.pack_to=64"], r"\[classes\] reads one 'store' or 'examples'"),
    ],
)
def test_impossible_trainings_are_explained(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_job(JOBS / "student.toml", overrides, TrainSettings, tmp_path)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["task.molecule=3"], "unknown key 'task.molecule'; did you mean 'molecules'. valid keys: .*heldout_share"),
        (["task.similarity=3"], r"job file .*: task\.similarity: .*less than or equal to 1 \(given 3\)"),
        (["task={}"], "missing key 'task.name'; valid values: .*drug_editing"),
        (["task={name='poetry'}"], "task.name: unknown task 'poetry'; valid values: .*drug_editing"),
    ],
)
@pytest.mark.parametrize("name, kind", [("examples", ExamplesSettings), ("evaluate", EvaluateSettings)])
def test_mistakes_in_a_task_are_explained(
    tmp_path: Path, name: str, kind: type, overrides: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_job(JOBS / f"{name}.toml", overrides, kind, tmp_path)


def test_mistakes_inside_a_list_are_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown key 'loss\.terms\.0\.wieght'; did you mean 'weight'"):
        load_job(JOBS / "student.toml", ["loss={terms=[{objective='jsd', wieght=1.0}]}"], TrainSettings, tmp_path)
