"""The bytes of arcee-ai/DistillKit's compressed log-probabilities, and the configuration that describes them."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import yaml

from cache.errors import InputError

CONFIG = "compression_config.yaml"
FLOATS = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4", "float64": "<f8"}
Float = Literal["float16", "bfloat16", "float32", "float64"]


@dataclass(frozen=True, slots=True)
class ResidualBin:
    """num_elements integers of element_bits bits, times a scale that precedes them."""

    scale_dtype: Float
    element_bits: int
    num_elements: int

    @property
    def bytes(self) -> int:
        return np.dtype(FLOATS[self.scale_dtype]).itemsize + -(-self.element_bits * self.num_elements // 8)


@dataclass(frozen=True, slots=True)
class CompressionConfig:
    """Content of compression_config.yaml. Names and defaults are those of DistillKit."""

    d: int
    k: int
    exact_k: int
    residual_bins: tuple[ResidualBin, ...]
    exact_dtype: Float = "float32"
    polynomial_terms: tuple[int | str, ...] = ()
    term_dtype: Float = "float32"
    delta_encoding: bool = True
    error_diffusion: bool = False
    normalize_t: bool = False

    @property
    def index_bits(self) -> int:
        return (self.d - 1).bit_length()

    @property
    def index_bytes(self) -> int:
        return -(-self.k * self.index_bits // 8)

    @property
    def logprob_bytes(self) -> int:
        exact = self.exact_k * np.dtype(FLOATS[self.exact_dtype]).itemsize
        terms = len(self.polynomial_terms) * np.dtype(FLOATS[self.term_dtype]).itemsize
        return exact + terms + sum(each.bytes for each in self.residual_bins)

    def to_yaml(self) -> str:
        """The text of the file, for a configuration in which all values are exact."""
        lines = [f"d: {self.d}", f"k: {self.k}", f"exact_k: {self.exact_k}", f"exact_dtype: {self.exact_dtype}"]
        lines += ["polynomial_terms: null", f"term_dtype: {self.term_dtype}", "residual_bins: []"]
        lines += ["delta_encoding: false", "error_diffusion: false", "normalize_t: false"]
        return "\n".join(lines) + "\n"


def read_config(path: Path) -> CompressionConfig:
    """Read a configuration that DistillKit wrote. Raises InputError, with the name of the field, if it is invalid."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the folder of a DistillKit capture")
    values = _parse_yaml(path)
    known = [field.name for field in fields(CompressionConfig)]
    if unknown := sorted(set(values) - set(known)):
        raise InputError(f"{path}: field {unknown[0]!r} is not known; known are {', '.join(known)}")
    for name in ("d", "k", "exact_k"):
        if not isinstance(values.get(name), int) or values[name] < (name != "exact_k"):
            raise InputError(f"{path}: {name} is {values.get(name)!r}; it must be a number")
    try:
        bins = tuple(ResidualBin(**entry) for entry in values.get("residual_bins") or ())
        terms = tuple(values.get("polynomial_terms") or ())
    except TypeError as error:
        raise InputError(f"{path}: residual_bins or polynomial_terms: {error}") from error
    config = CompressionConfig(**{**values, "residual_bins": bins, "polynomial_terms": terms})
    for name in (config.exact_dtype, config.term_dtype, *(each.scale_dtype for each in bins)):
        if not isinstance(name, str) or name not in FLOATS:
            raise InputError(f"{path}: dtype {name!r} is not one of {', '.join(FLOATS)}")
    if wrong := [term for term in terms if not isinstance(term, int) and term not in ("sqrt", "exp")]:
        raise InputError(f"{path}: polynomial_terms: {wrong[0]!r} is not a power, sqrt or exp")
    if any(not isinstance(n, int) or not 0 < n <= limit for b in bins for n, limit in _bin_limits(b, config)):
        raise InputError(f"{path}: residual_bins: element_bits must be 1 to 32, num_elements 1 to k - exact_k")
    rest = config.k - config.exact_k
    if not (terms or bins if rest > 0 else rest == 0) or sum(each.num_elements for each in bins) > rest:
        raise InputError(f"{path}: exact_k, polynomial_terms and residual_bins do not make k = {config.k} values")
    if config.k > config.d:
        raise InputError(f"{path}: k = {config.k} entries of a vocabulary of d = {config.d}")
    return config


def encode_values(logprobs: npt.NDArray[np.float32], dtype: Float) -> npt.NDArray[np.uint8]:
    """Bytes [rows, k * size] of log-probabilities [rows, k], rounded to nearest."""
    return np.ascontiguousarray(_to_float(logprobs, dtype)).view(np.uint8).reshape(len(logprobs), -1)


