"""Packed examples do not influence each other; a model for which they do is detected."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from cache.errors import InputError
from student.models.attention.implementations import flash_stand_in, set_attention
from student.models.rows.packing import Packing, pack, positions
from student.models.rows.packing_probe import refuse_unpackable

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "initializer_range": 0.2,  # attention that matters: with the usual 0.02 it would hardly change the hidden states
}
GROUPED = {**SMALL, "num_key_value_heads": 2}
PACKABLE: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "qwen2": GROUPED,
    "gemma2": {**GROUPED, "head_dim": 8, "sliding_window": 4},
    "gpt2": {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "initializer_range": 0.2},
    "gpt_neox": SMALL,
}
# Attention biased by distance, computed without regard to positions, and a state that runs on from token to token.
UNPACKABLE: dict[str, dict[str, Any]] = {
    "bloom": {"vocab_size": 97, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mamba": {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "recurrent_gemma": {**GROUPED, "head_dim": 8, "lru_width": 32, "attention_window_size": 16, "pad_token_id": 0},
    # Takes position_ids as one of any keywords, and does not use them; what precedes a token sees it too.
    "xlnet": {"vocab_size": 97, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
}
OPT = {"vocab_size": 97, "hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 2}
LENGTHS = [9, 1, 14, 6, 11, 1, 3]


def build(model_type: str, **fields: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **fields), dtype=torch.float32).eval()


def difference(model: PreTrainedModel, row_length: int, apart: bool = True) -> float:
    """Greatest difference of a hidden state between packed examples, kept apart by positions or not, and each alone."""
    packing = pack(LENGTHS, row_length)
    rng = np.random.default_rng(0)
    examples = [torch.from_numpy(rng.integers(0, 97, length)) for length in LENGTHS]
    input_ids = torch.zeros(packing.rows, packing.width, dtype=torch.int64)
    places = list(zip(packing.row.tolist(), packing.offset.tolist(), examples, strict=True))
    for row, offset, example in places:
        input_ids[row, offset : offset + len(example)] = example
    position_ids = torch.from_numpy(positions(packing)) if apart else None
    with torch.no_grad():
        packed = model.base_model(input_ids=input_ids, position_ids=position_ids, use_cache=False).last_hidden_state
        return max(
            float((packed[row, offset : offset + len(example)] - alone.last_hidden_state[0]).abs().max())
            for row, offset, example in places
            for alone in [model.base_model(input_ids=example[None], use_cache=False)]
        )


def check(packing: Packing) -> None:
    """Every token of every example has a place of its own, at its position; the rest is padding."""
    ids = positions(packing)
    assert ids.shape == (packing.rows, packing.width) and ids.dtype == np.int64
    owner = np.full(ids.shape, -1)
    for i, (length, row, offset) in enumerate(zip(packing.lengths, packing.row, packing.offset, strict=True)):
        assert 0 <= row < packing.rows and offset >= 0 and offset + length <= packing.width
        assert (owner[row, offset : offset + length] == -1).all()
        owner[row, offset : offset + length] = i
        assert ids[row, offset : offset + length].tolist() == list(range(length))
    filled = (owner >= 0).sum(axis=1)
    assert (np.diff(filled) <= 0).all() and filled[0] == packing.width
    # As Transformers finds sequences: no padding token is of a real one's.
    sequence = np.cumsum(np.diff(ids, axis=1, prepend=ids[:, :1] - 1) != 1, axis=1)
    for row in range(packing.rows):
        assert not set(sequence[row, owner[row] == -1]) & set(sequence[row, owner[row] >= 0])
        assert len(set(sequence[row, owner[row] >= 0])) == len(set(owner[row]) - {-1})


@given(lengths=st.lists(st.integers(1, 40), max_size=60), room=st.integers(0, 60), multiple=st.integers(1, 7))
def test_all_are_placed_and_none_overlap(lengths: list[int], room: int, multiple: int) -> None:
    row_length = max(lengths, default=1) + room
    packing = pack(lengths, row_length, multiple)
    assert len(packing.row) == len(lengths)
    assert packing.width <= row_length and packing.rows % multiple == 0 and packing.rows >= 1
    if lengths:
        check(packing)
    # What any fit promises: no two rows could be one. So at most one is half empty, before rounding up.
    fewest = -(-sum(lengths) // row_length)
    assert packing.rows < max(2 * fewest, 1) + multiple


def test_rows_are_as_few_as_best_fit_needs_and_equally_full() -> None:
    packing = pack([3, 5, 3, 8, 2, 5], 10)
    filled = np.bincount(packing.row, weights=packing.lengths)
    assert (packing.rows, packing.width, filled.tolist()) == (3, 10, [10, 8, 8])
    assert packing.row.tolist() == [1, 1, 2, 0, 0, 2]
    assert packing.offset.tolist() == [0, 3, 0, 0, 8, 3]
    even = pack([3, 5, 3, 8, 2, 5], 10, 2)
    assert np.bincount(even.row, weights=even.lengths).tolist() == [8, 7, 6, 5]


def test_rows_of_best_fit_are_kept_where_equal_ones_would_be_too_long() -> None:
    """3 + 3 and 2 + 2 + 2 fit into rows of 6. The emptiest row first would make 7 and 5."""
    packing = pack([3, 3, 2, 2, 2], 6)
    assert (packing.rows, packing.width) == (2, 6)
    check(packing)


def test_positions_start_again_with_each_example_and_with_padding() -> None:
    assert positions(pack([3, 2], 10)).tolist() == [[0, 1, 2, 0, 1]]
    assert positions(pack([4, 2], 5)).tolist() == [[0, 1, 2, 3], [0, 1, 0, 1]]
    assert positions(pack([4, 1, 1], 5, 3)).tolist() == [[0, 1, 2, 3], [0, 0, 1, 2], [0, 0, 1, 2]]
    assert positions(pack([], 3)).shape == (1, 0)


@pytest.mark.parametrize("length", [11, 0])
def test_an_example_that_fits_no_row_is_named(length: int) -> None:
    with pytest.raises(InputError, match=f"example 2 has {length} tokens, but a row takes 1 to 10"):
        pack([10, 1, length, 4], 10)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("model_type", PACKABLE)
def test_packed_examples_get_the_hidden_states_of_each_alone(model_type: str, attention: str) -> None:
    """In three rows."""
    model = build(model_type, **PACKABLE[model_type], attn_implementation=attention)
    assert difference(model, 20, apart=False) > 1e-2  # so that a leak would show
    assert difference(model, 20) < 1e-5
    refuse_unpackable(model)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("model_type", PACKABLE)
def test_no_gradient_reaches_another_example(model_type: str, attention: str) -> None:
    """Neither one before it, nor behind it, nor in the other row; and its own gradient is that of the example alone."""
    model = build(model_type, **PACKABLE[model_type], attn_implementation=attention)
    packing = pack(LENGTHS, 25)
    assert packing.rows == 2
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(97, (2, packing.width), generator=generator)
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    position_ids = torch.from_numpy(positions(packing))
    states = model.base_model(inputs_embeds=embedded, position_ids=position_ids, use_cache=False).last_hidden_state
    for row, offset, length in zip(packing.row.tolist(), packing.offset.tolist(), LENGTHS, strict=True):
        span = slice(offset, offset + length)
        weights = torch.randn(length, states.shape[-1], generator=generator)
        (gradient,) = torch.autograd.grad((states[row, span] * weights).sum(), embedded, retain_graph=True)
        own = embedded[row : row + 1, span].detach().requires_grad_()
        alone = model.base_model(inputs_embeds=own, use_cache=False).last_hidden_state[0]
        (expected,) = torch.autograd.grad((alone * weights).sum(), own)
        assert (gradient[row, span] - expected[0]).norm() < 1e-5 * expected.norm()
        gradient[row, span] = 0
        assert gradient.norm() < 1e-6 * expected.norm()


def test_attention_that_separates_sequences_of_one_row_only_is_refused_for_several() -> None:
    """As the flash path of Transformers. Would catch a test of one row alone, which passes."""
    model = build("llama", **GROUPED)
    with flash_stand_in(model):
        refuse_unpackable(model, rows=1)
        assert difference(model, 100) < 1e-5, "one row"
        assert difference(model, 25) > 1e-2, "two rows"
        message = r"'llama'.*one row only.*set run\.micro_batch_size = 1"
        with pytest.raises(InputError, match=message):
            refuse_unpackable(model)
    assert model.config._attn_implementation == "sdpa"


def test_an_attention_that_a_model_lacks_is_refused() -> None:
    """Transformers only warns of the second one, and uses another."""
    for name, model in (("nonsense", build("llama", **GROUPED)), ("sdpa", build("bloom", **UNPACKABLE["bloom"]))):
        with pytest.raises(InputError, match=f"model.attn_implementation = '{name}'"):
            set_attention(model, name)
    model = build("llama", **GROUPED)
    set_attention(model, "eager")
    assert model.config._attn_implementation == "eager"


def test_a_small_leak_is_detected() -> None:
    """Weights as small as those of a new model: what examples see of each other then changes hidden states little."""
    model = build("bloom", **{**UNPACKABLE["bloom"], "initializer_range": 0.001})
    assert difference(model, 20) < 1e-2
    with pytest.raises(InputError, match="does not keep packed examples apart"):
        refuse_unpackable(model)


def test_attention_in_chunks_of_the_row_is_refused_for_longer_rows() -> None:
    model = build("llama", **GROUPED, attention_chunk_size=16)
    refuse_unpackable(model, row_length=16)
    with pytest.raises(InputError, match=r"'llama' attends in chunks of 16 tokens.*set data\.pack_to to 16 or less"):
        refuse_unpackable(model, row_length=17)


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_rows_may_be_longer_than_a_model_has_positions(model_type: str) -> None:
    """Padding of 75 tokens would otherwise ask a model of 32 learned positions for more."""
    assert difference(build(model_type, **PACKABLE[model_type]), 120) < 1e-5


@pytest.mark.parametrize("model_type", UNPACKABLE)
def test_a_model_that_heeds_no_positions_is_refused(model_type: str) -> None:
    model = build(model_type, **UNPACKABLE[model_type])
    assert difference(model, 20) > 1e-3
    with pytest.raises(InputError, match=rf"{model_type}.*does not keep packed examples apart.*leave out data"):
        refuse_unpackable(model)


def test_opt_is_refused_as_long_as_its_attention_leaks() -> None:
    """Transformers 5.19 gives OPT's embeddings the positions, not its mask. A version that mends it is welcome."""
    model = build("opt", **OPT, num_attention_heads=4, init_std=0.2)
    leaks = difference(model, 20) > 1e-3
    try:
        refuse_unpackable(model)
    except InputError:
        assert leaks
    else:
        assert not leaks


class Unpositioned(nn.Module):
    """Takes a model's place at forward, without its position_ids."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.inner, self.config, self.device = model.base_model, model.config, model.device

    @property
    def base_model(self) -> "Unpositioned":
        return self

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
        return self.inner(input_ids=input_ids, use_cache=use_cache)


def test_a_model_that_takes_no_positions_is_refused() -> None:
    with pytest.raises(InputError, match="takes no position_ids"):
        refuse_unpackable(Unpositioned(build("llama", **GROUPED)))


def test_the_trial_leaves_the_model_and_the_random_numbers_as_they_were() -> None:
    """Dropout would make two runs differ, so it is off for the trial, and on again after it where it was on."""
    model = build("gpt2", **PACKABLE["gpt2"], embd_pdrop=0.5, resid_pdrop=0.5)
    model.train()
    model.base_model.h[0].eval()
    before = [module.training for module in model.modules()]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    refuse_unpackable(model)
    assert [module.training for module in model.modules()] == before
    assert torch.equal(torch.rand(3), expected)
    assert all(parameter.grad is None for parameter in model.parameters())
