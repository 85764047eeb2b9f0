"""StoreInfo: the totals of a store, and how they are printed."""

from dataclasses import dataclass

import numpy as np

from cache.rows.spec import StoreSpec
from cache.store.index import COUNTS, StoreIndex


@dataclass(frozen=True, slots=True, repr=False)
class StoreInfo:
    """Totals over all units of a store.

    examples, tokens, rows: each example once. doubles, stored_rows: examples that another unit has too, beyond the
    first, and rows with them. entries, retained_mass and kl are over all stored rows. bytes: of all files of the store;
    part_bytes: of all files of the parts.

    quarantine: number of examples that wait in quarantine, by reason.

    rows: tokens that carry a target. retained_mass: mean probability of the exact entries of a row. max_abs_error, kl:
    quantisation error in nats, the largest of a log-probability and the mean of a row.
    """

    uri: str
    spec: StoreSpec
    snapshot: int | None
    units: int
    examples: int
    origins: dict[str, int]
    quarantine: dict[str, int]
    tokens: int
    rows: int
    doubles: int
    stored_rows: int
    entries: int
    bytes: int
    part_bytes: int
    retained_mass: float
    max_abs_error: float
    kl: float

    @property
    def quarantined(self) -> int:
        """Examples that wait in quarantine."""
        return sum(self.quarantine.values())

    @property
    def bytes_per_token(self) -> float:
        """Bytes of the parts per stored token that carries a target; NaN if there is none."""
        return self.part_bytes / self.stored_rows if self.stored_rows else float("nan")

    def __repr__(self) -> str:
        snapshot = f"snapshot {self.snapshot}" if self.snapshot else "not pinned: no snapshot yet"
        origins = ", ".join(f"{count:,} {origin}" for origin, count in sorted(self.origins.items()))
        lines = [
            ("store", f"{self.uri} ({snapshot})"),
            *_spec_lines(self.spec),
            ("units", f"{self.units:,}"),
            ("examples", f"{self.examples:,} ({origins}); {self.quarantined:,} in quarantine"),
            *(("in quarantine", f"{count:,}: {reason}") for reason, count in self.quarantine.items()),
            *([("doubles", f"{self.doubles:,} examples are in two units; the first counts")] if self.doubles else []),
            ("tokens", f"{self.tokens:,}, of which {self.rows:,} carry a target"),
            ("entries", f"{self.entries:,}, {self.entries / max(self.stored_rows, 1):.1f} a target"),
            ("bytes", f"{self.bytes:,}, of which {self.part_bytes:,} are of the parts"),
        ]
        if self.rows:
            lines += [
                ("bytes/token", f"{self.bytes_per_token:.1f} (all files of the parts, a token with a target)"),
                ("retained mass", f"{self.retained_mass:.4f}"),
                ("quantisation", f"KL {self.kl:.1e} nats, at most {self.max_abs_error:.3f} nats a value"),
            ]
        return "\n".join(f"{name:<14} {value}" for name, value in lines)


def summarize(
    uri: str, spec: StoreSpec, snapshot: int | None, index: StoreIndex, quarantine: dict[str, int], total_bytes: int
) -> StoreInfo:
    """Add up the columns of an index. quarantine: number of examples in quarantine, by reason.

    total_bytes: of all files of the store.
    """
    rows = index.totals[:, 2]

    def mean(column: int) -> float:
        return float((index.quality[:, column] * rows).sum() / rows.sum()) if rows.sum() else float("nan")

    origins: dict[str, int] = {}
    for name, count in zip(index.origin_names, np.bincount(index.origin), strict=False):
        kind = name.partition("/")[0]
        origins[kind] = origins.get(kind, 0) + int(count)
    return StoreInfo(
        uri=uri,
        spec=spec,
        snapshot=snapshot,
        units=len(index.unit),
        examples=len(index),
        origins=origins,
        quarantine=quarantine,
        tokens=int(index.tokens.sum(dtype=np.int64)),
        rows=int(index.rows.sum(dtype=np.int64)),
        doubles=int(index.counts[:, COUNTS.index("examples")].sum()) - len(index),
        stored_rows=int(rows.sum()),
        entries=int(index.totals[:, 1].sum()),
        bytes=total_bytes,
        part_bytes=int(index.totals[:, 0].sum()),
        retained_mass=mean(0),
        max_abs_error=float(index.quality[:, 1].max(initial=0.0)),
        kl=mean(2),
    )


def _spec_lines(spec: StoreSpec) -> list[tuple[str, str]]:
    """Name and value of each line about the spec. Lines without a value are left out."""
    sampling = spec.sampling
    generation = "none"
    if sampling:
        generation = (
            f"{sampling.samples} a prompt, temperature {sampling.temperature}, top-p {sampling.top_p}, "
            f"seed {sampling.seed}"
        )
    lines = [
        ("fingerprint", spec.fingerprint),
        ("teacher", f"{spec.teacher} ({spec.dtype}, {spec.weights[:23]})"),
        ("vocabulary", f"{spec.vocab_size:,} logits, {spec.tokenizer_size:,} ids of the tokenizer"),
        ("targets", str(spec.targets)),
        ("responses", f"written by the teacher: {generation}"),
        ("aligned from", spec.aligned.get("from", "")),
        ("service", spec.service),
        ("adapter", spec.adapter[:23]),
        ("quantization", spec.quantization),
        ("prompting", str(spec.prompting or "")),
        ("targets of", "prompts too" if spec.asked == "all" else ""),
        ("too long", f"cut on the {spec.truncation}" if spec.truncation != "refuse" else ""),
    ]
    return [(name, value) for name, value in lines if value]
