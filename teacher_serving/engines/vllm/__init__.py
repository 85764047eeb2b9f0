"""The vLLM engine: causal models, on GPUs or a CPU, with tensor and pipeline parallelism.

In: token ids (Request). Out: sparse rows of the next-token distribution (Scored, Generated). Logits are reduced to rows
inside vLLM's workers (workers/); only rows leave a worker. If this version of vLLM does not allow it, rows
come from the log-probabilities of vLLM's public interface (public_logprobs.py), for topk and nucleus targets only.
Knows nothing of examples, stores or Ray. vLLM is imported when an engine starts, not before.
"""

from teacher_serving.engines.vllm.engine import VllmEngine
from teacher_serving.engines.vllm.settings import VllmSettings

ENGINE = VllmEngine()

__all__ = ["ENGINE", "VllmEngine", "VllmSettings"]
