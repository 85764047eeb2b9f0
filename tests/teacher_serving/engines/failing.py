"""A reduction that fails when a test asks for it, in worker processes that a test cannot patch."""

from typing import Any

from tests.teacher_serving.engines.pipeline import PipelineExtension

MESSAGE = "out of memory, says the test"


class FailingExtension(PipelineExtension):
    """RowsExtension with small blocks, whose rank 0 fails once when it is asked to."""

    def logitbank_install(self, *arguments: Any) -> str:
        from teacher_serving.reduction import reducer

        reducer.MAX_CPU_ROWS = 8  # so that a step has several blocks
        return super().logitbank_install(*arguments)

    def fail_once(self, where: str) -> None:
        """where: "reduction", after the logits of a block; or "logits", where the other rank waits for this one."""
        from vllm.distributed import get_tensor_model_parallel_rank

        if get_tensor_model_parallel_rank() != 0:
            return
        if where == "reduction":
            owner: Any = self._logitbank_collector.reducer
            name = "reduce"
        else:
            owner, name = self._logitbank_collector, "_to_logits"
        original = getattr(owner, name)

        def fail(*arguments: Any) -> Any:
            setattr(owner, name, original)
            raise RuntimeError(MESSAGE)

        setattr(owner, name, fail)
