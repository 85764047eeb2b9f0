"""A codebook is learned where it saves bytes on unseen rows, and only there."""

from dataclasses import replace

import numpy as np
import pytest

from cache.parts.codebook_learning import code_bytes, learn_codebook
from cache.rows.codebook import plain_codebook
from cache.rows.spec import TargetMode, TargetSpec
from tests.cache.rows.codec_checks import check_round_trip, structured_rows
from tests.cache.rows.rows import MODES, TARGETS, VOCAB, log_softmax, random_rows, sparse


@pytest.mark.parametrize("mode", ["topk", "threshold", "sampled"])
def test_lists_are_learned_where_contexts_predict_the_next_id(mode: TargetMode) -> None:
    rng = np.random.default_rng(12)
    spec = replace(TARGETS[mode], entropy=False, temperatures=())
    rows, tokens = structured_rows(rng, 2400, spec, 1.0)
    learned = learn_codebook(rows.rows(0, 1600), tokens[:1600], spec, VOCAB)
    learned.validate()
    assert len(learned.listed) and (mode != "sampled" or learned.by_token)
    unseen = rows.rows(1600, 2400)
    saved = code_bytes(unseen, tokens[1600:], spec, learned)
    assert saved < 0.9 * code_bytes(unseen, tokens[1600:], spec, plain_codebook(VOCAB))
    check_round_trip(unseen.rows(0, 50), tokens[1600:1650], spec, learned, VOCAB)


def test_frequencies_are_learned_where_only_they_predict() -> None:
    rng = np.random.default_rng(13)
    spec = TargetSpec("topk", 16)
    common = np.zeros(VOCAB)
    common[rng.permutation(VOCAB)] = -1.5 * np.log(np.arange(1, VOCAB + 1))
    rows = sparse(rng, log_softmax(common + rng.normal(size=(2400, VOCAB))), spec)
    tokens = rng.integers(0, VOCAB, 2400).astype(np.uint32)
    learned = learn_codebook(rows.rows(0, 1600), tokens[:1600], spec, VOCAB)
    assert not learned.is_plain
    unseen = rows.rows(1600, 2400)
    assert code_bytes(unseen, tokens[1600:], spec, learned) < 0.95 * code_bytes(
        unseen, tokens[1600:], spec, plain_codebook(VOCAB)
    )


@pytest.mark.parametrize("mode", ["topk", "sampled"])
def test_plain_ids_are_kept_where_nothing_is_to_be_learned(mode: TargetMode) -> None:
    rng = np.random.default_rng(14)
    spec = replace(TARGETS[mode], entropy=False, temperatures=())
    rows = random_rows(rng, 1600, spec)
    tokens = rng.integers(0, VOCAB, 1600).astype(np.uint32)
    assert learn_codebook(rows, tokens, spec, VOCAB).is_plain


@pytest.mark.parametrize("mode", ["topk", "sampled"])
@pytest.mark.parametrize("strength", [0.05, 0.2, 0.5])
def test_a_learned_codebook_never_makes_unseen_rows_larger(mode: TargetMode, strength: float) -> None:
    rng = np.random.default_rng(15)
    spec = replace(TARGETS[mode], entropy=False, temperatures=())
    rows, tokens = structured_rows(rng, 2400, spec, strength)
    learned = learn_codebook(rows.rows(0, 1600), tokens[:1600], spec, VOCAB)
    unseen = rows.rows(1600, 2400)
    plain = code_bytes(unseen, tokens[1600:], spec, plain_codebook(VOCAB))
    assert code_bytes(unseen, tokens[1600:], spec, learned) <= plain


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_a_codebook_can_be_learned_from_next_to_nothing(mode: TargetMode, rows: int) -> None:
    """The first unit of a store may be a handful of empty documents."""
    spec = replace(TARGETS[mode], entropy=False, temperatures=())
    targets = random_rows(np.random.default_rng(16), rows, spec)
    learned = learn_codebook(targets, np.zeros(rows, np.uint32), spec, VOCAB)
    learned.validate()
    check_round_trip(targets, np.zeros(rows, np.uint32), spec, learned, VOCAB)
