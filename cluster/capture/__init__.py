"""Capture jobs on a Ray cluster (`logitbank capture`).

In: CaptureSettings. Out: committed units in a store, a snapshot, and a capture log beside the store.

    settings.py   the keys of a capture job
    input/        from an examples file to units, window by window
    planning.py   all of a job's windows at once, for a dry run
    driver.py     run a job: plan here or on the cluster, and capture
    run.py        one run: start the actors, capture the units, take a snapshot
    dispatch.py   distribute units to actors; replace actors that die, divide units that kill them
    sharing/      drivers on one store share its windows
    periodic_snapshots.py   a snapshot every ten minutes
    actor.py      the Ray actor: one teacher that asks, and one store that it writes to
    run_log.py    the capture log: what each run of the job did

Knows nothing of models or of the store's format: teacher_serving/capture asks the teacher and writes one unit. An actor
commits its own units, so a job that is run again continues where it stopped.
"""
