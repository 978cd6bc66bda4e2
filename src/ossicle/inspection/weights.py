"""Singular values of a network's weights: how many directions a layer really uses."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from torch import Tensor


def singular_values(matrix: np.ndarray) -> np.ndarray:
    """(m, n) -> (min(m, n),) from large to small, by the smaller of the two Gram matrices."""
    matrix = np.asarray(matrix, np.float64)
    smaller = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    values = np.linalg.eigvalsh(smaller @ smaller.T)[::-1]
    return np.sqrt(np.maximum(values, 0.0))


def effective_rank(values: np.ndarray) -> float:
    """exp of the entropy of singular values over their sum; NaN for zeros.

    Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007,
    section 2: between 1 and the number of values.
    """
    total = float(values.sum())
    if total <= 0:
        return float("nan")
    shares = values[values > 0] / total
    return float(np.exp(-np.sum(shares * np.log(shares))))


def weight_table(tensors: Iterable[tuple[str, Tensor]]) -> pd.DataFrame:
    """A row for each tensor of two or more axes, as a matrix (first axis, all others).

    Columns weight, shape, parameters, norm (Frobenius), spectral_norm (greatest singular value),
    rank_bound (the number of singular values), effective_rank, and rank_share (effective rank over
    the bound). Tensors of at most one axis are left out.

    Args:
        tensors: (name, tensor).
    """
    rows = []
    for name, tensor in tensors:
        if tensor.dim() < 2 or not tensor.numel() or not tensor.is_floating_point():
            continue
        matrix = tensor.detach().cpu().double().numpy().reshape(len(tensor), -1)
        values = singular_values(matrix)
        rank = effective_rank(values)
        rows.append(
            {
                "weight": name,
                "shape": " x ".join(map(str, tensor.shape)),
                "parameters": tensor.numel(),
                "norm": float(np.linalg.norm(matrix)),
                "spectral_norm": float(values[0]),
                "rank_bound": len(values),
                "effective_rank": rank,
                "rank_share": rank / len(values),
            }
        )
    columns = ["weight", "shape", "parameters", "norm", "spectral_norm"]
    return pd.DataFrame(rows, columns=[*columns, "rank_bound", "effective_rank", "rank_share"])
