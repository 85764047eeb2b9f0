"""Evaluation: metrics of a student on held-out examples.

In: a model folder and a store (its targets, true labels, prompts). Out: plain numbers by name.
`language_model` computes losses, agreement with the teacher and a task's metrics; `classifier` computes class metrics;
`calibration` and `class_metrics` know no model. Nothing here knows how a student was trained.

Public names: language_model.evaluate_language_model, classifier.evaluate_classifier, settings.AnswerSettings.
"""
