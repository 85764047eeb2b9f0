"""A Zarr v3 group in one zip file: what is needed to open it lies together at the end.

    [shards of the arrays that are read in pieces] [zarr.json of each array and sub-group]
    tail: [shards of the arrays that opening needs] [zarr.json of the group, with all others] [central directory]

Nothing is compressed again, but for JSON, which is deflated. Times are fixed, so that equal content gives equal bytes.
zarr-python opens such a file with zarr.storage.ZipStore.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import google_crc32c
import numpy.typing as npt

from cache.errors import IntegrityError
from cache.json_documents import require_fields, require_readable
from cache.parts.zarr_metadata import (
    array_document,
    array_spec,
    chunk_count,
    consolidated_document,
    group_document,
    metadata_bytes,
)
from cache.parts.zarr_shard import ArraySpec, decode_array

ROOT = "zarr.json"
# Of a file, and of the zarr.json of its group when it is decompressed.
MAX_BYTES, MAX_ROOT_BYTES = 1 << 62, 64 << 20
_TIME = (1980, 1, 1, 0, 0, 0)
_LOCAL_HEADER = b"PK\x03\x04"
_HEADER_BYTES = 30


@dataclass(frozen=True, slots=True)
class EncodedZip:
    """A file. tail: where its tail starts; root: where the entry of the group's zarr.json starts; both from the start
    of the file. crc32c: of the bytes from `tail` to the end."""

    data: bytes
    tail: int
    root: int
    crc32c: int


@dataclass(frozen=True, slots=True)
class ZarrGroup:
    """What the zarr.json of the group says. what: name of the file in messages."""

    attributes: dict[str, Any]
    members: dict[str, Any]
    shards: dict[str, tuple[int, int]]
    what: str

    def require_kind(self, kind: str) -> None:
        """Raise IntegrityError unless this version reads the group and it is of this kind."""
        require_readable(self.attributes, self.what)
        if self.attributes.get("kind") != kind:
            raise IntegrityError(f"{self.what}: is a {self.attributes.get('kind')!r}, not a {kind!r}")

    def require(self, *names: str) -> list[Any]:
        """Attributes of the group. Raises IntegrityError if one is missing."""
        require_fields(self.attributes, names, self.what)
        return [self.attributes[name] for name in names]

    def position(self, name: str) -> tuple[int, int]:
        """Offset in the file and length of the shard of an array. Raises IntegrityError if there is no such array."""
        if name not in self.members or name not in self.shards:
            raise IntegrityError(f"{self.what}: has no array {name}")
        return self.shards[name]

    def spec(self, name: str) -> ArraySpec:
        """Shape, type, chunks and codec of an array. Raises IntegrityError if it is missing or not readable."""
        self.position(name)
        return array_spec(self.members[name], f"{self.what}/{name}")

    def chunks(self, name: str) -> int:
        """Number of chunks of an array, whatever its codec is."""
        self.position(name)
        return chunk_count(self.members[name], f"{self.what}/{name}")

    def decode(self, name: str, data: bytes) -> npt.NDArray[Any]:
        """All elements of an array. data: the bytes of its shard."""
        return decode_array(self.spec(name), data, f"{self.what}/{name}")


def encode_zip(
    arrays: Mapping[str, tuple[ArraySpec, bytes]],
    attributes: Mapping[str, Any],
    tail: Collection[str] = (),
    output: BinaryIO | None = None,
) -> EncodedZip:
    """Put arrays, encoded as shards, into one file. tail: names of those that opening needs.

    The attribute `shards` is added: offset in the file and bytes of the shard of each array. output: where the file is
    written, from its position on; default: memory.
    """
    file: BinaryIO = io.BytesIO() if output is None else output
    start = file.tell()
    shards: dict[str, list[int]] = {}
    documents = {name: array_document(spec) for name, (spec, _) in arrays.items()}
    documents |= {folder: group_document({}) for folder in sorted({n.rpartition("/")[0] for n in arrays if "/" in n})}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:

        def add_shards(names: list[str]) -> None:
            for name in names:
                spec, data = arrays[name]
                _add(archive, f"{name}/{spec.path}", data, zipfile.ZIP_STORED)
                shards[name] = [file.tell() - len(data), len(data)]

        add_shards([name for name in arrays if name not in tail])
        for name, document in documents.items():
            _add(archive, f"{name}/{ROOT}", metadata_bytes(document), zipfile.ZIP_DEFLATED)
        tail_start = file.tell()
        add_shards([name for name in arrays if name in tail])
        root = file.tell()
        document = consolidated_document({**attributes, "shards": shards}, documents)
        _add(archive, ROOT, metadata_bytes(document), zipfile.ZIP_DEFLATED)
    end = file.tell()
    file.seek(start)
    data = file.read(end - start) if output is not None else file.getvalue()  # type: ignore[attr-defined]
    return EncodedZip(data, tail_start, root, int(google_crc32c.value(data[tail_start - start :])))


def _add(archive: zipfile.ZipFile, name: str, data: bytes, method: int) -> None:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.create_system, entry.external_attr = 3, 0o644 << 16  # the same on every system
    archive.writestr(entry, data, method)


def parse_group(root: bytes, what: str) -> ZarrGroup:
    """What the content of the group's zarr.json says. Raises IntegrityError, starting with `what`, if it is none."""
    try:
        document = json.loads(root)
        attributes = document["attributes"]
        members = document["consolidated_metadata"]["metadata"]
        shards = {name: (int(offset), int(size)) for name, (offset, size) in attributes["shards"].items()}
        if any(not 0 <= offset <= offset + size < MAX_BYTES for offset, size in shards.values()):
            raise ValueError("a shard is outside any file")
        return ZarrGroup(dict(attributes), dict(members), shards, what)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise IntegrityError(f"{what}: its zarr.json does not describe a group of this format: {error!r}") from error


def root_of_tail(tail: bytes, position: int, what: str) -> ZarrGroup:
    """The group, from the tail of a file. position: of the entry of its zarr.json within the tail."""
    header = tail[position : position + _HEADER_BYTES]
    method = int.from_bytes(header[8:10], "little")
    if len(header) < _HEADER_BYTES or header[:4] != _LOCAL_HEADER or method != zipfile.ZIP_DEFLATED:
        raise IntegrityError(f"{what}: has no zarr.json at the place that its commit names")
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    try:
        # A deflated stream ends by itself, so that its length is not needed.
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        content = stream.decompress(tail[position + _HEADER_BYTES + lengths :], MAX_ROOT_BYTES)
    except zlib.error as error:
        raise IntegrityError(f"{what}: its zarr.json cannot be decompressed: {error}") from error
    return parse_group(content, what)


def group_of_file(data: bytes, what: str) -> ZarrGroup:
    """The group in a whole file. Raises IntegrityError, starting with `what`, if it is not such a file."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, archive.open(ROOT) as entry:
            content = entry.read(MAX_ROOT_BYTES)
    except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError, EOFError, zlib.error, OSError) as error:
        raise IntegrityError(f"{what}: is not a zip file with a Zarr group: {error}") from error
    return parse_group(content, what)


def decode_file(data: bytes, names: Collection[str], what: str) -> tuple[ZarrGroup, dict[str, npt.NDArray[Any]]]:
    """The group of a whole file and these arrays of it. Arrays that the file does not have are left out."""
    group = group_of_file(data, what)
    return group, {
        name: group.decode(name, data[offset : offset + size])
        for name, (offset, size) in group.shards.items()
        if name in names
    }
