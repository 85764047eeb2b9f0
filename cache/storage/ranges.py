"""Read ranges of a file that lie close to each other in one go."""

from collections.abc import Callable, Sequence

# Start and length.
Span = tuple[int, int]


def read_merged(spans: Sequence[Span], gap: int, read: Callable[[list[Span]], Sequence[bytes]]) -> list[bytes]:
    """The bytes of each span, fewer if the file ends before, in the requested order.

    gap: bytes between two spans that are rather read and dropped. read: gives the bytes of spans that are in order and
    do not overlap.
    """
    if len(spans) == 1:
        return [bytes(read([*spans])[0])] if spans[0][1] else [b""]
    runs: list[Span] = []
    places: list[tuple[int, int]] = [(0, 0)] * len(spans)  # run of each span, and where it is in it
    start = end = -1
    for number in sorted(range(len(spans)), key=spans.__getitem__):
        first, length = spans[number]
        if not length:
            continue
        if end < 0 or first - end > gap:
            if end >= 0:
                runs.append((start, end - start))
            start, end = first, first + length
        elif first + length > end:
            end = first + length
        places[number] = len(runs), first - start
    if end >= 0:
        runs.append((start, end - start))
    pieces = read(runs) if runs else []
    return [
        bytes(pieces[run][skip : skip + length]) if length else b""
        for (run, skip), (_, length) in zip(places, spans, strict=True)
    ]
