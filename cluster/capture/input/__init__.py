"""From an examples file to units of work, window by window: the driver never has more than a few windows in memory.

job.py              what every window is planned with: teacher, limits, what the store has
window_planning.py  one window: its responses, those that the store lacks as units, and what is left out
key_set.py          which keys the job has met, 16 bytes each
planned_input.py    what all windows together are, for messages and counts
unit_stream.py      units in the order of the file; windows are planned ahead, in parallel on a cluster
input_summary.py    what becomes of every line, in words
"""
