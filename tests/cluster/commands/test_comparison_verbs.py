"""`compare` and `probe`: figures that people and scripts can use, with real engines."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cluster.commands.main import main
from tests.cache.rows.rows import TARGETS
from tests.cache.store.reading.chat_stores import chat_records, chat_spec, chat_store, write_store


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    chat_store(folder / "one", "topk")
    write_store(folder / "other", chat_spec(TARGETS["topk"]), chat_records(TARGETS["topk"], seed=2))
    chat_store(folder / "drawn", "sampled")
    return folder


def test_compare_prints_a_table_and_judges(stores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--root", stores, "compare", "one", "one", "--max-kl", "1e-4")
    assert code == 0 and "rows of 200 examples; left out" not in out and "divergence, nats" in out
    code, out, _ = run(capsys, "--root", stores, "compare", "one", "other", "--max-kl", "0.01")
    assert code == 1 and "is above --max-kl 0.01" in out and out.count("far apart: token") == 5
    code, out, _ = run(capsys, "--root", stores, "compare", "one", "other", "--json", "--examples", "30")
    found = json.loads(out)
    assert code == 0 and found["examples"] == 30 and found["kl"]["mean"] > 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("one", "drawn"), 'which cannot be compared; capture with targets.mode = "topk"'),
        (("one", "missing"), "missing"),
        (("one", "other", "--examples", "0"), "--examples 0: give 1 or more"),
        (("one", "other", "--max-kl", "nan"), "--max-kl nan: give a number of nats above 0"),
    ],
)
def test_compare_refuses(
    words: tuple[str, ...], message: str, stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, error = run(capsys, "--root", stores, "compare", *words)
    assert code == 2 and not out and message in error and error.count("\n") == 1


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A job whose teacher scores and writes, and the same model with other weights."""
    folder = tmp_path_factory.mktemp("probe")
    lines = [{"prompt": f"say {i}", "response": "one two " * (1 + i % 9)} for i in range(300)]
    (folder / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "capture.toml").write_text(
        'examples = "examples.jsonl"\nstore = "store"\nactors = 2\nunit_size = 40\n'
        f'[teacher]\nmodel = "{tiny_model}"\nmax_tokens = 96\n'
    )
    shutil.copytree(tiny_model, folder / "rounded")
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * weight.std(), alpha=0.3)
    model.save_pretrained(folder / "rounded")
    return folder / "capture.toml"


def probe(capsys: pytest.CaptureFixture[str], job: Path, *words: str) -> tuple[int, dict[str, Any]]:
    code, out, error = run(capsys, "--root", job.parent, "probe", job, "--json", *words)
    assert code in (0, 1), error
    return code, json.loads(out)


@pytest.mark.slow
def test_an_engine_says_what_transformers_says(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The job's own rows are draws, which are compared as the most probable tokens. Nothing is left behind."""
    before = sorted(path.name for path in job.parent.iterdir())
    code, found = probe(capsys, job, "--examples", "120", "--max-kl", "1e-3", "--set", "teacher.dtype=float32")
    assert code == 0 and found["examples"] == 120 and found["rows"] > 500
    assert found["kl"]["mean"] < 1e-4 and found["same_first"] > 0.98
    assert abs(found["label"]) < 1e-3 and found["tokens_per_s"]["reference"] > 0
    assert sorted(path.name for path in job.parent.iterdir()) == before


@pytest.mark.slow
def test_other_weights_are_far_from_the_reference(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a probe that compares an engine with itself. What the teacher writes is scored by the reference."""
    writes = ('generation={ temperature = 0.8, max_new_tokens = 12, answer_marker = "" }', "score=false")
    words = [word for each in writes for word in ("--set", each)]
    code, found = probe(
        capsys,
        job,
        "--examples",
        "60",
        "--max-kl",
        "1e-3",
        *words,
        "--reference",
        f"teacher.model={job.parent}/rounded",
    )
    assert code == 1 and found["examples"] > 30 and found["kl"]["mean"] > 5e-3


def test_a_reference_that_cannot_be(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run(capsys, "--root", job.parent, "probe", job, "--reference", "teacher.model")
    assert code == 2 and "--reference 'teacher.model': expected key=value" in error
    for key in ("store=elsewhere", "targets.k=256", "limit=2"):
        code, _, error = run(capsys, "--root", job.parent, "probe", job, "--reference", key)
        assert code == 2 and "change a key of [teacher] or [engine]" in error
    other = AutoTokenizer.from_pretrained(job.parent / "rounded")
    other.add_tokens(["a new one"])
    other.save_pretrained(job.parent / "longer")
    (job.parent / "longer/config.json").write_text((job.parent / "rounded/config.json").read_text())
    code, _, error = run(
        capsys, "--root", job.parent, "probe", job, "--reference", f"teacher.model={job.parent}/longer"
    )
    assert code == 2 and "has another tokenizer than" in error and error.count("\n") == 1
    code, _, error = run(capsys, "--root", job.parent, "probe", job, "--reference", "teacher.colour=red")
    assert code == 2 and "colour" in error and "as the reference" in error
