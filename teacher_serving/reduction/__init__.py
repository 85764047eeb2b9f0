"""Reduction: full logits in, sparse rows of a store out.

In: logits [n, vocabulary] (or hidden states and the LM head), the next tokens, and random numbers per row. Out: `Rows`,
sparse targets with the log-probability of each next token.

    settings.py    what to keep of each distribution    draws.py          random numbers by key and position
    reducer.py     Reducer: blocks, threads, devices    row_arrays.py     convert and rearrange sparse rows
    kernels.py     numba kernels for a CPU              torch_backend.py  the same reduction in torch, for a GPU

Knows nothing of models, engines, text or stores. To add a mode, extend TargetSpec (cache/rows/spec.py), both reductions
and draws.row_uniforms; the tests compare both reductions with dense float64 arithmetic.
Public names: TargetSettings, Reducer, Rows, row_uniforms.
"""
