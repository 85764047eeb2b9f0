"""Rows: the sparse next-token distributions of a teacher, in memory and as small integers.

    sparse_targets    SparseTargets, one row per token          record     a tokenized example with its rows
    spec              StoreSpec and TargetSpec, fingerprint     level_grid values of rounded log-probabilities
    codec             SparseTargets to integers and back        codebook   small codes for likely ids
    kernels, encode_kernels, decode_kernels: compiled loops over entries

In: valid SparseTargets. Out: EncodedRows, and from these the same ids with rounded log-probabilities. It knows nothing
of files. A field that is added to a spec needs a default, so that the fingerprints of older stores stay the same.
Import from the modules: compiled code (numba) is loaded with sparse_targets and codec only.
"""

from cache.rows.spec import PromptingSpec, SamplingSpec, StoreSpec, TargetSpec

__all__ = ["PromptingSpec", "SamplingSpec", "StoreSpec", "TargetSpec"]
