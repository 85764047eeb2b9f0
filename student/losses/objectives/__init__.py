"""The objectives, one a file.

To add one, write a file here that binds OBJECTIVE = Objective(name, divergence, ...), with its formula and source in
the docstring. No other file changes. A module outside this package works too, if the environment variable
LOGITBANK_PLUGINS names it. Do not import torch at the top: reading a job file loads every objective.
"""
