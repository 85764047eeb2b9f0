"""The reductions of a device, and the stock way, as functions of a case."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from benchmarks.reduction.cases import Case
from teacher_serving.reduction.torch_backend import ReducedBlock, reduce_block
from teacher_serving.reduction.triton_backend import PackedBlock, missing_for, reduce_packed

Run = Callable[[], Any]


def ways_of(case: Case) -> dict[str, Run]:
    """The ways to reduce this case, by name: compiled kernels, plain torch, and the stock way for the k largest."""
    ways: dict[str, Run] = {}
    logits = case.logits
    if logits.is_cuda:
        if not missing_for(case.targets, logits.shape[1], logits.device):
            ways["triton"] = lambda: reduce_packed(logits, case.next_tokens, case.uniforms, case.targets)
    else:
        ways["loops"] = _loops(case)
    ways["torch"] = lambda: reduce_block(logits.float(), case.next_tokens, case.uniforms, case.targets)
    if case.targets.mode == "topk":
        ways["log_softmax and torch.topk"] = lambda: stock(logits, case.next_tokens, case.targets.k)
    return ways


def _loops(case: Case) -> Run:
    from teacher_serving.reduction.loops_backend import reduce_with_loops

    next_tokens, uniforms, threads = case.next_tokens.numpy(), case.uniforms.numpy(), torch.get_num_threads()
    pool = ThreadPoolExecutor(threads) if threads > 1 else None
    return lambda: reduce_with_loops(case.logits, next_tokens, uniforms, case.targets, pool)


def stock(logits: torch.Tensor, next_tokens: torch.Tensor, k: int) -> tuple[torch.Tensor, ...]:
    """Log-probabilities of the k largest and of the next token, as engines compute them."""
    logprobs = logits.float().log_softmax(-1)
    values, ids = logprobs.topk(k, dim=-1)
    return values, ids, logprobs.gather(1, next_tokens[:, None])


def arrays_of(result: Any) -> Mapping[str, Any] | None:
    """The arrays of a reduction by name, on the host; None for the stock way."""
    if isinstance(result, PackedBlock):
        return result.arrays(result.packed.cpu().numpy())
    if isinstance(result, ReducedBlock):
        return {name: getattr(result, name).cpu().numpy() for name in ReducedBlock.__slots__}
    return result if isinstance(result, Mapping) else None
