"""Pages that are generated, so that they cannot differ from the code or from the result files.

In: the settings classes of the job files, the argument parser of `logitbank`, the public names of the packages,
benchmarks/results/*.json.
Out: docs/job-files.md, docs/commands.md, docs/api.md, docs/measurements.md, and the table of the demo in README.md.
`python -m docs.generate` writes them. `python -m docs.generate --check` compares them with the committed files.
"""
