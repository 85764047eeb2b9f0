"""Training jobs (`logitbank train`).

In: TrainSettings. Out: what student.training leaves in the output folder, with hardware and times in training.json.
The driver pins snapshots, plans the job once, and hands the plan to the ranks, as a child process or under Ray Train.
It knows nothing of models, losses or checkpoints.

Public names: driver.run_training, driver.summary.
"""
