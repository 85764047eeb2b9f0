"""A student in a folder, and as a model on a stub of a hub: with its card, loadable, replacing an earlier one."""

import json
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForCausalLM

from cache.errors import InputError
from cluster.training.student_publication import publish_student, student_of
from tests.cache.exchange.hub import running_hub
from tests.cache.exchange.test_publication import run

CARD = "---\nlibrary_name: transformers\ntags:\n- logitbank\n---\n\n# run\n\nA student.\n"


@pytest.fixture
def training(tmp_path: Path, tiny_model: Path) -> Path:
    """The output of a run."""
    output = tmp_path / "runs" / "kd"
    model = output / "model"
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(model)
    (model / "README.md").write_text(CARD)
    (model / "adapter").mkdir()
    (model / "adapter" / "adapter_config.json").write_text("{}")
    (output / "training.json").write_text(json.dumps({"parameters": 1}))
    return output


def front_matter(card: str) -> dict[str, object]:
    return dict(yaml.safe_load(card.split("---")[1]))


def test_a_run_or_its_model_is_a_student(training: Path, tmp_path: Path) -> None:
    assert student_of(str(training)) == student_of(str(training / "model")) == training / "model"
    assert student_of(str(tmp_path)) is None and student_of("s3://bucket/store") is None
    (tmp_path / "unfinished" / "checkpoints").mkdir(parents=True)
    with pytest.raises(InputError, match="has not saved its student yet"):
        student_of(str(tmp_path / "unfinished"))


def test_a_folder(training: Path, tmp_path: Path) -> None:
    """Would catch a card of the run that changes with that of the copy, because both are one file."""
    place = publish_student(training / "model", str(tmp_path / "out"), "My student", "apache-2.0", False)
    card = Path(place).read_text()
    assert front_matter(card) == {"library_name": "transformers", "tags": ["logitbank"], "license": "apache-2.0"}
    assert "\n# My student\n" in card and "A student." in card
    assert (training / "model" / "README.md").read_text() == CARD
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").num_parameters() > 0
    assert (tmp_path / "out" / "adapter" / "adapter_config.json").is_file()
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []


def test_targets_that_are_refused(training: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for target, message in {
        str(tmp_path / "full"): "is not empty",
        str(training / "model" / "copy"): "lies inside the student's folder",
        "s3://bucket/student": "publish into a folder, or to hf://OWNER/NAME",
        "hf://datasets/me/data": "is no model on a hub",
        "hf://me": "is no model on a hub",
        "hf://me/data/model": "is no model on a hub",
    }.items():
        with pytest.raises(InputError, match=message):
            publish_student(training / "model", target, None, None, False)
    assert sorted(path.name for path in training.iterdir()) == ["model", "training.json"]


def test_a_model_on_a_hub(training: Path, tmp_path: Path) -> None:
    """A second publication without adapters removes those of the first. A store's options are refused."""
    publish = ("-m", "cluster.commands.main", "publish", str(training))
    with running_hub() as hub:
        refused = run(hub, tmp_path / "hf", *publish, "hf://me/data", token="hf_wrong")
        assert refused.returncode == 2 and "hf://me/data: cannot be written" in refused.stderr and not hub.files
        sent = run(hub, tmp_path / "hf", *publish, "hf://me/data", "--private", "--license", "mit", "--json")
        assert sent.returncode == 0, sent.stderr
        assert json.loads(sent.stdout)["card"] == "hf://me/data"
        # A model is what a hub makes if no kind is named.
        assert hub.created[0]["visibility"] == "private" and hub.created[0].get("type", "model") == "model"
        assert {"README.md", "config.json", "model.safetensors", "adapter/adapter_config.json"} <= set(hub.files)
        assert front_matter(hub.files["README.md"].decode())["license"] == "mit"
        (training / "model" / "adapter" / "adapter_config.json").unlink()
        again = run(hub, tmp_path / "hf", *publish, "hf://me/data")
        assert again.returncode == 0 and not any(name.startswith("adapter") for name in hub.files), again.stderr
        assert hub.commits == 2
        wrong = run(hub, tmp_path / "hf", *publish, "hf://me/data", "--format", "parquet")
        assert wrong.returncode == 2 and "--format is for a store" in wrong.stderr
    assert not [path for path in training.iterdir() if path.name.startswith(".publish")]
