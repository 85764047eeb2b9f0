"""Wrong input gives a message of one line and exit code 2, and writes nothing."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from cache.examples.example import Example
from cache.examples.tokenizers import tokenizer_digest
from cache.rows.record import Record
from cache.rows.spec import StoreSpec
from cache.storage.local import LocalStorage
from cache.store.commits import create_store
from cache.store.logit_store import LogitStore
from cache.store.snapshots import take_snapshot
from cache.store.unit_writer import write_unit
from cluster.commands.main import main
from student.tokenizers.bpe import learn_tokenizer, save_tokenizer

JOBS = Path(__file__).resolve().parents[3] / "cluster" / "jobs" / "demo"


@pytest.fixture
def workplace(tmp_path: Path, tiny_model: Path) -> Path:
    (tmp_path / "teacher").symlink_to(tiny_model)
    (tmp_path / "examples.jsonl").write_text('{"prompt": "say one", "response": "one"}\n')
    (tmp_path / "capture.toml").write_text(
        'examples = "examples.jsonl"\nstore = "stores/s"\n'
        '[teacher]\nmodel = "teacher"\nmax_tokens = 200\n[targets]\nk = 8\n'
    )
    (tmp_path / "train.toml").write_text(
        'output = "runs/x"\n[data]\nstore = "stores/s"\n[model.config]\nmodel_type = "llama"\n'
        "[optimizer]\nlr = 0.001\n[run]\nsteps = 1\n"
    )
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], root: Path, *arguments: str) -> str:
    """Run a command that must fail; returns its one line."""
    before = sorted(root.rglob("*"))
    assert main(["--root", str(root), *arguments]) == 2
    assert sorted(root.rglob("*")) == before, "something was left behind"
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and error.startswith("logitbank: ")
    return error


@pytest.mark.parametrize(
    "change, message",
    [
        ("examples=none.jsonl", "none.jsonl: no such file"),
        ("examples=empty.jsonl", "empty.jsonl: empty"),
        ("examples=bad.jsonl", "bad.jsonl, line 1: "),
        ("examples=prompts.jsonl", "no example has a response"),
        ("unit_sise=3", "unknown key 'unit_sise'"),
        ("teacher.model=nowhere/at/all", "'nowhere/at/all' is not a model: no such folder"),
        ("teacher.model=hollow", "is not a model: no config.json"),
        ("teacher.max_tokens=256", "must be below the 256 positions"),
        ("store=empty.jsonl", "empty.jsonl: is a file; give a folder"),
        ("store=.", "is a folder with other files, and no store"),
        ("targets.k=100000", "targets.k = 100000 is larger than the teacher's vocabulary of 325"),
    ],
)
def test_wrong_captures_are_refused(
    workplace: Path, capsys: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    (workplace / "empty.jsonl").write_text("")
    (workplace / "bad.jsonl").write_text('{"prompt": \n{"text": "no prompt"}\n')
    (workplace / "prompts.jsonl").write_text('{"prompt": "say one"}\n')
    (workplace / "hollow").mkdir()
    assert message in refused(capsys, workplace, "capture", str(workplace / "capture.toml"), "--set", change)


def test_a_store_of_another_fingerprint_is_refused(
    workplace: Path, capsys: pytest.CaptureFixture[str], spec: StoreSpec
) -> None:
    create_store(LocalStorage(workplace / "stores" / "s"), spec)
    error = refused(capsys, workplace, "capture", str(workplace / "capture.toml"))
    assert "another fingerprint" in error and "vocab_size: was 500, now 325" in error


def test_a_dry_run_counts_and_writes_nothing(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(workplace.rglob("*"))
    job = str(workplace / "capture.toml")
    assert main(["--root", str(workplace), "capture", job, "--dry-run"]) == 0
    preview = capsys.readouterr().out
    assert "of 1 lines 1 are examples to capture\n1 responses (0 truncated), 0 of them done; 1 to capture" in preview
    short = ["--set", "teacher.max_tokens=4", "--set", "teacher.truncation=left"]
    assert main(["--root", str(workplace), "capture", job, "--dry-run", *short]) == 0
    assert "\n1 responses (1 truncated), 0 of them done; 1 to capture" in capsys.readouterr().out
    assert main(["--root", str(workplace), "capture", job, "--dry-run", *short[:2]]) == 0
    assert "of 1 lines 0 are examples to capture, 1 rejected\n0 responses" in capsys.readouterr().out
    assert sorted(workplace.rglob("*")) == before


def test_a_bad_line_is_set_aside_and_the_others_are_captured(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing that the teacher is asked for here: the file has a prompt alone, and a line that is no example."""
    (workplace / "mixed.jsonl").write_text('{"prompt": "fine"}\n{"id": "x", "prompt": \n{"id": "y", "text": ""}\n')
    command = ["--root", str(workplace), "capture", str(workplace / "capture.toml"), "--set", "examples=mixed.jsonl"]
    assert main([*command, "--dry-run"]) == 0
    preview = capsys.readouterr().out
    assert "of 3 lines 0 are examples to capture, 1 without a response, 2 no examples\n" in preview
    assert "without a response: example 1" in preview
    assert "rejected 2: line 2: " in preview and "rejected y: line 3: unknown key 'text'" in preview
    assert main(command) == 0
    assert "2 in quarantine, 0 truncated" in capsys.readouterr().out
    told = [json.loads(path.read_text()) for path in (workplace / "stores" / "s" / "quarantine").iterdir()]
    assert sorted(one["reason"][:8] for one in told) == ["line 2: ", "line 3: "]
    assert "unknown key 'text'" in str(told) and {one["id"] for one in told} == {"2", "y"}
    assert main(command) == 0
    assert len(list((workplace / "stores" / "s" / "quarantine").iterdir())) == 2
    (workplace / "stores" / "s.capture.json").write_text(json.dumps({"runs": [], "input": {}}))
    assert main(command) == 0
    capsys.readouterr()
    assert main(["--root", str(workplace), "inspect", "stores/s"]) == 0
    assert "last capture   of 3 lines 0 are examples to capture, 1 without" in capsys.readouterr().out


