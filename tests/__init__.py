"""Tests, in folders that mirror the packages and their rooms: tests of student/losses are in tests/student/losses.

test_floors.py and its neighbours here are about the repository as a whole: imports, sizes, names, figures in documents.
Modules without `test_` in their names are helpers of the tests beside them. Fixtures for all tests are in records.py
(random records, an empty store) and models.py (a tiny model); conftest.py loads both.

`make test` runs everything in two worker processes, `make test-fast` what is not marked `slow`. A worker process takes
whole files, so tests that share what is expensive to start are in one file, or cheap enough to start it twice:

    student/training/ranks.py             many small training jobs in one start of DeepSpeed ranks
    teacher_serving/engines/engines.py    one vLLM engine for each model and set of options
    cache/storage/test_object_store.py    one S3 server

A new test that takes more than a few seconds, or that starts such things, is marked `slow`.
"""
