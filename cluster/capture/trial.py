"""What a capture will take: a sample of its examples is captured for a trial, and scaled to what the store lacks."""

import heapq
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cache.errors import InputError
from cache.examples.example import Example
from cache.examples.files.jsonl import write_examples
from cache.store.logit_store import LogitStore
from cluster.capture.driver import run_capture
from cluster.capture.input.work import Work
from cluster.capture.planning import preview_job
from cluster.capture.settings import CaptureSettings
from cluster.runtime.ray_session import is_embedded

# Units of a trial: one engine must have the next one while it writes one.
TRIAL_UNITS = 4


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job will take, from a trial with one engine.

    responses, tokens: that the store lacks; the tokens are those of the prompts, and of responses that are given.
    trial_responses, trial_tokens, trial_seconds, start_seconds: of the trial; its seconds are those after the start.
    engines: that work at the same time; on one machine they share its cores, and count as one. hours, bytes, cost: of
    the whole job, without starting; bytes are those of the parts, cost is the price of a service, 0 for an engine.
    """

    responses: int
    tokens: int
    trial_responses: int
    trial_tokens: int
    trial_seconds: float
    start_seconds: float
    engines: int
    hours: float
    bytes: int
    cost: float

    def __str__(self) -> str:
        rate = self.trial_tokens / self.trial_seconds
        size = f"{self.bytes / 1e9:,.3g} GB" if self.bytes >= 1e9 else f"{self.bytes / 1e6:,.3g} MB"
        price = f", cost {self.cost:,.2f}" if self.cost else ""
        engines = "one engine" if self.engines == 1 else f"{self.engines} engines"
        return (
            f"trial: {self.trial_responses:,} responses, {self.trial_tokens:,} tokens, in {self.trial_seconds:,.1f} s "
            f"with one engine ({rate:,.0f} tokens/s; it started in {self.start_seconds:,.0f} s)\n"
            f"the whole: {self.responses:,} responses, {self.tokens:,} tokens: about {_duration(self.hours)} with "
            f"{engines}, {size} of parts{price}"
        )


class Sample:
    """A uniform sample of the responses that a store lacks, the same each time, and the size of all of them."""

    def __init__(self, most: int) -> None:
        """most: responses in the sample."""
        self._most = most
        self._kept: list[tuple[int, str, Example]] = []
        self.responses = self.tokens = 0

    def look(self, work: Work) -> None:
        """Count a unit that this process planned, and take a share of it: the lowest keys, which are hashes."""
        for place in work.places.tolist():
            planned = work.units[work.number][place]
            self.responses += 1
            self.tokens += len(planned.teacher_prompt)
            entry = (-int(planned.key, 16), planned.key, planned.tokenized.example)
            if len(self._kept) < self._most:
                heapq.heappush(self._kept, entry)
            elif entry[0] > self._kept[0][0]:
                heapq.heapreplace(self._kept, entry)

    @property
    def examples(self) -> list[Example]:
        """The examples of the responses in the sample, each once."""
        return list({example.identity: example for _, _, example in self._kept}.values())


def run_trial(settings: CaptureSettings, sample: Sample) -> Estimate | None:
    """Capture the sample into a store that is removed afterwards. None if the store lacks nothing.

    Raises InputError if the nodes of a cluster could not reach that store, or nothing of the sample was captured.
    """
    examples = sample.examples
    if not examples:
        return None
    with shared_folder(settings) as folder:
        write_examples(folder / "examples.jsonl", examples)
        trial = settings.model_copy(
            update={
                "examples": str(folder / "examples.jsonl"),
                "fields": {},
                "store": str(folder / "store"),
                "limit": None,
                "actors": 1,
                "unit_size": max(1, -(-len(examples) // TRIAL_UNITS)),
            }
        )
        count = Sample(len(examples))
        preview_job(trial, look=count.look)
        outcome = run_capture(trial)
        if not outcome.captured or not outcome.seconds:
            reasons = ", ".join(outcome.reasons) or "no reason"
            raise InputError(f"the trial of {len(examples)} examples captured none of them ({reasons})")
        with LogitStore.open(str(folder / "store")) as store:
            part_bytes = store.info().part_bytes
    scale = sample.tokens / count.tokens
    engines = 1 if is_embedded(settings.address) else settings.most_actors
    return Estimate(
        sample.responses,
        sample.tokens,
        count.responses,
        count.tokens,
        outcome.seconds,
        outcome.start_seconds,
        engines,
        outcome.seconds * scale / engines / 3600,
        round(part_bytes * scale),
        outcome.cost * scale,
    )


@contextmanager
def shared_folder(settings: CaptureSettings) -> Iterator[Path]:
    """A folder that all nodes can reach, for a while: beside the store, where the engines are on a cluster."""
    parent = None
    if not is_embedded(settings.address):
        if "://" in settings.store:
            raise InputError(
                f"store = {settings.store!r}: a trial on a cluster is written beside the store, in a folder that all "
                "nodes share; run it on one node, without an address"
            )
        parent = Path(settings.store).parent
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="logitbank-probe-", dir=parent) as name:
        yield Path(name)


def _duration(hours: float) -> str:
    seconds = hours * 3600
    if seconds < 120:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} minutes" if seconds < 7200 else f"{hours:,.1f} hours"
