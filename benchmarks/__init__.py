"""Benchmarks: what the product costs, beside a limit and beside other tools.

In: the packages of the product, and peers that are installed. Out: a table, one JSON line as the last line of the
output, and with --save a file in results/. docs/measurements.md is generated from these files.

    capture.py         a teacher's rows beside its forward pass
    train.py           a student's step beside hard labels
    head_precision.py  what rounded logits of a bfloat16 head cost beside float32 ones
    batches.py         how full padded and packed batches are
    reuse.py           one capture beside a teacher in the loop
    demo_seeds.py      the demo's students over several seeds
    store/             the store beside other formats
    fidelity/          what each kind of target costs, and what a student learns from it
    common/            models, rows and results that several benchmarks share
    __main__.py        runs all of them: `python -m benchmarks --quick`

To add one: a module with a `main`, an entry in BENCHMARKS (__main__.py), a line in README.md, and a function in
docs/generate/measurements/.
"""
