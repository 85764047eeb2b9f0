"""The store of teacher distributions: captured once, read by any number of students.

    examples   items to learn from: JSON Lines, keys, tokenizers, truncation, order of sampling
    rendering  examples to token ids and segments, by chat templates
    answers    labels in the texts of models, and their comparison
    storage    files by name, in a folder or an object store
    rows       a sparse distribution per token: targets, spec, quantisation, codebooks, codec
    parts      the Zarr v3 group with the records of one unit
    store      commits, snapshots, LogitStore, filling, verification, transcoding, forgetting
    exchange   Parquet, DistillKit and axolotl files, in both directions
    comparison rows of two stores beside one another

Beside the rooms: errors, registry, settings, progress, json_documents (JSON with a checksum), lazy_names.
pyproject.toml declares which room may import which. This package knows numpy, Zarr's file format and numcodecs. It
knows nothing of models, torch or Ray. cache/README.md describes the format of the files.

    from cache import LogitStore

    with LogitStore.open("stores/train") as store:
        record = store[0]                 # texts, tokens and targets of an example
        windows = store.read([3, 1, 2])   # tokens and targets alone, faster
        for records in store.batches():   # all examples, a block of neighbours at a time
            ...
"""

from typing import TYPE_CHECKING

from cache.errors import InputError, IntegrityError, LogitbankError, SpecMismatchError, StoreError
from cache.lazy_names import lazy_names

if TYPE_CHECKING:
    from cache.comparison.store_comparison import StoreComparison, compare_stores
    from cache.examples.example import Example, Segment, TokenizedExample
    from cache.examples.files.jsonl import read_examples, write_examples
    from cache.examples.tokenizers import load_tokenizer
    from cache.exchange.axolotl import export_axolotl, import_axolotl
    from cache.exchange.conversion import ImportedTeacher
    from cache.exchange.distillkit import export_distillkit, import_distillkit
    from cache.exchange.parquet import export_parquet, import_parquet
    from cache.progress import Progress
    from cache.rendering.render import render
    from cache.rows.record import Record, Window
    from cache.rows.sparse_targets import SparseTargets
    from cache.rows.spec import SamplingSpec, StoreSpec, TargetSpec
    from cache.settings import Settings
    from cache.storage.open import open_storage
    from cache.store.commits import create_store
    from cache.store.copying.transcode import transcode_store
    from cache.store.fill import fill_store
    from cache.store.logit_store import LogitStore
    from cache.store.reading.sequence import RecordSequence
    from cache.store.reading.union import StoreUnion
    from cache.store.snapshots import take_snapshot
    from cache.store.store_info import StoreInfo
    from cache.store.unit_writer import write_unit
    from cache.store.upkeep.expiring import expire_snapshots
    from cache.store.upkeep.forgetting import forget_examples
    from cache.store.upkeep.garbage_collection import collect_garbage
    from cache.store.verify import VerifyReport, verify_store

__all__ = [
    "Example",
    "ImportedTeacher",
    "InputError",
    "IntegrityError",
    "LogitStore",
    "LogitbankError",
    "Progress",
    "Record",
    "RecordSequence",
    "SamplingSpec",
    "Segment",
    "Settings",
    "SparseTargets",
    "SpecMismatchError",
    "StoreComparison",
    "StoreError",
    "StoreInfo",
    "StoreSpec",
    "StoreUnion",
    "TargetSpec",
    "TokenizedExample",
    "VerifyReport",
    "Window",
    "collect_garbage",
    "compare_stores",
    "create_store",
    "expire_snapshots",
    "export_axolotl",
    "export_distillkit",
    "export_parquet",
    "fill_store",
    "forget_examples",
    "import_axolotl",
    "import_distillkit",
    "import_parquet",
    "load_tokenizer",
    "open_storage",
    "read_examples",
    "render",
    "take_snapshot",
    "transcode_store",
    "verify_store",
    "write_examples",
    "write_unit",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "cache.examples.example": ("Example", "Segment", "TokenizedExample"),
            "cache.examples.files.jsonl": ("read_examples", "write_examples"),
            "cache.rendering.render": ("render",),
            "cache.examples.tokenizers": ("load_tokenizer",),
            "cache.comparison.store_comparison": ("StoreComparison", "compare_stores"),
            "cache.exchange.axolotl": ("export_axolotl", "import_axolotl"),
            "cache.exchange.conversion": ("ImportedTeacher",),
            "cache.exchange.distillkit": ("export_distillkit", "import_distillkit"),
            "cache.exchange.parquet": ("export_parquet", "import_parquet"),
            "cache.progress": ("Progress",),
            "cache.rows.record": ("Record", "Window"),
            "cache.rows.sparse_targets": ("SparseTargets",),
            "cache.rows.spec": ("SamplingSpec", "StoreSpec", "TargetSpec"),
            "cache.settings": ("Settings",),
            "cache.storage.open": ("open_storage",),
            "cache.store.commits": ("create_store",),
            "cache.store.fill": ("fill_store",),
            "cache.store.upkeep.expiring": ("expire_snapshots",),
            "cache.store.upkeep.forgetting": ("forget_examples",),
            "cache.store.upkeep.garbage_collection": ("collect_garbage",),
            "cache.store.logit_store": ("LogitStore",),
            "cache.store.reading.sequence": ("RecordSequence",),
            "cache.store.reading.union": ("StoreUnion",),
            "cache.store.snapshots": ("take_snapshot",),
            "cache.store.store_info": ("StoreInfo",),
            "cache.store.copying.transcode": ("transcode_store",),
            "cache.store.unit_writer": ("write_unit",),
            "cache.store.verify": ("VerifyReport", "verify_store"),
        },
    )
