"""Whether a model keeps packed examples apart."""

import torch
from transformers import PreTrainedModel

from cache.errors import InputError

# Lengths of the two sequences of a probe: unlike, and longer than the convolutions of hybrid models.
PROBE = [7, 9]


# Relative differences of hidden states: what may always be rounding, and what never is. Leaks measured 5e-3 to 0.5.
LEAST_LIMIT, GREATEST_LIMIT = 1e-4, 0.1


def refuse_unpackable(model: PreTrainedModel) -> None:
    """Raise InputError unless the model gives two packed sequences the hidden states that it gives each alone.

    A trial with random tokens, since what a model does with position_ids is not declared anywhere. It runs where the
    model is, before weights are spread over ranks, without gradients or dropout. Best in float32: rounding hides small
    leaks. It cannot see what begins only beyond its length, such as attention in chunks by place in the row.
    """
    kind = model.config.model_type
    vocabulary = int(model.config.get_text_config().vocab_size)
    tokens = torch.randint(vocabulary, (1, sum(PROBE)), generator=torch.Generator().manual_seed(0)).to(model.device)
    positions = torch.cat([torch.arange(length) for length in PROBE])[None].to(model.device)
    in_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            alone = [model.base_model(input_ids=part, use_cache=False) for part in torch.split(tokens, PROBE, dim=1)]
            packed = model.base_model(input_ids=tokens, position_ids=positions, use_cache=False)
    except TypeError as error:
        raise InputError(f"model type {kind!r} takes no position_ids ({error}); turn packing off") from error
    finally:
        for module in in_training:
            module.training = True
    # Nothing precedes the first sequence, so what changes there is rounding, in whatever precision the device works.
    rounding, found = (
        float((there - here.last_hidden_state).double().norm() / here.last_hidden_state.double().norm())
        for here, there in zip(alone, torch.split(packed.last_hidden_state, PROBE, dim=1), strict=True)
    )
    if not found <= min(max(10 * rounding, LEAST_LIMIT), GREATEST_LIMIT):
        raise InputError(
            f"model type {kind!r}: its attention does not keep packed examples apart (hidden states differ by "
            f"{found:.0e}); turn packing off"
        )
