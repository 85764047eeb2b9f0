"""The mirror: a copy of a run at an address, from which it goes on where its folder is lost.

run_mirror: what belongs to it, and how a folder gets it. mirrored_checkpoints: their files there, and which is current.
checkpoint_copies: the ranks that send and fetch them together.
"""
