"""A test whether a model keeps packed examples apart."""

import torch
from transformers import PreTrainedModel

from cache.errors import InputError

# Lengths of the two sequences of the test: different, and longer than the convolutions of hybrid models.
LENGTHS = [7, 9]

# Relative differences of hidden states. Below the first, rounding alone explains them; above the second, it never does.
# Models that mix packed examples differ by 5e-3 to 0.5.
MIN_LIMIT, MAX_LIMIT = 1e-4, 0.1


def refuse_unpackable(model: PreTrainedModel) -> None:
    """Raise InputError unless two packed sequences get the hidden states that each gets alone.

    The test uses random tokens, because no model declares what it does with position_ids. It runs on the model's
    device, before weights are partitioned over ranks, without gradients or dropout. Use float32: rounding hides small
    differences. The test does not detect what begins beyond its length, such as attention in chunks of the row.
    """
    kind = model.config.model_type
    vocab_size = int(model.config.get_text_config().vocab_size)
    tokens = torch.randint(vocab_size, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(0)).to(model.device)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None].to(model.device)
    training_modules = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            alone = [model.base_model(input_ids=part, use_cache=False) for part in torch.split(tokens, LENGTHS, dim=1)]
            packed = model.base_model(input_ids=tokens, position_ids=positions, use_cache=False)
    except TypeError as error:
        raise InputError(f"model type {kind!r} takes no position_ids ({error}); leave out data.pack_to") from error
    finally:
        for module in training_modules:
            module.training = True
    # Nothing precedes the first sequence, so its difference is rounding. The second one shows whether examples mix.
    rounding, difference = (
        float((part - single.last_hidden_state).double().norm() / single.last_hidden_state.double().norm())
        for single, part in zip(alone, torch.split(packed.last_hidden_state, LENGTHS, dim=1), strict=True)
    )
    if not difference <= min(max(10 * rounding, MIN_LIMIT), MAX_LIMIT):
        raise InputError(
            f"model type {kind!r}: its attention does not keep packed examples apart (hidden states differ by "
            f"{difference:.0e}); leave out data.pack_to"
        )
