"""Wrong inputs of every verb end in one plain line, with exit code 2 and without the words of Python."""

import re
from pathlib import Path

import numpy as np
import pytest

from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cluster.commands.main import main
from tests.cache.rows.rows import random_record, store_spec
from tests.student.training.ranks import TOPK

TRAIN = "output='o'\n[data]\nstore='s'\n[model.config]\nmodel_type='llama'\n[optimizer]\nlr=0.1\n[run]\nsteps=3\n"
CAPTURE = "store='new'\n[teacher]\nmodel='nomodel'\n"
REPORT = "output='o'\ntitle='t'\nstore='s'\nheldout_store='s'\nevaluation='e'\n[trainings]\na='b'\n"
EVALUATE = "output='evo'\nstore='s'\n[models]\na='nomodel'\n"
EXAMPLES = "output='o'\n[task]\nname='drug_editing'\n"
FILES: dict[str, str | bytes] = {
    "train.toml": TRAIN,
    "report.toml": REPORT,
    "evaluate.toml": EVALUATE,
    "examples.toml": EXAMPLES,
    "good.jsonl": '{"prompt":"a","response":"b"}\n',
    "list.jsonl": "[1, 2]\n",
    "utf16.jsonl": '{"prompt":"a","response":"b"}\n'.encode("utf-16"),
    "latin.jsonl": '{"prompt":"caf\xe9","response":"b"}\n'.encode("latin-1"),
    "empty.jsonl": "",
    "table.toml": "output = 'o'\n[data\n",
    "twice.toml": "output='o'\noutput='p'\n",
    "bare.toml": "output = runs/kd\n",
    "utf16.toml": "output='o'\n".encode("utf-16"),
    "job.json": '{"output": "o"}',
    "job.yaml": "output: o\n",
    "nothing.toml": "",
    "garbage/job.json": "{garbage",
    "garbage/training.json": "[]",
    "broken.jinja": "{% for x in %}",
    "folder/file": "x",
    "model/config.json": "{nope",
    "model/model.safetensors": "x",
    **{
        f"capture_{name}.toml": f"examples='{name}.jsonl'\n{CAPTURE}"
        for name in ("list", "utf16", "latin", "empty", "no")
    },
    "capture.toml": f"examples='good.jsonl'\n{CAPTURE}",
}
SET, DRY = "--set", "--dry-run"
CASES: list[tuple[list[str], str]] = [
    (["capture", "capture_list.toml", DRY], r"list\.jsonl, line 1: is not a JSON object; give one object a line"),
    (["capture", "capture_utf16.toml", DRY], r"utf16\.jsonl, line 1: is not UTF-8 text"),
    (["capture", "capture_latin.toml", DRY], r"latin\.jsonl, line 1: is not UTF-8 text \(byte 15\)"),
    (["capture", "capture_empty.toml", DRY], r"empty\.jsonl: empty"),
    (["capture", "capture_no.toml", DRY], r"no\.jsonl: no such file"),
    (["capture", "capture.toml", DRY, SET, "examples=folder"], "folder: has no file that ends in"),
    (["capture", "capture.toml", DRY], "teacher 'nomodel' is not a model: no such folder"),
    (["capture", "capture.toml", DRY, SET, "teacher.model=folder"], r"not a model: no config\.json"),
    (["capture", "capture.toml", DRY, SET, "teacher.model=model"], "is not a model: .*not a valid JSON file"),
    (["train", "folder"], "job file folder: is a folder; give the TOML file"),
    (["train", "none.toml"], r"none\.toml: no such file"),
    (["train", "table.toml"], r"table\.toml, line 2: not valid TOML: expected '\]'"),
    (["train", "twice.toml"], r"twice\.toml, line 2: not valid TOML: this key is there twice"),
    (["train", "bare.toml"], r"bare\.toml, line 1: .*a text needs quotes"),
    (["train", "utf16.toml"], r"utf16\.toml: is not UTF-8 text \(byte 1\); save the file as UTF-8"),
    (["train", "job.json"], r"job\.json, line 1: not valid TOML"),
    (["train", "job.yaml"], r"job\.yaml, line 1: not valid TOML"),
    (["train", "nothing.toml"], "missing key 'output'"),
    (["train", "capture.toml"], r"capture\.toml: is a job of 'logitbank capture'; run that command"),
    (["capture", "train.toml"], "is a job of 'logitbank train'"),
    (["evaluate", "train.toml"], "is a job of 'logitbank train'"),
    (["examples", "report.toml"], "is a job of 'logitbank report'"),
    (["report", "evaluate.toml"], "is a job of 'logitbank evaluate'"),
    (["report", "examples.toml"], "is a job of 'logitbank examples'"),
    (["train", "train.toml", SET, "data.mixture=3"], r"data\.mixture: must be a list \(given 3\)"),
    (["train", "train.toml", SET, "run.steps"], "expected key=value"),
    (["train", "train.toml", SET, "run.steps=many"], r"run\.steps: must be a whole number \(given 'many'\)"),
    (["train", "train.toml", SET, "run.steps=3.5"], r"run\.steps: must be a whole number \(given 3\.5\)"),
    (["train", "train.toml", SET, "optimizer.betas=[0.9]"], r"optimizer\.betas: has too few values"),
    (["train", "train.toml", SET, "optimizer.lr=nan"], r"optimizer\.lr: must be a finite number \(given nan\)"),
    (["train", "train.toml", SET, "optimizer.lr=inf"], r"optimizer\.lr: must be a finite number \(given inf\)"),
    (["train", "train.toml", SET, "optimizer.lr=true"], r"optimizer\.lr: .*given True"),
    (
        ["train", "train.toml", SET, "output=2020-01-01"],
        r"output: must be a path, .*given 2020-01-01\)",
    ),
    (["train", "train.toml", SET, "output=good.jsonl"], r"good\.jsonl: is a file; give a folder"),
    (["train", "train.toml", SET, "data.store=nostore"], "nostore: not a store"),
    (["train", "train.toml", SET, "output=garbage"], r"job\.json: is not valid JSON: .* at line 1, character 2"),
    (["train", "train.toml", SET, "tokenizer.path=folder"], r"the folder has neither tokenizer\.json nor"),
    (["evaluate", "evaluate.toml", SET, "store=nope"], "not a store"),
    (["evaluate", "evaluate.toml"], "models.a = 'nomodel': no model can be read from it: there is no such folder"),
    (["evaluate", "evaluate.toml", SET, "models.a=folder"], "models.a = .*folder': no model can be read from it"),
    (["report", "report.toml"], r"evaluation\.json: no such file"),
    (["examples", "examples.toml", SET, "task.molecules=no.smi"], r"no\.smi: no such file"),
    (["inspect", "s3://"], "expected an address such as s3://bucket/prefix"),
    (["inspect", "good.jsonl"], "not a store"),
    (["inspect", "s", "--snapshot", "99"], "no snapshot 99; the newest is 1"),
    (["verify", "nope"], "not a store"),
    (["snapshot", "nope"], "not a store"),
    (["gc", "nope"], "not a store"),
    (["quarantine", "nope"], "not a store"),
    (["status", "nope"], "no such folder"),
    (["list", "good.jsonl"], "no such folder"),
    (["export", "--format", "parquet", "nope", "out"], "not a store"),
    (["import", "parquet", "nope", "new"], "nope"),
    (["import", "parquet", "good.jsonl", "new"], r"good\.jsonl"),
    (["import", "distillkit", "folder", "new"], "folder"),
    (
        ["import", "parquet", "good.jsonl", "new", "--teacher", "a"],
        "--teacher and --tokenizer are for distillkit and axolotl",
    ),
    (["import", "distillkit", "folder", "new", "--vocab-size", "9"], "--vocab-size is for axolotl"),
    (["import", "axolotl", "good.jsonl", "new"], "give --vocab-size"),
]
RAW = re.compile(r"Traceback|codec can't|has no attribute|Expecting|\(char |NoneType|<class|\[Errno|Error\(|pydantic")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    for name, content in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    spec, rng, storage = store_spec(TOPK), np.random.default_rng(0), LocalStorage(root / "s")
    create_store(storage, spec)
    write_unit(storage, spec, [random_record(rng, str(i), 4, 6, spec.targets) for i in range(4)])
    take_snapshot(storage)
    return root


@pytest.mark.parametrize("argv, expected", CASES, ids=[" ".join(argv) for argv, _ in CASES])
def test_one_plain_line(
    argv: list[str],
    expected: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    files = sorted(folder.rglob("*"))
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("logitbank: ") and error.count("\n") == 1, error
    assert re.search(expected, error), error
    assert not RAW.search(error), error
    assert sorted(folder.rglob("*")) == files  # nothing is half-written
