"""Keys of DeepSpeed that a job sets itself reach DeepSpeed; those that contradict the job are refused by name."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from safetensors.torch import load_file

from cache.errors import InputError
from student.training.deepspeed_options import OWN, PASSED, VALUES, merged, require_accepted
from student.training.engine.config import deepspeed_config
from student.training.run_settings import OptimizerSettings, RunSettings
from tests.student.training.ranks import TOPK, Job, make_store, settings_of, start


def with_options(options: dict[str, Any], tmp_path: Path) -> Any:
    return settings_of(tmp_path / "run", tmp_path / "store", deepspeed=options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"optimizer": {"type": "Adam"}}, r"optimizer contradicts the job: use \[optimizer\]"),
        ({"zero_optimization": {"stage": 3}}, "zero_optimization.stage contradicts the job: use run.zero_stage"),
        ({"checkpoint": {"load_universal": True}}, "checkpoint.load_universal contradicts the job"),
        ({"fp16": {"enabled": True}}, "fp16 contradicts the job: use run.precision"),
        ({"zero_optimisation": {}}, "zero_optimisation is not passed on to DeepSpeed; did you mean zero_optimization?"),
        ({"nonsense_key": 1}, "nonsense_key is not passed on to DeepSpeed; passed on are activation_checkpointing"),
        ({"timers": [1]}, "timers must be a table"),
        ({"zero_optimization": 3}, "zero_optimization must be a table"),
        ({"dump_state": {}}, "dump_state must be a value"),
        ({"log_level": "loud"}, "log_level: must be one of debug, info"),
    ],
)
def test_a_key_that_contradicts_the_job_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=message):
        with_options(options, tmp_path)


def test_no_key_is_both_passed_on_and_refused() -> None:
    assert not PASSED & set(OWN) and VALUES < PASSED


def test_a_device_beside_that_of_the_job_is_refused(tmp_path: Path) -> None:
    """Would catch weights that go to another place than a key says, without a word."""
    options = {"zero_optimization": {"offload_optimizer": {"device": "nvme", "nvme_path": "/fast"}}}
    assert with_options(options, tmp_path).deepspeed == options
    with pytest.raises(
        ValidationError, match=r"offload_optimizer.device = 'nvme' contradicts run.offload = 'optimizer'"
    ):
        settings_of(tmp_path / "run", tmp_path / "store", deepspeed=options, run={"offload": "optimizer"})


def test_tables_of_other_parts_are_those_of_this_deepspeed() -> None:
    """Would catch ranks that are started four times with a configuration that no rank accepts."""
    require_accepted({"tensorboard": {"enabled": True}, "wall_clock_breakdown": True})
    with pytest.raises(InputError, match=r"deepspeed: .*tensorboard.foo: extra inputs are not permitted"):
        require_accepted({"tensorboard": {"enabled": True, "foo": 2}})


def test_keys_of_zero_are_those_of_this_deepspeed() -> None:
    require_accepted({"zero_optimization": {"reduce_bucket_size": 5_000_000, "offload_optimizer": {"device": "nvme"}}})
    with pytest.raises(InputError, match=r"zero_optimization.reduce_bucket: .*did you mean reduce_bucket_size\?"):
        require_accepted({"zero_optimization": {"reduce_bucket": 5}})
    with pytest.raises(InputError, match=r"zero_optimization.reduce_bucket_size: "):
        require_accepted({"zero_optimization": {"reduce_bucket_size": "many"}})


def test_what_the_job_determines_stays() -> None:
    run = RunSettings(steps=1, zero_stage=2, offload="optimizer", precision="bf16")
    options = {"zero_optimization": {"reduce_bucket_size": 7, "offload_optimizer": {"pin_memory": True}}}
    config = deepspeed_config(OptimizerSettings(lr=1.0), run, 2, False, options | {"wall_clock_breakdown": True})
    assert config["zero_optimization"] == {
        "stage": 2,
        "reduce_bucket_size": 7,
        "offload_optimizer": {"device": "cpu", "pin_memory": True},
    }
    assert config["wall_clock_breakdown"] and config["bf16"] == {"enabled": True}
    assert options["zero_optimization"]["offload_optimizer"] == {"pin_memory": True}
    assert merged({"a": 1}, {"a": {"b": 2}, "c": 3}) == {"a": 1, "c": 3}


@pytest.mark.slow
def test_options_reach_deepspeed_and_change_no_weight(tmp_path: Path, tiny_model: Path) -> None:
    """On two ranks, with buckets that are smaller than most gradients, and a monitor that leaves files."""
    store = make_store(tmp_path / "store", tiny_model, TOPK, 19)
    run = {"steps": 3, "ranks": 2, "zero_stage": 2}
    options = {
        "zero_optimization": {"reduce_bucket_size": 500, "overlap_comm": False},
        "csv_monitor": {"enabled": True, "output_path": str(tmp_path / "monitor"), "job_name": "job"},
    }
    jobs = [
        Job(settings_of(tmp_path / "plain", store, run=run)),
        Job(settings_of(tmp_path / "options", store, run=run, deepspeed=options)),
    ]
    assert start(jobs, 2, tmp_path / "log").wait(timeout=300) == 0, (tmp_path / "log").read_text()[-3000:]
    weights = [load_file(job.settings.output / "model" / "model.safetensors") for job in jobs]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    assert list((tmp_path / "monitor").rglob("*.csv"))
