"""Data: the examples of stores and files as batches of a language model.

In: the [data] table of a job file, and open stores. Out: micro-batches (student.losses.batch.Batch). `sources` selects
examples without reading them; `averaged_stores` averages several teachers; `collate` makes tensors; `batches` puts the
parts together; `window_reader` reads the examples of many steps together, `held_windows` keeps them, `prefetch` makes
batches ahead in threads; `torch_dataset` is a store for other training loops.
Knows nothing of objectives' formulas, of optimizers or of ranks. To add a source: implement `sources.Examples`.
"""

from student.data.settings import DataSettings, PinnedStore, WeightedStore

__all__ = ["DataSettings", "PinnedStore", "WeightedStore"]
