"""Tests, in folders that mirror the packages and their rooms: tests of student/losses are in tests/student/losses.

test_floors.py and its neighbours here are about the repository as a whole: imports, sizes, names, figures in documents.
Modules without `test_` in their names are helpers of the tests beside them. Fixtures for all tests are in records.py
(random records, an empty store) and models.py (a tiny model); conftest.py loads both.

`make test` runs everything in two worker processes, `make test-fast` what is not marked `slow`. The marker takes the
name of a group, and a group runs in one worker process, so that its tests share what is expensive:

    ranks      fleets of DeepSpeed ranks: many small training jobs in one start (student/training/ranks.py)
    engines    vLLM engines in this process: one for each model and set of options (teacher_serving/engines/engines.py)
    cluster    Ray, whole commands in subprocesses, and vLLM's own server
    adapters   engines with LoRA adapters, and vLLM as the engine of an evaluation
    storage    an S3 server, writers that race, and writers that are killed

Tests without the marker are grouped by file. A new test that takes more than a few seconds belongs to a group.
"""
