"""Distributions at another temperature T: log p_T = log p / T - log Z_T, with Z_T = sum over all ids of p^(1 / T)."""

import numpy as np
import numpy.typing as npt


def sparse_at_temperature(
    log_p: npt.NDArray[np.float32], log_normalizer: npt.NDArray[np.float32], temperature: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Entries at another temperature, float32 [R, K], and the log of the mass outside them, float32 [R].

    log_p: float32 [R, K], -inf where padded. log_normalizer: float32 [R], log Z_T over the whole vocabulary. Stored
    values are rounded, so the mass of the entries may be slightly above 1. The mass outside them is then 0.
    """
    rows = (log_p / np.float32(temperature) - log_normalizer[:, None]).astype(np.float32)
    with np.errstate(divide="ignore"):
        log_tail = np.log(np.clip(1 - np.exp(rows, dtype=np.float64).sum(axis=1), 0, 1))
    return rows, log_tail.astype(np.float32)


def complete_at_temperature(log_p: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float32]:
    """Complete distributions at another temperature, float32 [B, C]. log_p: float64 [B, C], all classes of each."""
    scaled = log_p / temperature
    return np.asarray(scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True), np.float32)
