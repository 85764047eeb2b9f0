"""What several benchmarks share.

    harness.py          medians with their range; results as a JSON line and as a file
    rows.py             rows of top-k log-probabilities: simulated, or from a file; their entropy
    random_teacher.py   a random Llama with a tokenizer, as a folder that vLLM loads
    random_student.py   a random student, stores of simulated rows, and steps of training
    library_teacher.py  a trained teacher with 32,768 ids

Knows no single benchmark.
"""
