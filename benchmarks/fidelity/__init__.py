"""How close each kind of sparse target comes to distillation from the whole vocabulary, and for how many bytes.

    __main__.py    python -m benchmarks.fidelity: the study
    options.py     its command line
    studies.py     gradients and students of one teacher
    seeds.py       students of each seed, in processes of their own
    source/        the teacher, and text that it read
    targets.py     the kinds of targets
    rows.py        their rows, from the same logits
    stores.py      what they take in a store
    gradients.py   angles to the gradient of the whole distribution
    training.py    the shapes of students, and their optimizer
    students.py    students of each target, and their scores
    tables.py      what is printed

In: a causal model and text. Out: results/fidelity_*.json.
"""
