"""A failure inside a worker of vLLM ends in one error, and the engine can be used afterwards or is reported as dead."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache.errors import LogitbankError
from cache.rows.spec import SamplingSpec, TargetSpec
from teacher_serving.engines.vllm import llm_options
from teacher_serving.engines.vllm.teacher import VllmTeacher
from teacher_serving.reduction.reducer import Reducer
from teacher_serving.teacher import TeacherDiedError
from tests.teacher_serving.engines import engines
from tests.teacher_serving.engines.engines import make_oracle, make_requests, make_teacher, worst_difference
from tests.teacher_serving.engines.failing import MESSAGE

pytestmark = pytest.mark.slow

TOLERANCE = 2e-5
SECONDS = 120
SAMPLING = SamplingSpec(samples=1, temperature=1.0, top_p=1.0, max_tokens=8, seed=0, answer_marker="")


def within_limit(function: Callable[[], Any]) -> Any:
    """The result of the function, or the exception that it raised. Fails the test if it does not return."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(SECONDS)
    if not outcome:
        pytest.fail("the engine hangs")
    return outcome[0]


def assert_right(teacher: VllmTeacher, model: Path) -> None:
    """Both kinds of calls work, and their rows are those of the model."""
    oracle = make_oracle(model)
    requests = make_requests()[3:6]
    scores = within_limit(lambda: teacher.score(requests))
    assert max(worst_difference(s, oracle(r.tokens)) for r, s in zip(requests, scores, strict=True)) < TOLERANCE
    written = within_limit(lambda: teacher.generate(requests, SAMPLING))
    assert all((response.rows.counts > 0).all() for response in written)


@pytest.mark.parametrize("verb", ["score", "generate"])
@pytest.mark.parametrize("error", [RuntimeError("out of memory"), ValueError("a defect")], ids=["runtime", "value"])
def test_a_failed_reduction_ends_the_call_and_not_the_engine(
    verb: str, error: Exception, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = make_teacher("vllm", tiny_model, TargetSpec(k=16), generates=True)
    assert isinstance(teacher, VllmTeacher)

    def fail(self: Reducer, *arguments: Any) -> Any:
        raise error

    requests = make_requests()[1:4]
    with monkeypatch.context() as patch:
        patch.setattr(Reducer, "reduce", fail)
        call = (lambda: teacher.score(requests)) if verb == "score" else (lambda: teacher.generate(requests, SAMPLING))
        with pytest.raises(LogitbankError, match=f"could not make rows.*{error}"):
            call()
    assert_right(teacher, tiny_model)


def test_an_interrupted_call_leaves_no_requests_and_no_rows(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch rows of an earlier call, which have the same request numbers as those of the next call."""
    teacher = make_teacher("vllm", tiny_model, TargetSpec(k=16), generates=True)
    assert isinstance(teacher, VllmTeacher)
    steps = []

    def interrupt(self: Reducer, *arguments: Any) -> Any:
        steps.append(1)
        if len(steps) == 2:
            raise KeyboardInterrupt
        return REDUCE(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Reducer, "reduce", interrupt)
        with pytest.raises(KeyboardInterrupt):
            teacher.score(make_requests(first=0))
    assert not teacher._llm.llm_engine.output_processor.request_states
    assert_right(teacher, tiny_model)


def test_a_call_that_vllm_rejects_leaves_the_engine_usable(tiny_model: Path) -> None:
    teacher = make_teacher("vllm", tiny_model, TargetSpec(k=16), generates=True)
    assert isinstance(teacher, VllmTeacher)
    with pytest.raises(LogitbankError, match=r"vLLM rejected a request.*220"):
        teacher.score([*make_requests()[:3], *make_requests((engines.LONGEST + 20,))])
    assert_right(teacher, tiny_model)


REDUCE = Reducer.reduce


def test_one_failing_rank_of_two_stops_neither_the_other_nor_the_call(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_options, "EXTENSION", "tests.teacher_serving.engines.failing.FailingExtension")
    teacher = make_teacher("vllm", tiny_model, TargetSpec(k=16), generates=True, tensor_parallel=2)
    assert isinstance(teacher, VllmTeacher)
    requests = make_requests()
    for call in (lambda: teacher.score(requests), lambda: teacher.generate(requests[1:4], SAMPLING)):
        teacher._llm.collective_rpc("fail_once", args=("reduction",))
        outcome = within_limit(call)
        assert type(outcome) is LogitbankError and MESSAGE in str(outcome)
        assert_right(teacher, tiny_model)
    # The other rank waits for the logits of the rank that failed: nothing can save this engine.
    teacher._llm.collective_rpc("fail_once", args=("logits",))
    outcome = within_limit(lambda: teacher.score(requests))
    assert isinstance(outcome, TeacherDiedError)
    engines.close_engines()