def test_an_output_that_is_a_store_or_a_file_is_refused(
    workplace: Path, capsys: pytest.CaptureFixture[str], spec: StoreSpec
) -> None:
    """Would catch a model that is written into a store."""
    create_store(LocalStorage(workplace / "stores" / "s"), spec)
    student = [str(JOBS / "student.toml"), "--set"]
    for command in (["train", *student], ["train", "--dry-run", *student]):
        assert "is a store; give another folder" in refused(capsys, workplace, *command, "output=stores/s")
        assert "is a file; give a folder" in refused(capsys, workplace, *command, "output=capture.toml")


@pytest.mark.parametrize("verb", ["inspect", "verify", "snapshot"])
def test_what_is_not_a_store_is_refused(workplace: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert "not a store" in refused(capsys, workplace, verb, "nothing")


def test_training_without_a_store_is_refused(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "not a store" in refused(capsys, workplace, "train", str(workplace / "train.toml"))


@pytest.fixture
def filled(workplace: Path, spec: StoreSpec, make_records: Callable[..., list[Record]], tiny_model: Path) -> Path:
    """A store whose tokenizer is the tiny model's."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ours = replace(spec, teacher=str(tiny_model), tokenizer=tokenizer_digest(tokenizer), tokenizer_size=len(tokenizer))
    storage = LocalStorage(workplace / "stores" / "s")
    create_store(storage, ours)
    write_unit(storage, ours, make_records(3))
    take_snapshot(storage)
    return workplace


@pytest.mark.parametrize(
    "changes, message",
    [
        (["model={pretrained='nowhere/at/all'}"], "'nowhere/at/all': cannot be loaded"),
        (["model.config.model_type=unheard_of"], "'unheard_of' is unknown to Transformers"),
        (["data.snapshot=7"], "no snapshot 7; the newest is 1"),
        (["tokenizer.path=other"], "captured with another tokenizer than"),
        (["data.store=gopher://bucket/store"], "store 'gopher://bucket/store': "),
    ],
)
def test_wrong_trainings_are_refused_before_a_rank_starts(
    filled: Path, capsys: pytest.CaptureFixture[str], changes: list[str], message: str
) -> None:
    save_tokenizer(learn_tokenizer([Example("1", ({"role": "user", "content": "other"},))], 300), filled / "other")
    sets = [part for change in changes for part in ("--set", change)]
    assert message in refused(capsys, filled, "train", str(filled / "train.toml"), *sets)


def test_inspect_and_verify_describe_the_store(
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
    spec: StoreSpec,
    make_records: Callable[..., list[Record]],
) -> None:
    storage = LocalStorage(workplace / "stores" / "s")
    create_store(storage, spec)
    commit, _ = write_unit(storage, spec, make_records(3))
    take_snapshot(storage)
    root = ["--root", str(workplace)]
    assert main([*root, "inspect", "stores/s"]) == 0
    shown = capsys.readouterr().out
    for text in (spec.fingerprint, "k = 16", "3 (3 scored)", "18 carry a target", "bytes/token", "retained mass"):
        assert text in shown
    assert main([*root, "verify", "stores/s"]) == 0
    part = storage.path(commit.part.path)
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    capsys.readouterr()
    assert main([*root, "verify", "stores/s"]) == 1
    assert f"{part.name}: altered" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["examples", "capture", "train", "evaluate", "report", "inspect", "verify", "submit"])
def test_help_shows_an_example(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert "example: logitbank" in " ".join(capsys.readouterr().out.split())


def test_a_store_goes_to_other_forms_and_back(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ["--root", str(filled)]
    assert main([*root, "export", "stores/s", "portable", "--profile", "portable"]) == 0
    assert main([*root, "export", "stores/s", "rows.parquet"]) == 0
    assert main([*root, "import", "parquet", "rows.parquet", "stores/again"]) == 0
    assert main([*root, "export", "stores/s", "kit", "--format", "distillkit"]) == 0
    assert main([*root, "import", "distillkit", "kit", "stores/kit", "--teacher", "theirs"]) == 0
    assert main([*root, "export", "stores/s", "rows.jsonl", "--format", "axolotl"]) == 0
    assert main([*root, "import", "axolotl", "rows.jsonl", "stores/ax", "--vocab-size", "500"]) == 0
    first = LogitStore.open(str(filled / "stores/s"))
    for name in ("portable", "stores/again", "stores/kit", "stores/ax"):
        other = LogitStore.open(str(filled / name))
        assert len(other) == 3 and other.info().rows == first.info().rows, name
    refusals = [
        (["export", "stores/s", "out"], "give --profile for a store, or --format"),
        (["export", "stores/s", "rows.parquet"], "rows.parquet"),
        (["export", "stores/s", "o", "--format", "axolotl", "--sequence-length", "4"], "is for --format distillkit"),
        (["import", "axolotl", "rows.jsonl", "stores/new"], "give --vocab-size"),
        (["import", "parquet", "nothing.parquet", "stores/new"], "nothing.parquet"),
        (["import", "parquet", "s3://b/x.parquet", "stores/new"], "copy it to a local path"),
        (["export", "stores/s", "s3://b/x", "--format", "axolotl"], "only a store can be written to an address"),
        (["export", "stores/s", "o", "--profile", "fast", "--format", "axolotl"], "give one"),
        (["export", "stores/s", "stores/s/inside", "--profile", "fast"], "lies inside the store itself"),
        (["gc", "stores/s", "--older-than", "nan"], "give hours, 0 or more"),
        (["inspect", ""], "path of a store is empty"),
        (["inspect", "stores/s", "--example", "ab", "--json"], "does not go with --json"),
    ]
    for command, message in refusals:
        capsys.readouterr()
        assert main([*root, *command]) == 2
        assert message in capsys.readouterr().err
    assert not (filled / "stores/new").exists()


def test_gc_removes_what_nothing_counts_and_nothing_else(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = filled / "stores" / "s"
    left = store / "parts" / ("0" * 24) / f"{'1' * 32}.zarr.zip"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    (store / "commits" / ".x.json.draft").write_text("half")
    before = {path for path in store.rglob("*") if path.is_file()}
    root = ["--root", str(filled)]
    assert main([*root, "gc", "stores/s"]) == 0
    assert {path for path in store.rglob("*") if path.is_file()} == before, "a day has not passed"
    assert main([*root, "gc", "stores/s", "--older-than", "0", "--dry-run"]) == 0
    assert "would remove 2" in capsys.readouterr().out
    assert main([*root, "gc", "stores/s", "--older-than", "0"]) == 2, "a capture may be running"
    assert "add --force" in capsys.readouterr().err
    assert main([*root, "gc", "stores/s", "--older-than", "0", "--force"]) == 0
    gone = before - {path for path in store.rglob("*") if path.is_file()}
    assert {path.name for path in gone} == {left.name, ".x.json.draft"}
    assert main([*root, "verify", "stores/s"]) == 0
    (store / "codebooks" / "1.json").unlink()
    assert main([*root, "gc", "stores/s", "--older-than", "0", "--force"]) == 0
    assert len(list((store / "codebooks").iterdir())) == 1, "its parts need the codebook"
    commit = next((store / "commits").glob("*.json"))
    commit.write_bytes(commit.read_bytes()[:-9])
    assert main([*root, "gc", "stores/s", "--older-than", "0", "--force"]) == 2, (
        "what a damaged commit counts is unknown"
    )
