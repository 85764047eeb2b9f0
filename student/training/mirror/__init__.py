"""The mirror: a copy of a run at an address, from which it goes on where its folder is lost.

run_mirror: what belongs to it, and how a folder gets it. checkpoint_copies: ranks that send and fetch checkpoints.
"""
