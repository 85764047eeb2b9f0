"""Jobs around models: build the examples of a task (`logitbank examples`), evaluate models (`logitbank evaluate`).

In: ExamplesSettings or EvaluateSettings. Out: one JSON Lines file a split; one file of metrics a model, and
evaluation.json. Finished work is kept, and a job that starts again does the rest.
Knows nothing of training and of how a task judges.

Public names: examples.run_examples, driver.run_evaluation, settings.ExamplesSettings, settings.EvaluateSettings.
"""
