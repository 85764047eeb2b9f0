"""Training: from the settings of a job to a student in Hugging Face form.

In: TrainSettings, and stores or a file of examples. Out, in the job's output folder: model/ (with its card),
training.json, metrics.jsonl, checkpoints/, plan/. `planning` checks a job once; `train` runs on every rank under
DeepSpeed; `loop` does the steps; `heldout` picks the best student; `hf_trainer` gives the same losses to the Trainer
of Transformers. A run continues from its last checkpoint, also with another number of ranks.
Knows nothing of Ray, and nothing of who starts the ranks.

Public names: settings.TrainSettings, train.train, hf_trainer.fused_student, hf_trainer.DistillationCollator.
"""
