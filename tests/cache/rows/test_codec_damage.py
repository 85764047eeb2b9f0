"""Damaged codes and codebooks are refused and never name an id outside the vocabulary."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import InputError, IntegrityError
from cache.rows.codec import decode_rows, encode_rows
from cache.rows.spec import TargetMode
from tests.cache.rows.codec_checks import KINDS, make_codebook
from tests.cache.rows.rows import MODES, TARGETS, VOCAB, random_rows


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    mode=st.sampled_from(MODES),
    kind=st.sampled_from(KINDS),
    reach=st.sampled_from((2, 16, VOCAB, 2**16 - 1, 2**32 - 1)),
    share=st.sampled_from((0.01, 0.3, 1.0)),
)
def test_random_numbers_in_the_streams_never_name_an_id_that_is_not(
    seed: int, mode: TargetMode, kind: str, reach: int, share: float
) -> None:
    """Checksums come first, but whatever passes them must not be followed out of an array."""
    rng = np.random.default_rng(seed)
    spec = replace(TARGETS[mode], entropy=False, temperatures=())
    targets = random_rows(rng, 6, spec)
    tokens = rng.integers(0, VOCAB, 6).astype(np.uint32)
    codebook = make_codebook(kind, rng, VOCAB, mode)
    packed = encode_rows(targets, tokens, spec, codebook)
    streams = {}
    for name in ("codes", "gaps", "sampled_code"):
        values = getattr(packed, name)
        noise = rng.integers(0, min(reach, np.iinfo(values.dtype).max), len(values), endpoint=True)
        streams[name] = np.where(rng.uniform(size=len(values)) < share, noise, values).astype(values.dtype)
    tail = rng.integers(-(2**15), 2**15, 6).astype(np.int16)
    damaged = replace(packed, **streams, tail=tail, levels=int(rng.integers(1, packed.levels + 1)))
    try:
        decoded = decode_rows(damaged, tokens, spec, codebook, "rows")
    except IntegrityError as error:
        assert str(error).startswith("rows: ")
        return
    assert np.array_equal(decoded.offsets, targets.offsets)
    assert int(decoded.ids.max(initial=0)) < VOCAB


def test_a_token_outside_the_codebook_is_refused() -> None:
    rng = np.random.default_rng(10)
    spec = replace(TARGETS["sampled"], temperatures=())
    targets = random_rows(rng, 3, spec)
    tokens = np.array([1, 2, 3], np.uint32)
    codebook = make_codebook("by_token", rng, VOCAB, "sampled")
    packed = encode_rows(targets, tokens, spec, codebook)
    with pytest.raises(IntegrityError, match="rows: contains codes"):
        decode_rows(packed, np.array([1, VOCAB, 3], np.uint32), spec, codebook, "rows")


def test_broken_codebooks_are_refused() -> None:
    rng = np.random.default_rng(11)
    sound = make_codebook("lists", rng, VOCAB, "topk")
    sound.validate()
    order = sound.order.copy()
    order[0] = order[1]
    twice, outside, lists = sound.listed.copy(), sound.listed.copy(), sound.list_of.copy()
    twice[-1] = twice[-2]
    outside[3] = VOCAB
    lists[7] = len(sound.list_start) - 1
    long = np.array([0, 0, VOCAB + 1], np.int64)
    broken = {
        "the order must contain": replace(sound, order=order),
        "contains an id twice": replace(sound, listed=twice),
        "outside the vocabulary": replace(sound, listed=outside),
        "the list of every id must be": replace(sound, list_of=lists),
        "must start at 0 and end at": replace(sound, listed=sound.listed[:-1]),
        "list 0 must be empty": replace(sound, list_start=sound.list_start[1:]),
        "none longer than": replace(sound, listed=np.resize(sound.listed, VOCAB + 1), list_start=long),
    }
    for message, codebook in broken.items():
        with pytest.raises(InputError, match=message):
            codebook.validate()
