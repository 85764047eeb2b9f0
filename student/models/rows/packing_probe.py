"""A test whether a model keeps packed examples apart."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from cache.errors import InputError

# Lengths of the sequences in each row of the test: different, and longer than the convolutions of hybrid models.
ROWS = ((7, 9, 5), (9, 5, 7))

# Relative differences of hidden states, as multiples of the spacing of floats in the model's dtype. A packed sequence
# and one alone are computed in other shapes, so they are rounded differently. Packed twice, only groups of a mixture of
# experts differ. Models that mix examples differ by 5e-3 to 0.5 from each alone.
ALONE_LIMIT, OTHERS_LIMIT = 1000.0, 50.0
MAX_LIMIT = 0.1

WAY_OUT = "leave out data.pack_to, or use a model of another family"


def refuse_unpackable(model: PreTrainedModel, rows: int = 2, row_length: int | None = None) -> None:
    """Raise InputError unless packed sequences get the hidden states that each gets alone, whatever the others are.

    rows: of a micro-batch. Several rows are tested as two, because attention of variable length (such as the path of
    Transformers for flash attention) may keep sequences apart in one row only. row_length: data.pack_to.

    The test uses random tokens, because no model declares what it does with position_ids. It runs on the model's
    device with its attention implementation, before weights are partitioned over ranks, without gradients or dropout.
    Every sequence is compared with itself alone, which shows wrong positions; and with itself when all other sequences
    change, before it, behind it and in the other row, which shows the smallest leak. The test does not detect what
    begins beyond its length; therefore attention in chunks that are shorter than `row_length` is refused.
    """
    kind = model.config.model_type
    chunk = getattr(model.config.get_text_config(), "attention_chunk_size", None)
    if chunk is not None and row_length is not None and row_length > chunk:
        raise InputError(
            f"model type {kind!r} attends in chunks of {chunk} tokens of the row, which would cut packed examples; set "
            f"data.pack_to to {chunk} or less, or leave it out"
        )
    training_modules = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            problem = _problem(model, min(rows, len(ROWS)))
            works_in_one_row = bool(problem) and rows > 1 and not _problem(model, 1)
    except TypeError as error:
        raise InputError(f"model type {kind!r} takes no position_ids ({error}); {WAY_OUT}") from error
    finally:
        for module in training_modules:
            module.training = True
    if works_in_one_row:
        attention = model.config._attn_implementation
        raise InputError(
            f"model type {kind!r}: its attention ({attention}) keeps packed examples apart in a micro-batch of one row "
            f"only ({problem}); set run.micro_batch_size = 1, with a larger data.pack_to if it fits, or leave out "
            "data.pack_to"
        )
    if problem:
        raise InputError(f"model type {kind!r} does not keep packed examples apart ({problem}); {WAY_OUT}")


def _problem(model: PreTrainedModel, rows: int) -> str:
    """How sequences influence each other in so many rows; empty if they do not."""
    lengths = ROWS[:rows]
    generator = torch.Generator().manual_seed(0)
    vocab_size = int(model.config.get_text_config().vocab_size)
    shape = (rows, sum(lengths[0]))
    tokens, others = (torch.randint(vocab_size, shape, generator=generator).to(model.device) for _ in range(2))
    positions = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in lengths]).to(model.device)
    spans = [(row, slice(sum(lengths[row][:i]), sum(lengths[row][: i + 1]))) for row in range(rows) for i in range(3)]
    packed = _states(model, tokens, positions)
    epsilon = torch.finfo(packed.dtype).eps
    for row, span in spans:
        alone = _states(model, tokens[row : row + 1, span])[0]
        changed = others.clone()
        changed[row, span] = tokens[row, span]
        among_others = _states(model, changed, positions)[row, span]
        for reference, limit, name in (
            (among_others, OTHERS_LIMIT, "when other examples change"),
            (alone, ALONE_LIMIT, "from each alone"),
        ):
            difference = _difference(packed[row, span], reference)
            if not difference <= min(limit * epsilon, MAX_LIMIT):
                return f"hidden states differ by {difference:.0e} {name}"
    return ""


def _states(model: PreTrainedModel, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
    """Hidden states of the tokens, [rows, L, d]."""
    placed = {} if positions is None else {"position_ids": positions}
    states: Tensor = model.base_model(input_ids=tokens, **placed, use_cache=False).last_hidden_state
    return states


def _difference(states: Tensor, reference: Tensor) -> float:
    """Relative difference of hidden states."""
    return float((states.double() - reference.double()).norm() / reference.double().norm())
