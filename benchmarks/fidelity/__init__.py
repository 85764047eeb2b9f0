"""How close each kind of sparse target comes to distillation from the whole vocabulary, and for how many bytes.

    __main__.py    python -m benchmarks.fidelity: the study
    teacher.py     a small trained teacher, at a temperature
    targets.py     the kinds of targets, written to stores
    gradients.py   angles to the gradient of the whole distribution
    students.py    students of each target, and their scores
    tables.py      what is printed

In: a causal model and text. Out: results/fidelity_*.json.
"""
