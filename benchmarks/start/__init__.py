"""The start of a student on several ranks: `python -m benchmarks.start`."""
