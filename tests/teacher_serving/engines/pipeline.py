"""What vLLM 0.32 leaves out where a pipeline runs on a CPU: the buffer that a later rank receives in.

Its GPU runner makes it in a profiling run, which its CPU runner skips where nothing is compiled
(`CPUModelRunner.warming_up_model`). Any pass of a later rank then ends in
`assert self.intermediate_tensors is not None`.
"""

from typing import Any

from teacher_serving.engines.vllm.workers.extension import RowsExtension


class PipelineExtension(RowsExtension):
    """RowsExtension, and before it that buffer. Its reduction can be removed, so that another may be installed."""

    def logitbank_install(self, *arguments: Any) -> str:
        from vllm.distributed import get_pp_group

        runner: Any = self.model_runner  # type: ignore[attr-defined]
        if not get_pp_group().is_first_rank:
            runner.intermediate_tensors = runner.model.make_empty_intermediate_tensors(
                batch_size=runner.max_num_tokens, dtype=runner.model_config.dtype, device=runner.device
            )
        return super().logitbank_install(*arguments)

    def remove_reduction(self) -> None:
        from tests.teacher_serving.engines.engines import remove_reduction

        remove_reduction(self)
