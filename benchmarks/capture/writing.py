"""What encoding and writing add to scoring when they overlap with the next unit."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.capture.stages import interleaved
from cache.examples.example import Example, Segment, TokenizedExample
from cache.rows.record import Record
from cache.rows.spec import StoreSpec
from cache.storage.local import LocalStorage
from cache.store.claims.codebook_choice import CodebookChoice
from cache.store.commits import create_store
from cache.store.unit_writer import write_unit
from teacher_serving.teacher import Request


def measure_writing(
    teacher: Any, requests: list[Request], spec: StoreSpec, folder: Path, repeats: int
) -> dict[str, Any]:
    """Score units one after the other, with and without a second thread that encodes and writes them."""
    storage = LocalStorage(folder / "store")
    create_store(storage, spec)
    units = 4
    written = 0

    def records(answers: list[Any]) -> list[Record]:
        nonlocal written
        made = []
        for request, answer in zip(requests, answers, strict=True):
            written += 1
            example = Example(str(written), ({"role": "user", "content": ""},))
            segments = np.full(len(request.tokens), Segment.RESPONSE, np.uint8)
            tokenized = TokenizedExample(example, request.tokens, segments, f"generated/{written}")
            made.append(Record(tokenized.key, tokenized, answer.targets, answer.token_logprobs))
        return made

    def ask() -> None:
        for _ in range(units):
            teacher.score(requests)

    def ask_and_write() -> None:
        with ThreadPoolExecutor(1) as writer:
            books = CodebookChoice(storage, spec)
            done = [
                writer.submit(write_unit, storage, spec, records(teacher.score(requests)), codebooks=books)
                for _ in range(units)
            ]
            for call in done:
                call.result()

    write_unit(storage, spec, records(teacher.score(requests)))
    seconds = interleaved({"asked": ask, "written": ask_and_write}, min(repeats, 3))
    costs = [written / asked - 1 for asked, written in zip(seconds["asked"], seconds["written"], strict=True)]
    return {"writing_cost": float(np.median(costs)), "writing_units": units}
