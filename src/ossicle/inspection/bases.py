"""Bases of a factorisation: spectra in columns, in the order of their centroids.

Symbols: F frequency bins, K columns, T frames, S sources.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd


def centroids_hz(columns: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """(F, K) spectra of 0 and above -> (K,) mean frequencies in Hz; NaN for zeros."""
    total = columns.sum(axis=0)
    sums = frequencies @ columns
    return np.divide(sums, total, out=np.full(len(total), np.nan), where=total > 0)


def base_table(
    bases: Mapping[str, np.ndarray],
    frequencies: np.ndarray,
    use: Mapping[str, np.ndarray] | None = None,
) -> pd.DataFrame:
    """A row for each column, by source and then by rising centroid.

    Columns source, column (its number in the model), centroid_hz, peak_hz, width_hz (deviation
    about the centroid), and share (of its source's use), where use is known.

    Args:
        bases: source -> (F, K) spectra, 0 and above.
        frequencies: (F,) Hz.
        use: source -> (K,) sums of what each column gave to the source.
    """
    parts = []
    for source, columns in bases.items():
        centre = centroids_hz(columns, frequencies)
        total = np.maximum(columns.sum(axis=0), 1e-300)
        spread = ((frequencies[:, None] - centre) ** 2 * columns).sum(axis=0) / total
        part = pd.DataFrame(
            {
                "source": source,
                "column": np.arange(columns.shape[1]),
                "centroid_hz": centre,
                "peak_hz": frequencies[columns.argmax(axis=0)],
                "width_hz": np.sqrt(spread),
            }
        )
        if use is not None:
            part["share"] = use[source] / max(float(use[source].sum()), 1e-300)
        parts.append(part.sort_values("centroid_hz", kind="stable"))
    return pd.concat(parts, ignore_index=True)


def in_order(
    bases: Mapping[str, np.ndarray], table: pd.DataFrame
) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """All columns (F, sum of K) as in the table, of largest value 1; where each source begins."""
    columns, borders, first = [], [], 0
    for source, spectra in bases.items():
        order = table.loc[table["source"] == source, "column"].to_numpy()
        columns.append(spectra[:, order])
        borders.append((first, source))
        first += len(order)
    joined = np.concatenate(columns, axis=1)
    return joined / np.maximum(joined.max(axis=0), 1e-300), borders