def encode_ids(ids: npt.NDArray[np.uint32], bits: int) -> npt.NDArray[np.uint8]:
    """Bytes [rows, ceil(k * bits / 8)] of ids [rows, k]."""
    rows, k = ids.shape
    every = np.unpackbits(ids.astype(">u4").view(np.uint8).reshape(rows, k, 4), axis=2)
    return np.packbits(every[:, :, 32 - bits :].reshape(rows, k * bits), axis=1)


def decode_ids(data: npt.NDArray[np.uint8], bits: int, k: int) -> npt.NDArray[np.uint32]:
    """Integers [rows, k] of `bits` bits each; data uint8 [rows, ceil(k * bits / 8)]."""
    every = np.zeros((len(data), k, 32), np.uint8)
    every[:, :, 32 - bits :] = np.unpackbits(data, axis=1, count=k * bits).reshape(len(data), k, bits)
    return np.packbits(every, axis=2).view(">u4")[:, :, 0].astype(np.uint32)


def decode_values(data: npt.NDArray[np.uint8], config: CompressionConfig) -> npt.NDArray[np.float32]:
    """Log-probabilities [rows, k] from their bytes, uint8 [rows, logprob_bytes]."""
    rest = config.k - config.exact_k
    size = config.exact_k * np.dtype(FLOATS[config.exact_dtype]).itemsize
    values, data = _floats(data[:, :size], config.exact_dtype), data[:, size:]
    approximated = np.zeros((len(data), rest))
    if config.polynomial_terms:
        size = len(config.polynomial_terms) * np.dtype(FLOATS[config.term_dtype]).itemsize
        coefficients, data = _floats(data[:, :size], config.term_dtype), data[:, size:]
        terms = _rounded(_terms(config, rest), config.term_dtype)
        products = _rounded(terms[None] * coefficients[:, None], config.term_dtype)
        approximated = _rounded(products.sum(axis=2), config.term_dtype)
    start = 0
    for each in config.residual_bins:
        size = np.dtype(FLOATS[each.scale_dtype]).itemsize
        scale = _floats(data[:, :size], each.scale_dtype)
        integers = decode_ids(data[:, size : each.bytes], each.element_bits, each.num_elements).astype(np.float64)
        level = 2 * integers - 1 if each.element_bits == 1 else integers - 2 ** (each.element_bits - 1)
        residual = _rounded(level * scale, config.exact_dtype)
        approximated[:, start : start + each.num_elements] += residual
        start += each.num_elements
        data = data[:, each.bytes :]
    values = np.concatenate([values, approximated], axis=1)
    if config.delta_encoding:
        values = _rounded(np.cumsum(values, axis=1), config.exact_dtype)
    return values.astype(np.float32)


def _terms(config: CompressionConfig, count: int) -> npt.NDArray[np.float64]:
    """Value of each term at each position, [count, terms]."""
    positions = np.linspace(0, 1, count) if config.normalize_t else np.arange(count, dtype=np.float64)
    positions = _rounded(positions, config.term_dtype)
    special = {"sqrt": np.sqrt, "exp": np.exp}
    return np.stack(
        [special[t](positions) if isinstance(t, str) else positions**t for t in config.polynomial_terms], axis=1
    )


def _to_float(values: npt.NDArray[Any], dtype: Float) -> npt.NDArray[Any]:
    """The values as stored: in their type, or the upper half of a float32 for bfloat16."""
    if dtype != "bfloat16":
        return values.astype(FLOATS[dtype])
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)).astype("<u2")


def _from_float(stored: npt.NDArray[Any], dtype: Float) -> npt.NDArray[np.float64]:
    if dtype == "bfloat16":
        stored = (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return stored.astype(np.float64)


def _rounded(values: npt.NDArray[Any], dtype: Float) -> npt.NDArray[np.float64]:
    return _from_float(_to_float(values, dtype), dtype)


def _floats(data: npt.NDArray[np.uint8], dtype: Float) -> npt.NDArray[np.float64]:
    """Values [rows, bytes / size] from bytes [rows, bytes]."""
    return _from_float(np.ascontiguousarray(data).view(FLOATS[dtype]), dtype)


def _bin_limits(each: ResidualBin, config: CompressionConfig) -> tuple[tuple[Any, int], tuple[Any, int]]:
    return (each.element_bits, 32), (each.num_elements, config.k - config.exact_k)


def _parse_yaml(path: Path) -> dict[str, Any]:
    """The top-level mapping of a YAML file. Raises InputError if the file has another form."""
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or error
        raise InputError(f"{path}{line}: is not of a form that DistillKit writes: {reason}") from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise InputError(
            f"{path}: {values!r:.80} is not of a form that DistillKit writes; it must have names and values"
        )
    return values
