"""A dry run with a trial: the sample is fair, the trial leaves nothing behind, and its figures are scaled by tokens."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cache.errors import InputError
from cache.registry import PLUGINS_VARIABLE
from cluster.capture.planning import preview_job
from cluster.capture.settings import CaptureSettings
from cluster.capture.trial import Estimate, Sample, run_trial
from cluster.runtime.job_file import load_job

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = 3000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A job over two windows; later examples are longer."""
    folder = tmp_path_factory.mktemp("job")
    lines = [{"prompt": f"say {i}", "response": "one " * (1 + i // 300)} for i in range(EXAMPLES)]
    (folder / "examples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "capture.toml").write_text(
        'examples = "examples.jsonl"\nstore = "store"\nactors = 2\n'
        f'[teacher]\nmodel = "{tiny_model}"\nmax_tokens = 64\n[targets]\nk = 4\n'
    )
    return folder


def job(folder: Path, *changes: str) -> CaptureSettings:
    return load_job(folder / "capture.toml", changes, CaptureSettings, folder)


def sample_of(settings: CaptureSettings, most: int) -> Sample:
    sample = Sample(most)
    preview_job(settings, look=sample.look)
    return sample


def test_a_sample_is_of_the_whole_file_and_the_same_each_time(folder: Path) -> None:
    """Would catch one of the first lines, which are short here."""
    sample = sample_of(job(folder), 400)
    assert sample.responses == EXAMPLES and len(sample.examples) == 400
    places = sorted(int(example.messages[0]["content"].split()[1]) for example in sample.examples)
    assert EXAMPLES * 0.4 < sum(places) / 400 < EXAMPLES * 0.6 and places[0] < 100 and places[-1] > EXAMPLES - 100
    assert sample.examples == sample_of(job(folder), 400).examples
    assert {e.id for e in sample_of(job(folder), 100).examples} < {e.id for e in sample.examples}
    assert len(sample_of(job(folder), 10**6).examples) == EXAMPLES


def test_where_nothing_is_missing_there_is_no_trial(folder: Path) -> None:
    assert run_trial(job(folder), Sample(10)) is None


def test_a_trial_on_a_cluster_needs_a_folder_that_all_nodes_share(folder: Path) -> None:
    settings = job(folder, "store=s3://bucket/store", "address=head:6379")
    sample = sample_of(job(folder), 10)
    with pytest.raises(InputError, match="a folder that all nodes share"):
        run_trial(settings, sample)


def test_what_is_printed_has_units() -> None:
    estimate = Estimate(3000, 10**7, 200, 10**5, 50.0, 30.2, 4, 1.5 / 4, 2_500_000_000, 12.345)
    assert str(estimate).splitlines() == [
        "trial: 200 responses, 100,000 tokens, in 50.0 s with one engine (2,000 tokens/s; it started in 30 s)",
        "the whole: 3,000 responses, 10,000,000 tokens: about 22 minutes with 4 engines, 2.5 GB of parts, cost 12.35",
    ]


@pytest.mark.parametrize("count", ["0", "-3", "many", "1.5"])
def test_a_number_of_responses_that_is_none(folder: Path, count: str, capsys: pytest.CaptureFixture[str]) -> None:
    from cluster.commands.main import main

    with pytest.raises(SystemExit) as stop:
        main(["capture", str(folder / "capture.toml"), f"--probe={count}"])
    assert stop.value.code == 2 and "is no number of responses" in capsys.readouterr().err


@pytest.mark.slow
def test_a_trial_is_scaled_and_leaves_nothing_behind(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as short:  # Ray's sockets need a short path
        estimate = json.loads(probe(folder, short))["estimate"]
        assert not [path for path in Path(short).iterdir() if "probe" in path.name]
    assert (estimate["responses"], estimate["trial_responses"], estimate["engines"]) == (EXAMPLES, 60, 1)
    scale = estimate["tokens"] / estimate["trial_tokens"]
    assert 40 < scale < 60, "60 of 3,000, by tokens"
    assert estimate["hours"] == pytest.approx(estimate["trial_seconds"] * scale / 3600)
    assert estimate["bytes"] > 0 and not (folder / "store").exists()


def probe(folder: Path, temporary: str) -> str:
    environment = {
        **os.environ,
        PLUGINS_VARIABLE: "benchmarks.scale.stand_in_engine",
        "PYTHONPATH": str(ROOT),
        "TMPDIR": temporary,
    }
    command = [sys.executable, "-m", "cluster.commands.main", "--root", str(folder), "capture"]
    options = ["--set", "engine.kind=stand_in", "--probe", "60", "--json"]
    run = subprocess.run(
        [*command, str(folder / "capture.toml"), *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout
