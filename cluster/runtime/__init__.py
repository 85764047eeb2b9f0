"""What all jobs share: job files (job_file.py), output folders (outputs.py), progress bars, and joining Ray.

In: a TOML file and a settings class. Out: validated settings with absolute paths; JSON files in an output folder; a Ray
session. This room knows no job: settings say for themselves which of their texts are paths (cache/settings.py).

Public names: job_file.load_job, ray_session.ray_session; outputs.claim, require_same_job, write_job and
read_json; hardware.hardware.
"""
