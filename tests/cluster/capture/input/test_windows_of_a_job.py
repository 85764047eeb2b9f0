"""A job is the same whatever the windows in which its examples are read."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import InputError
from cache.examples.files.windows import read_windows
from cache.store.commits import create_store
from cache.store.quarantine.entries import quarantine_example
from cache.store.segments.keys import keys_of_hex
from cluster.capture.input.job import CaptureJob, open_job
from cluster.capture.input.key_set import KeySet
from cluster.capture.input.tries import Tries
from cluster.capture.input.unit_stream import LocalPlanner, UnitStream
from cluster.capture.input.work import Work
from cluster.capture.settings import CaptureSettings


def lines() -> list[str]:
    """Examples with every fate, many of them twice, in a random order."""
    rng = random.Random(0)
    made: list[Any] = []
    for i in range(60):
        made.append({"prompt": f"say {'red ' * (i % 7)}", "response": "one " * (i % 5 + 1)})
        made.append({"prompt": f"say {i % 9}", "id": i % 4})
        made.append({"prompt": "blue " * 70 + f"{i % 3}", "response": "one"})
    rng.shuffle(made)
    texts = [json.dumps(line) for line in made]
    return [*texts[:40], "{", "", *texts[40:100], "[]", *texts[100:]]


@pytest.fixture
def settings(tmp_path: Path, tiny_model: Path) -> Any:
    (tmp_path / "examples.jsonl").write_text("\n".join(lines()) + "\n")

    def make(**changes: Any) -> CaptureSettings:
        fields = {
            "examples": tmp_path / "examples.jsonl",
            "store": str(tmp_path / "store"),
            "teacher": {"model": str(tiny_model), "max_tokens": 60},
            "engine": {"kind": "transformers"},
            "targets": {"k": 4},
            "unit_size": 8,
        }
        return CaptureSettings.model_validate({**fields, **changes})

    return make


def planned(job: CaptureJob, size: int) -> tuple[UnitStream, list[Work]]:
    windows = read_windows(job.settings.examples, size)
    stream = UnitStream(job, LocalPlanner(job, windows), lambda window: None, Tries(job.storage))
    works = []
    while (work := stream.take()) is not None:
        works.append(work)
    assert stream.is_exhausted
    return stream, works


WRITING = {"max_new_tokens": 4, "samples": 3, "temperature": 1.0, "examples": 50}


@pytest.mark.parametrize(
    "changes", [{}, {"limit": 70}, {"generation": WRITING}, {"generation": WRITING, "score": False, "limit": 60}]
)
@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_windows_do_not_matter(settings: Any, changes: dict[str, Any], size: int) -> None:
    job = open_job(settings(**changes))
    whole, all_works = planned(job, 10**6)
    stream, works = planned(job, size)
    assert stream.input.summary == whole.input.summary and stream.input.summary.lines == 182
    for name in ("planned", "missing", "truncated", "rejected", "forgotten", "others"):
        assert getattr(stream.input, name) == getattr(whole.input, name), name
    keys, expected = (sorted(key.tobytes() for w in each for key in w.keys) for each in (works, all_works))
    assert keys == expected and len(set(keys)) == len(keys) == stream.input.missing
    count = stream.input.planned + stream.input.rejected
    assert stream.input.expected(None) == count
    assert stream.input.expected(2 * stream.input.bytes_read) == (count if job.settings.limit else 2 * count)
    for work in works:
        items = [work.units[work.number][place] for place in work.places]
        assert [item.key for item in items] == [key.tobytes().hex() for key in work.keys]
        assert len(items) <= 8 + 3 and len({item.key for item in items}) == len(items)


def test_what_a_store_has_or_has_set_aside_is_left_out(settings: Any) -> None:
    job = open_job(settings())
    _, works = planned(job, 10**6)
    create_store(job.storage, job.description.spec)
    gone = works[0].keys[0].tobytes().hex()
    quarantine_example(job.storage, gone, "1", "not kept")
    stream, left = planned(open_job(settings()), 20)
    assert stream.input.missing == stream.input.planned - 1
    assert gone not in {key.tobytes().hex() for work in left for key in work.keys}


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "empty"), ("{\n[]\n", "line 1: is not JSON"), ('{"prompt": "a"}\n' * 9, "no example has")],
)
def test_an_input_without_anything_to_capture_is_refused_at_its_end(settings: Any, text: str, message: str) -> None:
    job = settings()
    Path(job.examples).write_text(text)
    with pytest.raises(InputError, match=message):
        planned(open_job(job), 2)


def test_a_unit_ends_at_its_number_of_tokens(settings: Any) -> None:
    _, works = planned(open_job(settings(unit_tokens=40, unit_size=100)), 10**6)
    sizes = [sum(len(item.teacher_prompt) for item in work.units[work.number]) for work in works]
    assert len(works) > 5 and all(size >= 40 for size in sizes[:-1]) and max(sizes) < 100


def test_a_key_set_counts_each_key_once() -> None:
    rng = np.random.default_rng(0)
    met: set[str] = set()
    keys = KeySet()
    for size in (0, 1, 5, 300, 7, 1000, 2, 64):
        names = [f"{value:032x}" for value in rng.integers(0, 900, size)]
        new = keys.add(keys_of_hex(names))
        expected = [name not in met and name not in names[:i] for i, name in enumerate(names)]
        assert new.tolist() == expected
        met.update(names)
        assert len(keys) == len(met)
    asked = [f"{value:032x}" for value in range(1000)]
    assert keys.contains(keys_of_hex(asked)).tolist() == [name in met for name in asked]
    assert keys.count_in(np.sort(keys_of_hex(asked[:500]))) == sum(name in met for name in asked[:500])


def test_deaths_of_a_unit_are_known_to_the_next_driver(settings: Any) -> None:
    """It begins where the last one stopped, with the same group of responses, however units are cut now."""
    job = open_job(settings())
    create_store(job.storage, job.description.spec)
    _, works = planned(job, 10**6)
    tries, unlucky = Tries(job.storage), works[1]
    for _ in range(2):
        unlucky = unlucky.died()
        tries.note(unlucky)
    half = works[2].died().halves()[1]
    tries.note(half)
    _, again = planned(open_job(settings(unit_size=50)), 13)
    noted = [work for work in again if work.deaths]
    for old in (half, unlucky):
        found = [key.tobytes() for work in noted if work.deaths == old.deaths for key in work.keys]
        assert sorted(found) == sorted(key.tobytes() for key in old.keys)
    tries.clear(unlucky)
    tries.clear(half)
    assert not any(work.deaths for work in planned(open_job(settings()), 10**6)[1])
