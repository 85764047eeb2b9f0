"""The Transformers engine: every causal and encoder-decoder model, one sequence at a time.

In: token ids (Request). Out: sparse rows of the next-token distribution (Scored, Generated), in every target mode.
Slow and simple on purpose: the other engines are compared with it in the tests. Knows nothing of stores or Ray.
"""

from teacher_serving.engines.transformers.engine import TransformersEngine
from teacher_serving.engines.transformers.settings import TransformersSettings

ENGINE = TransformersEngine()

__all__ = ["ENGINE", "TransformersEngine", "TransformersSettings"]
