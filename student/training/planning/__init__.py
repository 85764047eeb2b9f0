"""Planning: check a training job once, and give every rank what it needs to start at once.

In: settings with pinned snapshots. Out: a TrainingPlan in OUTPUT/plan/, and from it the model and batches of one rank.
Only the plan aligns stores with another tokenizer, reads the classes of a store, learns a tokenizer, and tests whether
a model can be trained. Ranks load these results. Each store is opened once a process (OpenStores).
Knows nothing of DeepSpeed, and nothing of who starts the ranks.

Public names: plan.TrainingPlan, plan.read_plan; planner.plan_training; inputs.open_inputs; stores.OpenStores.
"""
