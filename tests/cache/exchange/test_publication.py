"""Published stores: a folder or a data set with a card, from which the same rows are read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from cache.errors import InputError
from cache.exchange.parquet import import_parquet
from cache.exchange.publication import publish
from cache.progress import no_progress
from cache.storage.hub_folder import repository
from cache.store.logit_store import LogitStore
from cache.store.quarantine.entries import quarantine_example
from cache.store.snapshots import take_snapshot
from cache.store.verify import verify_store
from cache.store.withdrawal.forgotten import mark_forgotten
from cluster.commands.main import main
from tests.cache.exchange.hub import SHA, TOKEN, Hub, running_hub
from tests.student.training.ranks import ROOT, TOPK, add_unit, make_store


@pytest.fixture
def store(tmp_path: Path, tiny_model: Path) -> LogitStore:
    folder = make_store(tmp_path / "store", tiny_model, TOPK, 19)
    for name in ("leases", "drivers", "tries"):
        (folder / name).mkdir()
        (folder / name / "of-this-cluster.json").write_text("{}")
    return LogitStore.open(str(folder))


def same_rows(first: LogitStore, second: LogitStore) -> bool:
    assert len(first) == len(second)
    for one, other in zip(first[range(len(first))], second[range(len(first))], strict=True):
        assert one.key == other.key and np.array_equal(one.tokenized.tokens, other.tokenized.tokens)
        assert np.array_equal(one.targets.logprobs, other.targets.logprobs)
    return True


def card_of(folder: Path) -> tuple[dict[str, object], str]:
    _, metadata, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(metadata), text


def test_a_store_and_its_card(tmp_path: Path, store: LogitStore) -> None:
    target = tmp_path / "published"
    assert publish(store, str(target), "store", "Molecules", "cc-by-4.0", False, no_progress) == f"{target}/README.md"
    copy = LogitStore.open(str(target / "store"))
    assert same_rows(store, copy) and copy.snapshot == 1
    assert not verify_store(str(target / "store")).problems
    metadata, text = card_of(target)
    assert metadata["license"] == "cc-by-4.0" and metadata["size_categories"] == "n<1K"
    assert f"| examples | {len(store)}: " in text and store.spec.fingerprint in text
    everything = b"".join(path.read_bytes() for path in target.rglob("*") if path.is_file())
    assert str(tmp_path).encode() not in everything, "no path of this machine"
    assert b"of-this-cluster" not in everything and not (target / "store/leases").exists()
    name = Path(store.spec.teacher)
    assert copy.spec.teacher == f"{name.parent.name}/{name.name}" and copy.spec.fingerprint == store.spec.fingerprint


def test_a_parquet_file_and_its_card(tmp_path: Path, store: LogitStore) -> None:
    publish(store, str(tmp_path / "published"), "parquet", "Molecules", None, False, no_progress)
    metadata, text = card_of(tmp_path / "published")
    assert "license" not in metadata and "None was given." in text
    assert metadata["configs"] == [{"config_name": "default", "data_files": "data/train.parquet"}]
    import_parquet(tmp_path / "published/data/train.parquet", str(tmp_path / "again"))
    assert same_rows(store, LogitStore.open(str(tmp_path / "again")))
    assert str(tmp_path).encode() not in (tmp_path / "published/data/train.parquet").read_bytes()


def test_a_publication_that_was_killed_is_made_again(tmp_path: Path, store: LogitStore) -> None:
    target = tmp_path / "published"
    (target / "store/parts/half").mkdir(parents=True)
    (target / "store/parts/half/written.zarr.zip").write_bytes(b"half")
    publish(store, str(target), "store", "t", None, False, no_progress)
    assert not (target / "store/parts/half").exists() and same_rows(store, LogitStore.open(str(target / "store")))


def test_only_the_snapshot_is_published(tmp_path: Path, store: LogitStore) -> None:
    """Not what was committed since, no forgotten example, and not why it is forgotten."""
    uri = str(store.storage)
    quarantine_example(store.storage, "0" * 32, "chat-7", "private words")
    add_unit(Path(uri), 5)
    publish(store, str(tmp_path / "first"), "store", "t", None, False, no_progress)
    assert len(LogitStore.open(str(tmp_path / "first/store"))) == len(store) == 19
    key = store.key(3)
    mark_forgotten(store.storage, [key], "asked by its author")
    with pytest.raises(InputError, match=f"snapshot 1 still has the forgotten example {key}; run 'logitbank snapshot'"):
        publish(store, str(tmp_path / "second"), "store", "t", None, False, no_progress)
    take_snapshot(store.storage)
    publish(LogitStore.open(uri), str(tmp_path / "second"), "store", "t", None, False, no_progress)
    published = LogitStore.open(str(tmp_path / "second/store"))
    assert len(published) == 23 and key not in {published.key(i) for i in range(23)}
    everything = b"".join(path.read_bytes() for path in tmp_path.glob("second/**/*") if path.is_file())
    assert b"asked by its author" not in everything and b"private words" not in everything
    assert key.encode() not in everything and not verify_store(str(tmp_path / "second/store")).problems


def test_targets_that_are_refused(tmp_path: Path, store: LogitStore) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for target, message in {
        str(tmp_path / "full"): "is not empty",
        str(Path(str(store.storage)) / "parts/published"): "lies inside the store itself",
        "s3://bucket/published": "publish into a folder, or to hf://datasets/OWNER/NAME",
        "hf://me/data": "is no data set on a hub",
        "hf://datasets/me/a--b": "me/a--b",
        "hf://datasets/me/data/store": "is a part of a data set",
        "hf://datasets/me": "is no data set on a hub",
    }.items():
        with pytest.raises(InputError, match=message):
            publish(store, target, "store", "t", None, False, no_progress)


def test_addresses() -> None:
    assert repository("hf://datasets/me/data") == ("me/data", None, "")
    assert repository("hf://datasets/me/data@v1.0/a/b/") == ("me/data", "v1.0", "a/b")
    with pytest.raises(InputError, match=r"hf://models/a/b.*is no data set"):
        repository("hf://models/a/b")


def run(hub: Hub, home: Path, *command: str, token: str = TOKEN) -> "subprocess.CompletedProcess[str]":
    variables = {"HF_ENDPOINT": hub.address, "HF_TOKEN": token, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | variables | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_data_set_on_a_hub_is_written_and_read(tmp_path: Path, store: LogitStore) -> None:
    """With a stub in the hub's place. A store is read from it as from a folder, by the address in its card."""
    uri = str(store.storage)
    logitbank = ("-m", "cluster.commands.main")
    with running_hub() as hub:
        refused = run(hub, tmp_path / "hf", *logitbank, "publish", uri, "hf://datasets/me/data", token="hf_wrong")
        assert refused.returncode == 2 and "HF_TOKEN must be a token" in refused.stderr and not hub.files
        sent = run(hub, tmp_path / "hf", *logitbank, "publish", uri, "hf://datasets/me/data", "--private", "--json")
        assert sent.returncode == 0, sent.stderr
        assert json.loads(sent.stdout)["card"] == "hf://datasets/me/data"
        assert hub.commits == 1 and (hub.created[0]["visibility"], hub.created[0]["type"]) == ("private", "dataset")
        assert set(hub.files) > {"README.md", "store/spec.json"} and b"me/data/store" in hub.files["README.md"]
        assert not [path for path in Path(uri).parent.iterdir() if path.name.startswith(".publish")]
        code = (
            "import sys; from cache.store.logit_store import LogitStore; from cache.errors import StoreError\n"
            "from cache.store.snapshots import take_snapshot\n"
            "store, there = (LogitStore.open(uri) for uri in sys.argv[1:])\n"
            "from tests.cache.exchange.test_publication import same_rows\n"
            "import pickle; assert same_rows(store, pickle.loads(pickle.dumps(there)))\n"
            "try: there.storage.create('x', b'')\n"
            "except StoreError as error: print(error)\n"
        )
        read = run(hub, tmp_path / "hf", "-c", code, uri, "hf://datasets/me/data/store")
        assert "a store on a hub can be read only" in read.stdout, read.stderr
        pinned = run(hub, tmp_path / "hf", *logitbank, "inspect", f"hf://datasets/me/data@{SHA}/store", "--json")
        assert json.loads(pinned.stdout)["examples"] == len(store), pinned.stderr
        again = run(hub, tmp_path / "hf", *logitbank, "publish", uri, "hf://datasets/me/data", "--format", "parquet")
        assert again.returncode == 0 and set(hub.files) == {"README.md", "data/train.parquet"}, "the old one is gone"
        missing = run(hub, tmp_path / "hf", *logitbank, "inspect", "hf://datasets/me/other/store")
        assert missing.returncode == 2 and "cannot be downloaded" in missing.stderr


def test_a_hub_that_does_not_answer_is_one_line(tmp_path: Path, store: LogitStore) -> None:
    hub = Hub()
    hub.address = "http://127.0.0.1:9"
    for command in (
        ["publish", str(store.storage), "hf://datasets/me/data"],
        ["inspect", "hf://datasets/me/data/store"],
    ):
        done = run(hub, tmp_path / "hf", "-m", "cluster.commands.main", *command)
        assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("logitbank: hf://datasets/me/data")
        assert "Traceback" not in done.stderr and "HF_TOKEN" not in done.stderr


def test_the_verb_says_that_there_is_no_licence(
    tmp_path: Path, store: LogitStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", str(store.storage), str(tmp_path / "out")]) == 0
    assert "no --license was given" in capsys.readouterr().out
    assert main(["publish", str(store.storage), str(tmp_path / "out")]) == 2
    assert "is not empty" in capsys.readouterr().err
