"""Run a capture job: start the actors, capture the missing units, and take a snapshot."""

from contextlib import AbstractContextManager
from itertools import chain

import ray

from cluster.capture.event_log import EventLog
from cluster.capture.input.job import open_job
from cluster.capture.input.unit_stream import LocalPlanner, RayPlanner
from cluster.capture.planning import open_windows
from cluster.capture.run import CaptureOutcome, CaptureRun, engine_settings
from cluster.capture.settings import CaptureSettings
from cluster.runtime.ray_session import ray_session
from cluster.runtime.shared_object import share

# Windows that are planned ahead, besides one for each engine.
PLAN_AHEAD = 2


def run_capture(settings: CaptureSettings, log: EventLog | None = None) -> CaptureOutcome:
    """Capture the examples that the store lacks, then take a snapshot. A second run resumes the first.

    log: gets a line for every unit, and for every worker and example that is lost.
    """
    first, windows = open_windows(settings)
    job = open_job(settings)
    if len(first) < 2:
        # A small input is planned here and now: where nothing is missing, no Ray and no engine starts.
        run = CaptureRun(job, log)
        run.plan(LocalPlanner(job, iter(first)))
        if run.known_units:
            with _ray(settings, run.known_units):
                run.capture()
    else:
        with _ray(settings, settings.most_actors):
            shared = share(job)
            job = ray.get(shared[0])  # its keys are now where all processes of this machine read them
            run = CaptureRun(job, log)
            run.plan(RayPlanner(job, shared, chain(first, windows), PLAN_AHEAD + settings.most_actors))
            if run.known_units:
                run.capture()
    return run.finish()


def _ray(settings: CaptureSettings, units: int) -> AbstractContextManager[None]:
    """A session of Ray with the cores of the engines."""
    actors = min(settings.most_actors, units)
    return ray_session(settings.address, actors * engine_settings(settings, actors).threads)
