"""A store keeps the tokenizer of its capture: it can be read where the teacher's folder is gone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache.errors import InputError, IntegrityError
from cache.examples.tokenizers import tokenizer_digest, tokenizer_files, vocabulary_difference
from cache.json_documents import digest
from cache.rendering.render import render
from cache.rows.spec import StoreSpec
from cache.storage.local import LocalStorage
from cache.store.claims.tokenizer_files import claim_tokenizer, open_tokenizer, read_tokenizer_claim, transfer_tokenizer
from cache.store.commits import create_store
from cache.store.upkeep.garbage_collection import collect_garbage
from cache.store.verify import verify_store
from tests.cache.examples.chats import AGENT, PLAIN, chat_tokenizer
from tests.cache.rendering.test_published_templates import sentence_pieces


@pytest.fixture(params=["bytes", "pieces", "none"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """With a chat template, or without one."""
    return {"bytes": chat_tokenizer(PLAIN, True), "pieces": sentence_pieces(PLAIN), "none": chat_tokenizer(None)}[
        request.param
    ]


def make_store(root: Path, spec: StoreSpec, tokenizer: Any) -> tuple[LocalStorage, StoreSpec]:
    known = {"tokenizer": tokenizer_digest(tokenizer), "chat_template": digest(tokenizer.chat_template)}
    spec = replace(spec, teacher="/gone", **known)
    storage = LocalStorage(root)
    create_store(storage, spec)
    claim_tokenizer(storage, spec, tokenizer_files(tokenizer))
    return storage, spec


def test_a_store_is_read_without_its_teacher(tmp_path: Path, spec: StoreSpec, tokenizer: Any) -> None:
    storage, spec = make_store(tmp_path / "store", spec, tokenizer)
    again = open_tokenizer(storage, spec)
    assert tokenizer_digest(again) == spec.tokenizer and not vocabulary_difference(tokenizer, again)
    plain = replace(AGENT, messages=AGENT.messages[4:], tools=())
    assert render(plain, again).key == render(plain, tokenizer).key
    assert (again.eos_token_id, again.bos_token_id) == (tokenizer.eos_token_id, tokenizer.bos_token_id)


def test_one_tokenizer_is_kept_and_its_files_are_looked_after(tmp_path: Path, spec: StoreSpec) -> None:
    tokenizer = chat_tokenizer(PLAIN)
    storage, spec = make_store(tmp_path / "store", spec, tokenizer)
    first = read_tokenizer_claim(storage)
    claim_tokenizer(storage, spec, tokenizer_files(tokenizer))
    assert read_tokenizer_claim(storage) == first and len(storage.names("tokenizers")) == 1
    storage.write_folder("tokenizers/left", {"a": b"behind by a killed writer"})
    assert verify_store(str(storage)).uncommitted == ["tokenizers/left"]
    assert collect_garbage(storage, grace=0).removed == ["tokenizers/left"]
    assert not verify_store(str(storage)).problems
    other = LocalStorage(tmp_path / "copy")
    create_store(other, spec)
    transfer_tokenizer(storage, other)
    assert tokenizer_digest(open_tokenizer(other, spec)) == spec.tokenizer


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, spec: StoreSpec, damage: str) -> None:
    storage, spec = make_store(tmp_path / "store", spec, chat_tokenizer(PLAIN))
    (path,) = storage.root.glob("tokenizers/*/tokenizer.json")
    if damage == "altered":
        path.write_bytes(path.read_bytes().replace(b"two", b"tow"))
    else:
        path.unlink()
    (problem,) = verify_store(str(storage)).problems
    assert "tokenizer.json" in problem
    with pytest.raises(IntegrityError, match=r"tokenizer\.json"):
        open_tokenizer(storage, spec)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"teacher": "/gone"}, "no such folder"),
        ({"service": "a"}, "is a service"),
        ({"teacher": "imported"}, "no name"),
    ],
)
def test_a_store_without_a_tokenizer_says_what_to_give(
    tmp_path: Path, spec: StoreSpec, changes: dict[str, str], reason: str
) -> None:
    spec = replace(spec, **changes)  # type: ignore[arg-type]
    storage = LocalStorage(tmp_path / "store")
    create_store(storage, spec)
    with pytest.raises(InputError, match=rf"store .* contains no tokenizer.*{reason}.*--tokenizer.*tokenizer\.path"):
        open_tokenizer(storage, spec)


def test_a_digest_covers_what_changes_ids_and_nothing_else() -> None:
    tokenizer, same, other = chat_tokenizer(PLAIN), chat_tokenizer(None), chat_tokenizer(PLAIN)
    same.backend_tokenizer.enable_truncation(5)
    same.backend_tokenizer.enable_padding()
    same.eos_token = "<|im_end|>"
    assert tokenizer_digest(same) == tokenizer_digest(tokenizer)
    other.add_tokens(["<new>"])
    assert tokenizer_digest(other) != tokenizer_digest(tokenizer)
    assert not vocabulary_difference(tokenizer, other) and not vocabulary_difference(other, tokenizer)
    moved = chat_tokenizer(None)
    moved.add_tokens(["<first>", "<new>"])
    assert "'<new>' is id" in vocabulary_difference(other, moved)
    assert vocabulary_difference(tokenizer, sentence_pieces(None))


@pytest.mark.parametrize("template", [PLAIN.replace("}}<|im_end|>", "}}\r\n<|im_end|>"), {"default": PLAIN}])
def test_any_form_of_a_template_is_kept(tmp_path: Path, spec: StoreSpec, template: Any) -> None:
    tokenizer = chat_tokenizer(template)
    storage, spec = make_store(tmp_path / "store", spec, tokenizer)
    plain = replace(AGENT, messages=AGENT.messages[4:], tools=())
    assert render(plain, open_tokenizer(storage, spec)).key == render(plain, tokenizer).key
