"""Sets of keys: what is among them, by numbers and by bytes."""

import numpy as np
import pytest

from cache.store.segments.keys import FEW, KEY, Array, is_among, sorting_order


def keys_of(rows: np.ndarray) -> Array:
    return np.ascontiguousarray(rows, np.uint8).view(KEY).reshape(len(rows))


@pytest.mark.parametrize("count", [1, 40, 3 * FEW])
@pytest.mark.parametrize("few", [True, False])
def test_keys_are_found_by_all_their_bytes(count: int, few: bool) -> None:
    """Every second key has the first half of another one. Would catch a look-up that stops at the first half."""
    rng = np.random.default_rng(count)
    rows = rng.integers(0, 256, (count, 16))
    rows[1::2, :8] = rows[: len(rows[1::2]), :8]
    rows[: count // 3, :8] = 255  # many keys with one first half
    rows[-1] = 255
    known = keys_of(rows)
    known = known[sorting_order(known)]
    others = rows.copy()
    others[:, 15] ^= 1
    asked = keys_of(np.concatenate([rows, others, np.zeros((1, 16)), np.full((1, 16), 255)]))
    wanted = [key.tobytes() in {each.tobytes() for each in known} for key in asked[:200]]
    asked = asked[:200]
    if few:
        found = np.concatenate([is_among(asked[i : i + 1], known) for i in range(len(asked))])
    else:
        found = is_among(np.tile(asked, -(-len(known) // len(asked))), known)[: len(asked)]
    assert found.tolist() == wanted


def test_nothing_is_among_nothing() -> None:
    nothing, one = keys_of(np.zeros((0, 16))), keys_of(np.zeros((1, 16)))
    assert not len(is_among(nothing, one)) and is_among(one, nothing).tolist() == [False]
    assert is_among(one, one).tolist() == [True]
