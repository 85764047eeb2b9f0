"""Retrieval with a small random encoder: a text is nearest to itself, and all methods agree where they must."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cache.errors import InputError
from student.tasks.recipe_dialogue.dialogue import Passage, Recipe
from student.tasks.recipe_dialogue.retrieval.embeddings import Encoder, load_encoder
from student.tasks.recipe_dialogue.retrieval.retriever import Retriever
from tests.real_data import real_encoder

TEXTS = {
    "pie": ("Nut Pie", "3 eggs", "1 cup nuts", "Beat the eggs.", "Stir in the nuts.", "Bake for 40 minutes."),
    "soup": ("Leek Soup", "2 leeks", "1 cup cream", "Slice the leeks.", "Cook for 20 minutes.", "Add the cream."),
    "rice": ("Fried Rice", "2 cups rice", "Cook the rice.", "Fry the rice with oil.", "Serve at once."),
}
RECIPES = [
    Recipe(name, lines[0], tuple(Passage(f"{name}/{i}", text) for i, text in enumerate(lines)))
    for name, lines in TEXTS.items()
]
LINES = [passage for recipe in RECIPES for passage in recipe.passages]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    raw.normalizer, raw.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    raw.train_from_iterator(
        [passage.text for passage in LINES],
        trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[PAD]", "[UNK]"]),
    )
    PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=200, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    return str(folder)


def ids(passages: Sequence[Passage]) -> list[str]:
    return [passage.id for passage in passages]


def test_padding_changes_no_vector_and_vectors_have_length_one(encoder: str) -> None:
    together = Encoder(encoder).embed(["3 eggs", "Fry the rice with oil.", "3 eggs"])
    alone = Encoder(encoder).embed(["3 eggs"])
    np.testing.assert_allclose(together[0], alone[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert (together[0] == together[2]).all() and not np.allclose(together[0], together[1])


@pytest.mark.parametrize("method", ["dense", "compressed", "bm25"])
@pytest.mark.parametrize("line", [LINES[1], LINES[9], LINES[15]], ids=lambda line: line.id)
def test_a_line_is_nearest_to_itself(encoder: str, method: str, line: Passage) -> None:
    pytest.importorskip("langchain_classic")
    (found,) = Retriever(RECIPES, encoder, 1, 0).search(method, [line.text], ["?"])  # type: ignore[arg-type]
    assert found.passages[0] == line and found.documents[0] == line.id.partition("/")[0]


def test_compression_ranks_the_lines_of_the_best_recipes_as_dense_retrieval_does(encoder: str) -> None:
    pytest.importorskip("langchain_classic")
    for count in (1, 2, 3):
        retriever = Retriever(RECIPES, encoder, count, 0)
        queries = ["Cook the rice.", "How many eggs?", "Slice the leeks now"]
        for dense, compressed in zip(
            retriever.search("dense", queries, ["?"] * 3),
            retriever.search("compressed", queries, ["?"] * 3),
            strict=True,
        ):
            kept = set(dense.documents[:count])
            assert compressed.documents == dense.documents
            assert ids(compressed.passages) == [name for name in ids(dense.passages) if name.partition("/")[0] in kept]


def test_parent_gives_whole_recipes_and_oracle_the_right_one(encoder: str) -> None:
    pytest.importorskip("langchain_classic")
    retriever = Retriever(RECIPES, encoder, 1, 1)
    (parent,) = retriever.search("parent", ["Slice the leeks."], ["rice"])
    assert parent.documents[0] == "soup" and parent.passages == RECIPES[1].passages
    (oracle,) = retriever.search("oracle", ["Slice the leeks."], ["rice"])
    assert oracle.documents == ("rice",) and oracle.passages == RECIPES[2].passages
    assert retriever.search("none", ["x"], ["rice"])[0].passages == ()


def test_lines_that_follow_come_right_behind_and_stay_in_the_recipe() -> None:
    (found,) = Retriever(RECIPES, "unused", 1, 2).search("bm25", ["leek soup add cream"], ["?"])
    assert ids(found.passages)[:4] == ["soup/0", "soup/1", "soup/2", "soup/5"]
    assert len(set(ids(found.passages))) == len(found.passages)


def test_a_folder_without_an_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no sentence encoder can be read"):
        load_encoder(str(tmp_path))


def test_the_real_encoder_knows_which_sentences_are_alike() -> None:
    vectors = load_encoder(str(real_encoder())).embed(["How long must it bake?", "Bake for 40 minutes.", "2 leeks"])
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]
