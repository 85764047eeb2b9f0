"""Where the metrics of a run go: a file of its own, and services that people watch.

In: numbers of a step. Out: a line in metrics.jsonl, and the same numbers in TensorBoard, Weights & Biases or MLflow.
`services` has these behind one interface; `tracker` is what the loop uses. Knows nothing of what the numbers mean.
"""
