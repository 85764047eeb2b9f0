"""Sweeps (`logitbank sweep`): the trainings of one job file with changed keys, on one snapshot, compared in one table.

In: SweepSettings and the job files it names. Out, in its folder: trials/ with a training each, trials.json, sweep.html.
Ray Tune decides which trial runs when, and which ends early. A trial is an ordinary training job: it continues where it
was stopped, and its folder can be used by any other command.

Public names: driver.run_sweep, driver.preview_sweep.
"""
