"""How a student attends.

In: a model of Transformers, and the name of an attention. Out: the same model, set to it. `implementations` are those
of Transformers, and a stand-in for flash attention; `sequence_parallel` lets ranks share the tokens of each sequence.
"""
