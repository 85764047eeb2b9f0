"""A reader of stores that knows the page alone: standard library, numpy, and the decompressors of pcodec and zstd.

It is written from cache/README.md as in another language. Where the page is wrong or incomplete, this reader is.
"""

import hashlib
import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs.zstd import Zstd
from pcodec import standalone

COLUMNS = ("exact", "sampled", "tail", "surprisal", "entropy", "log_normalizer")
CRC_TABLE = list(range(256))
for _ in range(8):
    CRC_TABLE = [value >> 1 ^ (0x82F63B78 if value & 1 else 0) for value in CRC_TABLE]


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def require(condition: bool, fault: str) -> None:
    if not condition:
        raise ValueError(fault)


def read_document(path: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(path.read_bytes())
    checksum = body.pop("sha256")
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    require(hashlib.sha256(text.encode()).hexdigest() == checksum, f"{path} is altered")
    require(body["format"] == 1 and not body["requires"], f"{path} requires {body['requires']}")
    return body


class Group(dict[str, Any]):
    """The arrays of a Zarr group in one file, by name: a part, a codebook, or a segment of the index."""

    def __init__(self, data: bytes, kind: str, root: int | None = None) -> None:
        if root is None:
            root = zipfile.ZipFile(io.BytesIO(data)).getinfo("zarr.json").header_offset
        lengths = int.from_bytes(data[root + 26 : root + 28], "little") + int.from_bytes(
            data[root + 28 : root + 30], "little"
        )
        document = json.loads(zlib.decompressobj(-15).decompress(data[root + 30 + lengths :]))
        self.data, self.attributes = data, document["attributes"]
        self.documents = document["consolidated_metadata"]["metadata"]
        known = self.attributes["kind"] == kind and self.attributes["format"] == 1 and not self.attributes["requires"]
        require(known, f"{kind}: is a {self.attributes['kind']} that requires {self.attributes['requires']}")
        self.chunks: dict[str, list[tuple[int, int]]] = {}  # bytes and crc32c of each, if the group lists them
        if checked := self.attributes.get("checked"):
            listed = zip(self["chunk_bytes"].tolist(), self["checksums"].tolist(), strict=True)
            self.chunks = {name: list(islice(listed, self.layout(name)[1])) for name in checked}

    def layout(self, name: str) -> tuple[list[str], int]:
        """Codecs, and number of chunks."""
        (codec,) = self.documents[name]["codecs"]
        require(codec["name"] == "sharding_indexed", f"{name}: codec {codec['name']} is not known")
        codecs = [inner["name"] for inner in codec["configuration"]["codecs"]]
        return codecs, max(1, -(-self.documents[name]["shape"][0] // codec["configuration"]["chunk_shape"][0]))

    def __missing__(self, name: str) -> Any:
        dtype, shape = np.dtype(self.documents[name]["data_type"]).newbyteorder("<"), self.documents[name]["shape"]
        codecs, count = self.layout(name)
        start, size = self.attributes["shards"][name]
        index, values = self.data[start : start + size][-16 * count - 4 :], [np.zeros(0, dtype)]
        require(crc32c(index[:-4]) == int.from_bytes(index[-4:], "little"), f"the index of {name} is altered")
        lengths = np.frombuffer(index[:-4], "<u8").reshape(-1, 2)[:, 1].tolist()
        for i, (length, checksum) in enumerate(self.chunks.get(name, [(length, None) for length in lengths])):
            chunk, own = self.data[start : start + length - 4], self.data[start + length - 4 : start + length]
            start += length
            sums = {crc32c(chunk), int.from_bytes(own, "little"), crc32c(chunk) if checksum is None else checksum}
            require(length == lengths[i] and len(sums) == 1, f"chunk {i} of {name} is altered")
            if codecs == ["numcodecs.pcodec", "crc32c"]:
                values.append(np.asarray(standalone.simple_decompress(chunk)))
            else:
                require(codecs in (["bytes", "zstd", "crc32c"], ["bytes", "crc32c"]), f"{name}: codecs {codecs}")
                values.append(np.frombuffer(Zstd().decode(chunk) if "zstd" in codecs else chunk, dtype))
        self[name] = np.concatenate(values)[: math.prod(shape)].reshape(shape)
        checksum = self.attributes.get("checksums", {}).get(name)
        require(checksum in (None, crc32c(self[name].tobytes())), f"{name} is altered, or of another file")
        return self[name]


def read_store(folder: Path) -> Iterator[dict[str, Any]]:
    """Every example of the newest snapshot, in the order of the index: texts, tokens, and a row for each token."""
    targets = read_document(folder / "spec.json")["spec"]["targets"]
    newest = max(int(path.name.partition(".")[0]) for path in (folder / "snapshots").glob("*.json"))
    document = folder / f"snapshots/{newest}.json"
    for listed in read_document(document if document.exists() else document.with_suffix(".copy.json"))["segments"]:
        data = (folder / f"index/{listed['sha256']}.zarr.zip").read_bytes()
        require(hashlib.sha256(data).hexdigest() == listed["sha256"], "a segment is altered")
        index = Group(data, "logitbank.index", listed["root"])
        for unit in np.unique(index["example/unit"]):
            name, attempt = (index[f"unit/{column}"][unit].tobytes().hex() for column in ("name", "attempt"))
            data = (folder / f"parts/{name}/{attempt}.zarr.zip").read_bytes()
            size, tail, root, crc = (int(index[f"unit/{each}"][unit]) for each in ("bytes", "tail", "root", "crc32c"))
            require(len(data) == size and crc32c(data[tail:]) == crc, f"the part of {name} is altered")
            part = Group(data, "logitbank.part", root)
            rows = list(read_rows(part, read_codebook(folder, part.attributes["codebook"]), targets))
            for i in np.flatnonzero(index["example/unit"] == unit):
                position = index["example/position"][i]
                start, end = part["examples/description_start"][position : position + 2]
                example = json.loads(part["examples/description"][start:end].tobytes())
                key = index["keys/sorted"][index["example/rank"][i]].tobytes().hex()
                require(example["key"] == key, f"unit {name} has other examples than the index")
                start, end = part["examples/token_start"][position : position + 2]
                tokens, segments = part["tokens/id"][start:end], part["tokens/segment"][start:end]
                yield {**example, "tokens": tokens, "segments": segments, "rows": rows[start:end]}


def read_codebook(folder: Path, digest: str) -> Group | None:
    if not digest:
        return None
    return Group((folder / f"codebooks/{digest}.zarr.zip").read_bytes(), "logitbank.codebook")


def read_rows(part: Group, book: Group | None, targets: dict[str, Any]) -> Iterator[dict[str, Any]]:
    by_token = book is not None and book.attributes["by_token"]

    def list_of(context: int) -> list[int]:
        number = book["list_of"][context] if book is not None else 0
        return book["listed"][slice(*book["list_start"][number : number + 2])].tolist() if book is not None else []

    def id_of(code: int, own: list[int]) -> int:
        rest = code - len(own)
        return own[code] if rest < 0 else int(book["order"][rest]) if book is not None else rest

    streams = {
        name: iter(part[name].tolist())
        for name in part.documents
        if name.startswith(("rank", "sampled/")) and "/" in name
    }
    for j, token in enumerate(part["tokens/id"].tolist()):
        row = {name: part[f"tokens/{name}"][j] for name in COLUMNS if f"tokens/{name}" in part.documents}
        codes: list[int] = []
        gaps: list[int] = []
        for first, end in pairwise([*part.attributes["bands"], 1 << 32]):
            count = max(0, min(int(row["exact"]), end) - first)
            codes += islice(streams[f"rank{first}/code"], count)
            gaps += [] if first else islice(streams["rank0/gap"], count)
            for pair in islice(streams[f"rank{first}/gap_pair"], (count + 1) // 2) if first else []:
                both = (math.isqrt(8 * pair + 1) - 1) // 2  # a + b
                gaps += [both * (both + 3) // 2 - pair, pair - both * (both + 1) // 2]
        own, code, ids = list_of(token) if by_token else [], 0, list[int]()
        for i, (given, gap) in enumerate(zip(codes, gaps, strict=False)):
            code = given + code + 1 if i > 1 and gap == 0 else given
            ids.append(id_of(code, own))
            own = list_of(ids[0]) if i == 0 and not by_token else own
        tail = {-32767: 0.0, 32767: 1.0}.get(int(row["tail"]), 1 / (1 + math.exp(-row["tail"] / 64)))
        masses = np.exp(part["grid"][np.cumsum(gaps[: len(ids)])].astype(float)) if ids else np.zeros(0)
        weights = np.full(int(row.get("sampled", 0)), targets["threshold"])
        if len(weights):
            places = np.cumsum([given + 1 for given in islice(streams["sampled/code"], len(weights))]) - 1
            ids += [id_of(place, own) for place in places.tolist()]
        if targets["mode"] == "sampled":
            weights = np.array([*islice(streams["sampled/draws"], len(weights))], float)
            weights /= weights.sum()
        logprobs = np.log(np.concatenate([masses * (1 - tail) / masses.sum(), weights]))
        token_logprob = math.nan if row["surprisal"] == 65534 else -int(row["surprisal"]) / 64
        yield {**row, "ids": ids, "logprobs": logprobs, "tail": tail, "token_logprob": token_logprob}
