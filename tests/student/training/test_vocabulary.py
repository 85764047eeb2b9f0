"""A student of another vocabulary never meets the ids of a store."""

import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from cache.errors import SpecMismatchError
from cache.examples.tokenizers import tokenizer_digest, tokenizer_files
from cache.storage.local import LocalStorage
from cache.store.claims.tokenizer_files import claim_tokenizer
from cache.store.commits import read_spec
from student.training.planning.plan import tokenizer_folder
from student.training.planning.stores import OpenStores
from student.training.planning.vocabulary import choose_vocabulary
from tests.cache.examples.chats import PLAIN, chat_tokenizer
from tests.student.training.ranks import TOPK, make_pretrained, make_store, settings_of


@pytest.fixture
def store(tmp_path: Path, tiny_model: Path) -> Path:
    return make_store(tmp_path / "store", tiny_model, TOPK, 3)


def test_a_pretrained_student_of_another_vocabulary_is_refused(tmp_path: Path, tiny_model: Path, store: Path) -> None:
    student = make_pretrained(tmp_path / "student", tiny_model)
    settings = settings_of(tmp_path / "run", store, model={"pretrained": str(student)})
    choose_vocabulary(settings, OpenStores(), tmp_path / "plan")
    chat_tokenizer(PLAIN).save_pretrained(str(student))
    for known in ({}, {"tokenizer": {"path": str(tiny_model)}}):
        settings = settings_of(tmp_path / "run", store, model={"pretrained": str(student)}, **known)
        with pytest.raises(
            SpecMismatchError, match=r"another vocabulary than store .*token .* is id .*cross_tokenizer"
        ):
            choose_vocabulary(settings, OpenStores(), tmp_path / "plan")


def test_a_student_with_more_tokens_of_its_own_is_no_other_vocabulary(
    tmp_path: Path, tiny_model: Path, store: Path
) -> None:
    student = make_pretrained(tmp_path / "student", tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(student)
    tokenizer.add_tokens(["<mine>"])
    tokenizer.save_pretrained(str(student))
    settings = settings_of(tmp_path / "run", store, model={"pretrained": str(student)})
    vocabulary = choose_vocabulary(settings, OpenStores(), tmp_path / "plan")
    assert tokenizer_digest(vocabulary.tokenizer) == read_spec(LocalStorage(store)).tokenizer


def test_the_tokenizer_of_the_store_is_used_where_the_teacher_is_gone(tmp_path: Path, tiny_model: Path) -> None:
    teacher = shutil.copytree(tiny_model, tmp_path / "teacher")
    store = make_store(tmp_path / "store", teacher, TOPK, 3)
    spec = read_spec(LocalStorage(store))
    claim_tokenizer(LocalStorage(store), spec, tokenizer_files(AutoTokenizer.from_pretrained(teacher)))
    shutil.rmtree(teacher)
    vocabulary = choose_vocabulary(settings_of(tmp_path / "run", store), OpenStores(), tmp_path / "plan")
    assert tokenizer_digest(vocabulary.tokenizer) == spec.tokenizer and vocabulary.path is None
    assert (tokenizer_folder(tmp_path / "plan") / "tokenizer.json").exists()
