"""Reduction: full logits in, sparse rows of a store out.

In: logits [n, vocabulary] (or hidden states and the LM head), the next tokens, and random numbers per row. Out: `Rows`,
sparse targets with the log-probability of each next token.

    settings.py    what to keep of each distribution    draws.py          random numbers by key and position
    reducer.py     Reducer: blocks, threads, devices    row_arrays.py     convert and rearrange sparse rows
    rows.py        Rows                                 kernel_check.py   compare two reductions at the start

One reduction, three backends:

    loops_backend.py     compiled loops on a CPU (kernels.py)
    triton_backend.py    Triton kernels on a GPU (triton_kernels.py, triton_draws.py)
    torch_backend.py     plain torch: on a GPU that cannot run the kernels, and to compare both with

Knows nothing of models, engines, text or stores. To add a mode, extend TargetSpec (cache/rows/spec.py), the backends
and draws.row_uniforms; the tests compare them with dense float64 arithmetic.
Public names: TargetSettings, Reducer, Rows, row_uniforms.
"""
