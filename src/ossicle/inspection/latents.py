"""Which latents tell of a foreground: each one's AUC between frames or clips with and without.

Symbols: n items, K latents.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ossicle.errors import DataError
from ossicle.metrics.bootstrap import draw, group_codes, limits
from ossicle.metrics.weighted import ranking_statistics

N_RESAMPLES = 500
BLOCK = 100


def latent_table(
    active: np.ndarray, values: np.ndarray, groups: Any = None, *, random_state: int = 0
) -> pd.DataFrame:
    """A row for each latent: how well it tells items with a foreground from those without.

    Columns latent, auc (the chance that an item with foreground has the greater value; 0.5 tells
    nothing), low, high (95 %, bootstrap over groups), mean_with, mean_without.

    Args:
        active: (n,) bool, whether the item has a foreground.
        values: (n, K) of the latents.
        groups: (n,) recording of each item; None: items are independent.
        random_state: seed of the bootstrap.

    Raises:
        DataError: lengths that differ, values that are not finite, or items of one kind only.
    """
    active = np.asarray(active, bool)
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or len(values) != len(active):
        raise DataError(f"latents of shape {values.shape} for {len(active)} items")
    if not np.isfinite(values).all():
        raise DataError("latents hold NaN or infinity")
    if active.all() or not active.any():
        raise DataError("all items are of one kind: some with and some without are needed")
    codes, n_groups = group_codes(groups, len(active))
    weights = [
        counts[:, codes].astype(np.float64)
        for counts in draw(n_groups, N_RESAMPLES, random_state, BLOCK)
    ]
    held = min(len(np.unique(codes[active])), len(np.unique(codes[~active])))
    rows = []
    for number, column in enumerate(values.T):
        area = ranking_statistics(active[:, None], column[:, None], binary=False)
        value = float(area(np.ones((1, len(active))))["auc"][0])
        samples = np.concatenate([area(some)["auc"] for some in weights])
        low, high = limits(samples, value, n_groups, bounds=(0.0, 1.0), trials=np.array([held]))
        rows.append(
            {
                "latent": number,
                "auc": value,
                "low": low,
                "high": high,
                "mean_with": float(column[active].mean()),
                "mean_without": float(column[~active].mean()),
            }
        )
    return pd.DataFrame(rows)
