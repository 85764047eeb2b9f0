"""The methods that vLLM adds to its workers, and by which the teacher installs the reduction and fetches its rows.

vLLM mixes the methods of `RowsExtension` into its worker class (`worker_extension_cls`). `LLM.collective_rpc` calls
them by name on every rank.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from teacher_serving.engines.vllm.workers.collector import RowCollector


class RowsExtension:
    """Methods that vLLM adds to its workers. Nothing is imported or wrapped before logitbank_install is called."""

    def logitbank_install(self, targets: dict[str, Any], vocab_size: int, threads: int, memory_mib: int) -> str:
        """Wrap the steps of the model runner that see logits. Returns why it could not, or ""."""
        from cache.rows.spec import TargetSpec
        from teacher_serving.engines.vllm.workers import runner_v1, runner_v2
        from teacher_serving.engines.vllm.workers.collector import describe
        from teacher_serving.reduction.reducer import Reducer

        runner: Any = getattr(self, "model_runner", None)
        hooks = runner_v2 if runner_v2.is_v2(runner) else runner_v1
        reason: str = hooks.missing_for(runner)
        if not reason and getattr(runner, "speculative_config", None) is not None:
            reason = "it drafts tokens, and the rows of accepted ones are not made"
        if reason:
            return reason
        spec = TargetSpec(**{**targets, "temperatures": tuple(targets["temperatures"])})
        reducer = Reducer(spec, vocab_size, threads, memory_mib)
        self._logitbank_collector: RowCollector = hooks.install(runner, spec, reducer)
        try:
            return reducer.check_kernels(runner.device)
        except Exception as error:  # a kernel that cannot be compiled, for example
            return describe(error)

    def logitbank_rows_from(self) -> str:
        """Return how this rank reduces logits, if not in the usual way; see Reducer.rows_from."""
        collector = self._logitbank_collector
        return collector.reducer.rows_from(collector.device)

    def logitbank_why_plain_torch(self) -> str:
        """Return why plain torch reduces on this rank's GPU; "" if kernels do, and on a CPU."""
        collector = self._logitbank_collector
        on_gpu = collector.device.type == "cuda"
        return collector.reducer.why_plain_torch(collector.device) if on_gpu else ""

    def logitbank_use_torch(self, reason: str) -> None:
        """Let this rank reduce with plain torch. Ranks with blocks of other sizes would wait for each other."""
        collector = self._logitbank_collector
        collector.reducer.use_torch(collector.device, reason)

    def logitbank_take_rows(self) -> bytes:
        """Return the rows since the last call, see transport.py; b"" from a rank without rows."""
        return self._logitbank_collector.take_rows()

    def logitbank_forget_rows(self) -> None:
        """Forget the rows since the last call, and a failure."""
        self._logitbank_collector.forget_rows()
