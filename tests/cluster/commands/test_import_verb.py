"""An import with the teacher's tokenizer: the store is read and trained from without another word."""

from pathlib import Path

import pytest

from cache.errors import SpecMismatchError
from cache.exchange.axolotl import export_axolotl
from cache.store.logit_store import LogitStore
from cluster.commands.main import main
from tests.cache.rows.rows import TARGETS, VOCAB
from tests.cache.store.reading.chat_stores import chat_records, chat_spec, tokenizer, write_store

JOB = """
output = "{folder}/run"
[data]
store = "{folder}/{store}"
[tokenizer]
{path}
[model.config]
model_type = "llama"
hidden_size = 8
num_hidden_layers = 1
num_attention_heads = 1
num_key_value_heads = 1
intermediate_size = 8
max_position_embeddings = 4096
[optimizer]
lr = 0.001
[run]
steps = 1
batch_size = 2
ranks = 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of axolotl, and the tokenizer that made their ids."""
    folder = tmp_path_factory.mktemp("import")
    write_store(folder / "source", chat_spec(TARGETS["topk"]), chat_records(TARGETS["topk"], 60))
    export_axolotl(LogitStore.open(folder / "source"), folder / "rows.jsonl")
    tokenizer().save_pretrained(folder / "tokenizer")
    return folder


def run(folder: Path, *arguments: str) -> int:
    return main(["--root", str(folder), *arguments])


def dry_run(folder: Path, store: str, path: str = "") -> int:
    (folder / "train.toml").write_text(JOB.format(folder=folder, store=store, path=path))
    return run(folder, "train", "train.toml", "--dry-run")


def test_an_import_with_the_tokenizer_can_be_inspected_and_trained_from(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("import", "axolotl", "rows.jsonl", "with", "--vocab-size", str(VOCAB), "--tokenizer", "tokenizer")
    assert run(folder, *command) == run(folder, *command) == 0
    assert run(folder, "inspect", "with", "--example", LogitStore.open(folder / "with").key(0)) == 0
    assert "system" in capsys.readouterr().out
    assert dry_run(folder, "with") == 0
    assert run(folder, "verify", "with") == 0
    with pytest.raises(SpecMismatchError, match="tokenizer"):
        LogitStore.open(folder / "with", expect=LogitStore.open(folder / "source").spec)


def test_an_import_without_it_says_what_training_needs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "import", "axolotl", "rows.jsonl", "without", "--vocab-size", str(VOCAB)) == 0
    assert dry_run(folder, "without", f'path = "{folder}/tokenizer"') == 2
    assert "imported without its tokenizer" in (message := capsys.readouterr().err) and "--tokenizer" in message
    assert run(folder, "inspect", "without", "--example", LogitStore.open(folder / "without").key(0)) == 2
    assert "--tokenizer" in capsys.readouterr().err
