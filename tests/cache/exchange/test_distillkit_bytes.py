"""DistillKit's byte formats for ids and log-probabilities, against values worked out by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.exchange.distillkit_bytes import (
    CompressionConfig,
    ResidualBin,
    decode_ids,
    decode_values,
    encode_ids,
    encode_values,
    read_config,
)


def test_the_worked_example_has_these_bytes() -> None:
    values = encode_values(np.array([[-0.5, -1.25, -3.0]], np.float32), "bfloat16")
    assert values.tolist() == [[0, 191, 160, 191, 64, 192]]
    assert encode_ids(np.array([[7, 2, 9]], np.uint32), 4).tolist() == [[114, 144]]


@pytest.mark.parametrize("bits", [1, 4, 9, 18, 32])
def test_packed_ids_come_back(bits: int) -> None:
    ids = np.random.default_rng(bits).integers(0, 1 << bits, (5, 7)).astype(np.uint32)
    packed = encode_ids(ids, bits)
    assert packed.shape == (5, -(-7 * bits // 8))
    assert np.array_equal(decode_ids(packed, bits, 7), ids)


def test_bfloat16_rounds_to_nearest_even() -> None:
    config = CompressionConfig(10, 4, 4, (), "bfloat16", delta_encoding=False)
    # 8 bits of precision: steps of 1/128 at 1, so the middles go to the even neighbour.
    values = np.array([[-1 - 1 / 256, -1 - 3 / 256, -1 - 1.01 / 256, -1e4]], np.float32)
    decoded = decode_values(encode_values(values, "bfloat16"), config)
    assert decoded.tolist() == [[-1.0, -1 - 4 / 256, -1 - 2 / 256, -9984.0]]


def test_approximated_values_are_exact_part_terms_and_bins() -> None:
    """Written by hand from the description: 1 exact value, 2 - 1.5 t, and a bin of 3-bit integers in units of 0.5."""
    config = CompressionConfig(
        100, 4, 1, (ResidualBin("float16", 3, 2),), "float32", (0, 1), "float16", delta_encoding=False
    )
    data = np.array([-1.0], "<f4").tobytes() + np.array([-2.0, -1.5, 0.5], "<f2").tobytes() + bytes([0b101_000_00])
    row = np.frombuffer(data, np.uint8)[None]
    assert row.shape[1] == config.logprob_bytes == 11
    assert decode_values(row, config).tolist() == [[-1.0, -2 + 0.5, -3.5 - 2.0, -5.0]]
    delta = replace(config, delta_encoding=True)
    assert decode_values(row, delta).tolist() == [[-1.0, -2.5, -8.0, -13.0]]
    one_bit = CompressionConfig(100, 3, 0, (ResidualBin("float32", 1, 3),), delta_encoding=False)
    row = np.frombuffer(np.array([2.0], "<f4").tobytes() + bytes([0b01000000]), np.uint8)[None]
    assert decode_values(row, one_bit).tolist() == [[-2.0, 2.0, -2.0]]


def test_configuration_with_terms_and_bins_is_read_in_both_spellings(tmp_path: Path) -> None:
    path = tmp_path / "compression_config.yaml"
    path.write_text(
        "d: 300 # ids\nexact_k: 2\nk: 9\nexact_dtype: 'float16'\npolynomial_terms:\n- 0\n- 2\n- sqrt\nresidual_bins:\n"
        "- element_bits: 8\n  num_elements: 3\n  scale_dtype: float16\n- element_bits: 1\n  num_elements: 4\n"
        "  scale_dtype: float32\nnormalize_t: true\n"
    )
    config = read_config(path)
    assert (config.polynomial_terms, config.normalize_t, config.delta_encoding) == ((0, 2, "sqrt"), True, True)
    assert config.residual_bins == (ResidualBin("float16", 8, 3), ResidualBin("float32", 1, 4))
    assert config.logprob_bytes == 4 + 12 + 5 + 5
    path.write_text("d: 300\nk: 9\nexact_k: 2\npolynomial_terms: [0, 2, sqrt]\nresidual_bins: []\n")
    assert read_config(path).polynomial_terms == (0, 2, "sqrt")
