"""The segments of a store: written once, read whole, and made again from their commits if a file is lost.

Beside each segment is the list of its units with the SHA-256 of their commits. With the list a lost segment is made
again; with the segment a lost list is.
"""

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import google_crc32c

from cache.errors import IntegrityError
from cache.json_documents import decode_document, encode_document
from cache.storage.base import Storage
from cache.store.commits import read_commit
from cache.store.segments.columns import Segment, segment_of_commits
from cache.store.segments.file import SegmentInfo, decode_segment, encode_segment


def units_path(sha256: str) -> str:
    """Name of the list of the units of a segment."""
    return f"index/{sha256}.units"


def write_segment(storage: Storage, segment: Segment) -> SegmentInfo:
    """Write a segment and the list of its units, durably. Equal segments are one file."""
    info, data = _encode(segment)
    storage.create(info.path, data)
    storage.create(units_path(info.sha256), encode_document(_units_fields(segment, info)))
    return info


def read_segments(storage: Storage, infos: Sequence[SegmentInfo], quiet: bool = False) -> list[Segment]:
    """The segments of a snapshot. A lost or damaged one is made again from its commits, in memory.

    A line in the log says so, unless `quiet`. Raises IntegrityError if one cannot be made again.
    """
    try:
        files: Sequence[bytes | None] = storage.read_ranges([(info.path, 0, info.bytes + 1) for info in infos])
    except IntegrityError:  # one is missing
        files = [None] * len(infos)
    return [_segment(storage, info, data, quiet) for info, data in zip(infos, files, strict=True)]


def _segment(storage: Storage, info: SegmentInfo, data: bytes | None, quiet: bool) -> Segment:
    try:
        content = storage.read(info.path) if data is None else data
        return decode_segment(content, info, f"{storage}/{info.path}")
    except IntegrityError as error:
        segment = recover_segment(storage, info, error)
        if not quiet:
            logging.getLogger(__name__).warning(
                "%s; it was made again from the commits, for this reader only: 'logitbank verify --repair' writes it",
                error,
            )
        return segment


def recover_segment(storage: Storage, info: SegmentInfo, fault: IntegrityError) -> Segment:
    """Make a lost segment again from its list of units and their commits. fault: what is wrong with the file.

    Raises IntegrityError, starting with the fault, if the list or a commit is lost too.
    """
    try:
        body = _read_units(storage, info)
        segment = segment_of_commits([read_commit(storage, unit, sha256) for unit, sha256 in body["units"]])
        segment = segment.without_positions(body["left_out"])
    except IntegrityError as error:
        raise IntegrityError(f"{fault}; it cannot be made again: {error}") from error
    if (len(segment), len(segment.keys)) != (info.units, info.examples):
        raise IntegrityError(f"{fault}; it cannot be made again: {units_path(info.sha256)} is about another segment")
    return segment


def segment_faults(storage: Storage, info: SegmentInfo) -> list[str]:
    """What is wrong with the two files of a segment, a line a file. Every byte is compared."""
    faults = []
    segment = None
    try:
        data = storage.read(info.path)
        segment = decode_segment(data, info, f"{storage}/{info.path}")
        if hashlib.sha256(data).hexdigest() != info.sha256:
            faults.append(f"{storage}/{info.path}: altered: its content does not match its name")
    except IntegrityError as error:
        faults.append(str(error))
    try:
        body = _read_units(storage, info)
        if segment and not body.items() >= _units_fields(segment, info).items():
            faults.append(f"{storage}/{units_path(info.sha256)}: does not agree with its segment")
    except IntegrityError as error:
        faults.append(str(error))
    return faults


def restore_segment(storage: Storage, info: SegmentInfo) -> list[str]:
    """Write the lost or damaged files of a segment again. Returns their names.

    Raises IntegrityError, and changes nothing, if they cannot be made again as they were.
    """
    (segment,) = read_segments(storage, [info], quiet=True)
    stored = b"" if storage.size(info.path) is None else storage.read(info.path)
    contents = {}
    if hashlib.sha256(stored).hexdigest() != info.sha256:
        again, contents[info.path] = _encode(segment)
        if again.sha256 != info.sha256:
            raise IntegrityError(
                f"{storage}/{info.path}: lost; this version writes a segment of the same content as other bytes"
            )
    fields = _units_fields(segment, info)
    try:
        is_listed = _read_units(storage, info).items() >= fields.items()  # a later version may have written more
    except IntegrityError:
        is_listed = False
    if not is_listed:
        contents[units_path(info.sha256)] = encode_document(fields)
    for name, content in contents.items():
        storage.remove_folder(name)
        storage.create(name, content)
    return list(contents)


def _encode(segment: Segment) -> tuple[SegmentInfo, bytes]:
    encoded = encode_segment(segment)
    sha256, checksum = hashlib.sha256(encoded.data).hexdigest(), int(google_crc32c.value(encoded.data))
    return SegmentInfo(
        sha256=sha256,
        bytes=len(encoded.data),
        crc32c=checksum,
        tail=encoded.tail,
        root=encoded.root,
        tail_crc32c=encoded.crc32c,
        units=len(segment),
        examples=len(segment.keys),
    ), encoded.data


def _units_fields(segment: Segment, info: SegmentInfo) -> dict[str, Any]:
    """What the list of the units of a segment must contain."""
    return {"segment": info.sha256, "units": list(map(list, segment.commits())), "left_out": segment.left_out()}


def _read_units(storage: Storage, info: SegmentInfo) -> dict[str, Any]:
    """The list of the units of a segment. Raises IntegrityError if it is missing, altered or another one."""
    name = units_path(info.sha256)
    body = decode_document(storage.read(name), f"{storage}/{name}", ("segment", "units", "left_out"))
    if body["segment"] != info.sha256:
        raise IntegrityError(f"{storage}/{name}: is the list of another segment")
    return body
