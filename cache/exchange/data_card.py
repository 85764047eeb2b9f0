"""The card of a published store: README.md with the metadata that data hubs read. Contains no local paths."""

from typing import Any, Literal

from huggingface_hub import DatasetCardData

from cache.settings import public_name
from cache.store.store_info import StoreInfo

STORE = """\
from logitbank import LogitStore

store = LogitStore.open("ADDRESS", snapshot=SNAPSHOT)  # or the folder "store" beside this card
record = store[0]
print(store.texts([0])[0], record.targets)"""

PARQUET = """\
import pyarrow.parquet as pq

table = pq.read_table("data/train.parquet")     # a row an example; the spec is in table.schema.metadata
print(table.schema)"""


# Where the data of each form is.
DATA_FOLDERS = ("store", "data")


def data_folder(form: Literal["store", "parquet"]) -> str:
    """Where the data is in a publication."""
    return DATA_FOLDERS[form == "parquet"]


def data_card(
    info: StoreInfo, form: Literal["store", "parquet"], title: str, licence: str | None, name: str = ""
) -> str:
    """The text of the card. licence: an identifier of hubs such as "apache-2.0", or None. name: OWNER/NAME on a hub."""
    address = f"hf://datasets/{name or 'OWNER/NAME'}/store"
    usage = (STORE if form == "store" else PARQUET).replace("SNAPSHOT", str(info.snapshot)).replace("ADDRESS", address)
    parts = [
        f"---\n{_metadata(info, form, title, licence).to_yaml()}\n---",
        f"# {title}",
        f"What {public_name(info.spec.teacher)} says about {info.rows:,} tokens of {info.examples:,} examples: its "
        "next-token distributions, captured once with logitbank for offline distillation.",
        f"## Content\n\n{_content(info)}",
        f"## How to read it\n\n```python\n{usage}\n```",
        _training(info, form, address),
        "## Licence\n\n"
        + (
            f"{licence}. "
            if licence
            else "None was given. Nobody may use the data before its owner says under which terms. "
        )
        + "The texts have the terms of their source, and those of the teacher may limit what may be learned from it.",
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(info: StoreInfo, form: str, title: str, licence: str | None) -> DatasetCardData:
    configs = [{"config_name": "default", "data_files": "data/train.parquet"}]
    extra: dict[str, Any] = {"configs": configs} if form == "parquet" else {}
    return DatasetCardData(
        pretty_name=title,
        license=licence,
        tags=["logitbank", "knowledge-distillation", "logits"],
        size_categories=_size(info.examples),
        **extra,
    )


def _size(examples: int) -> str:
    """The category of a number of examples, as hubs name them."""
    limits = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
    names = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B")
    return names[sum(examples >= limit for limit in limits)]


def _content(info: StoreInfo) -> str:
    spec = info.spec
    rows = {
        "teacher": f"{public_name(spec.teacher)} ({spec.dtype}, weights `{spec.weights[:23]}`)",
        "adapter": f"`{spec.adapter[:23]}`" if spec.adapter else "",
        "quantization of the teacher": spec.quantization,
        "vocabulary": f"{spec.vocab_size:,} logits",
        "targets": str(spec.targets),
        "rows of": "prompts and responses" if spec.asked == "all" else "responses",
        "examples": f"{info.examples:,}: " + ", ".join(f"{n:,} {kind}" for kind, n in sorted(info.origins.items())),
        "tokens": f"{info.tokens:,}, of which {info.rows:,} carry a distribution",
        "retained mass": f"{info.retained_mass:.4f} of a distribution is in its exact entries, on average",
        "error of storing": f"KL {info.kl:.1e} nats, at most {info.max_abs_error:.3f} nats a value",
        "bytes": f"{info.part_bytes:,}, {info.bytes_per_token:.1f} a token with a distribution",
        "fingerprint, snapshot": f"`{spec.fingerprint}`, {info.snapshot}",
    }
    lines = [f"| {name} | {' '.join(value.split())} |" for name, value in rows.items() if value]
    return "\n".join(["| | |", "|---|---|", *lines])


def _training(info: StoreInfo, form: str, address: str) -> str:
    if form == "parquet":
        how = "`logitbank import parquet data/train.parquet STORE` makes a store of it; students learn from that."
    else:
        how = (
            "A student learns from it with `logitbank train student.toml`, whose data is\n\n```toml\n[data]\n"
            f'store = "{address}"\nsnapshot = {info.snapshot}\n```'
        )
    return f"## How to learn from it\n\n{how}"
