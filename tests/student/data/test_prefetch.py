"""Steps come in their order whatever the number of readers; errors reach the loop; nothing is made too far ahead."""

import threading
import time

import pytest

from student.data.prefetch import Prefetcher


@pytest.mark.parametrize("readers", [1, 2, 5])
@pytest.mark.parametrize("ahead", [1, 4])
def test_values_come_in_order(readers: int, ahead: int) -> None:
    """The first of each five takes longest. Would catch values in the order in which threads finish them."""

    def make(step: int) -> int:
        time.sleep(0.01 if step % 5 == 0 else 0.0)
        return step

    prefetcher = Prefetcher(make, 3, 30, ahead, readers)
    try:
        assert list(prefetcher) == list(range(3, 30))
    finally:
        prefetcher.close()


def test_several_readers_work_at_the_same_time() -> None:
    """Would catch readers that wait for one another: no thread passes the barrier before three have come."""
    barrier = threading.Barrier(3, timeout=30)
    prefetcher = Prefetcher(lambda step: barrier.wait(), 0, 6, 3, 3)
    try:
        assert len(list(prefetcher)) == 6
    finally:
        prefetcher.close()


@pytest.mark.parametrize("readers", [1, 4])
def test_nothing_is_made_further_ahead_than_asked_for(readers: int) -> None:
    made: list[int] = []
    prefetcher = Prefetcher(lambda step: made.append(step) or step, 0, 100, 4, readers)  # type: ignore[func-returns-value]
    values = iter(prefetcher)
    try:
        for step in range(5):
            assert next(values) == step
            assert max(made) <= step + 4
    finally:
        prefetcher.close()
    assert len(made) <= 9, "the rest is not made after the end"


@pytest.mark.parametrize("readers", [1, 4])
def test_an_error_comes_at_its_step_and_ends_the_threads(readers: int) -> None:
    """Would catch a step that is skipped because its reader failed."""

    def make(step: int) -> int:
        if step == 3:
            raise OSError("damaged")
        return step

    prefetcher = Prefetcher(make, 0, 10, 4, readers)
    values = iter(prefetcher)
    try:
        assert [next(values) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(OSError, match="damaged"):
            next(values)
    finally:
        prefetcher.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reader") and thread.is_alive()]


def test_waiting_is_counted() -> None:
    slow = Prefetcher(lambda step: time.sleep(0.05), 0, 4, 1, 1)
    fast = Prefetcher(lambda step: None, 0, 4, 4, 1)
    try:
        assert len(list(slow)) == len(list(fast)) == 4
        assert fast.waited < slow.waited and slow.waited > 0.1
    finally:
        slow.close()
        fast.close()
