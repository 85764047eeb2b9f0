"""The result of an evaluation belongs to the weights that it measured, not to the folder they were in."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from cache.errors import InputError
from cluster.evaluation.driver import run_evaluation
from cluster.evaluation.model_digest import model_digest
from cluster.evaluation.settings import EvaluateSettings
from cluster.report.results import read_sources
from cluster.report.settings import ReportSettings
from tests.cache.rows.rows import VOCAB
from tests.student.training.ranks import LLAMA, TOPK, make_store


def change_weights(folder: Path) -> None:
    """What more steps of training do."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight *= 2
    model.save_pretrained(folder)


def test_a_changed_model_is_evaluated_again_and_no_other(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch figures of an earlier model under the name of the present one, in an evaluation or in a report."""
    store = make_store(tmp_path / "store", tiny_model, TOPK, 6)
    for name in ("one", "two"):
        shutil.copytree(tiny_model, tmp_path / name)
        LlamaForCausalLM(LlamaConfig(**{**LLAMA, "tie_word_embeddings": False}, vocab_size=VOCAB)).save_pretrained(
            tmp_path / name
        )
    models = {name: str(tmp_path / name) for name in ("one", "two")}
    settings = EvaluateSettings.model_validate(
        {"output": tmp_path / "evaluation", "store": str(store), "models": models}
    )
    before = run_evaluation(settings)
    times = {name: (tmp_path / "evaluation" / f"{name}.json").stat().st_mtime_ns for name in models}
    (tmp_path / "one" / "README.md").write_text("a model card changes nothing")
    assert run_evaluation(settings)["models"] == before["models"]
    assert {name: (tmp_path / "evaluation" / f"{name}.json").stat().st_mtime_ns for name in models} == times

    change_weights(tmp_path / "one")
    report = ReportSettings.model_validate(
        {
            "output": tmp_path,
            "title": "report",
            "store": str(store),
            "heldout_store": str(store),
            "trainings": {"one": tmp_path / "training"},
            "evaluation": tmp_path / "evaluation",
        }
    )
    with pytest.raises(InputError, match=r"model 'one' .* has changed since its evaluation; run 'logitbank evaluate'"):
        read_sources(report)
    capsys.readouterr()
    after = run_evaluation(settings)
    assert "one; it is evaluated again" in capsys.readouterr().out
    assert after["models"]["one"]["kl_to_teacher"] != before["models"]["one"]["kl_to_teacher"]
    assert after["models"]["two"] == before["models"]["two"]
    with pytest.raises(InputError, match=r"training\.json"):  # the report goes on to the next file
        read_sources(report)


def test_the_digest_covers_names_and_contents_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    first = model_digest(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"weightS")
    second = model_digest(str(tmp_path))
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    assert len({first, second, model_digest(str(tmp_path))}) == 3
    assert model_digest("organisation/name-in-a-hub") == "organisation/name-in-a-hub"


def test_models_may_join_and_leave_an_evaluation(tmp_path: Path, tiny_model: Path) -> None:
    """As when more seeds are trained after a first evaluation. What is there already is not evaluated again."""
    store = make_store(tmp_path / "store", tiny_model, TOPK, 6)
    model = shutil.copytree(tiny_model, tmp_path / "model")
    LlamaForCausalLM(LlamaConfig(**LLAMA, vocab_size=VOCAB)).save_pretrained(model)
    evaluated = []
    for names in ("one", "one two", "two"):
        models = {name: str(model) for name in names.split()}
        settings = EvaluateSettings.model_validate({"output": tmp_path / "e", "store": str(store), "models": models})
        assert list(run_evaluation(settings)["models"]) == names.split()
        evaluated.append({path.name: path.stat().st_mtime_ns for path in (tmp_path / "e").glob("one.json")})
    assert evaluated[0]["one.json"] == evaluated[2]["one.json"]
    other = settings.model_copy(update={"trust_remote_code": True})
    with pytest.raises(InputError, match="trust_remote_code: was False, now True"):
        run_evaluation(other)
