"""What scores of signals share: checked pairs of them, and ratios of energies in dB."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ossicle.errors import DataError


def pair(
    estimate: ArrayLike, reference: ArrayLike, *, same: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, (..., N) and of one length.

    Args:
        estimate: (..., N).
        reference: (..., N).
        same: they must be (S, N), both.

    Raises:
        DataError: lengths or shapes differ, there are no samples, or values are not finite.
    """
    signals = []
    for name, given in (("estimate", estimate), ("reference", reference)):
        signal = np.asarray(given, dtype=np.float64)
        if not signal.ndim or not signal.shape[-1]:
            raise DataError(f"the {name} has no samples: its shape is {signal.shape}")
        if not np.isfinite(signal).all():
            raise DataError(f"the {name} holds values that are not finite")
        signals.append(signal)
    one, other = signals
    if one.shape[-1] != other.shape[-1]:
        raise DataError(
            f"the estimate has {one.shape[-1]} samples, the reference {other.shape[-1]}: "
            "cut or pad one of them"
        )
    if same and (one.shape != other.shape or one.ndim != 2):
        raise DataError(
            f"estimates and sources must be (sources, samples), as many of both; got {one.shape} "
            f"and {other.shape}"
        )
    return one, other


def ratio_db(wanted: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """10 log10(wanted / rest) of energies; no rest: inf; nothing wanted, rest or not: -inf."""
    wanted, rest = np.broadcast_arrays(wanted, rest)
    result = np.full(wanted.shape, -np.inf)
    there = wanted > 0
    with np.errstate(divide="ignore"):
        # As a difference: the quotient of a tiny and a large energy can leave float64's range.
        result[there] = 10 * (np.log10(wanted[there]) - np.log10(rest[there]))
    return result
