"""Exhibits of deep clustering: where the bins of a mixture lie, and whether K-means finds them."""

from __future__ import annotations

from itertools import permutations
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from ossicle.datasets.mixtures import Mixtures
from ossicle.datasets.patterns import relative_paths
from ossicle.features import Progress, ProgressCallback
from ossicle.inspection import drawings
from ossicle.inspection.decoders import frequencies_hz
from ossicle.inspection.embeddings import plane
from ossicle.inspection.exhibit import Exhibit, Inspection
from ossicle.metrics.bootstrap import mean_interval
from ossicle.separators.deep_clustering import DeepClustering, ideal_assignment

SECTION = "What it makes of mixtures"
POINTS = 3000


class Bins(NamedTuple):
    """The bins of one mixture that are not silent.

    Attributes:
        vectors: (m, D) embeddings.
        truth: (m,) the source that is loudest.
        found: (m,) the source that K-means says, numbered to agree best with the truth.
        energy: (m,) of the mixture.
        bins: (m,) which frequency.
    """

    vectors: np.ndarray
    truth: np.ndarray
    found: np.ndarray
    energy: np.ndarray
    bins: np.ndarray

    @property
    def agreement(self) -> float:
        """The share of bins that K-means gives to their loudest source."""
        return float((self.truth == self.found).mean())

    @property
    def weighted(self) -> float:
        """The same by energy."""
        return float(self.energy[self.truth == self.found].sum() / self.energy.sum())

    @property
    def majority(self) -> float:
        """The share that is right when all are given to the source of most bins."""
        return float(np.bincount(self.truth).max() / len(self.truth))


def matched(found: np.ndarray, truth: np.ndarray, n_sources: int) -> np.ndarray:
    """(m,) clusters renamed so that most agree with the sources."""
    counts = np.zeros((n_sources, n_sources))
    np.add.at(counts, (found, truth), 1)
    if n_sources <= 6:
        best = max(
            permutations(range(n_sources)),
            key=lambda order: counts[np.arange(n_sources), list(order)].sum(),
        )
        return np.asarray(best)[found]
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-counts)
    return columns[np.argsort(rows)][found]


@torch.inference_mode()
def bins_of(separator: DeepClustering, mixture: np.ndarray, sources: np.ndarray) -> Bins | None:
    """The bins of a mixture (N,) of sources (S, N); None where too little is heard."""
    spectrum = separator.fourier.analyse(torch.from_numpy(mixture))
    stems = separator.fourier.analyse(torch.from_numpy(sources))
    levels = separator.levels(spectrum[None])
    active = separator.active(levels).reshape(-1)
    if int(active.sum()) < 2 * len(sources):
        return None
    vectors = separator.embed(levels)[0]
    truth = ideal_assignment(stems[None])[0].argmax(1)
    masks = separator.masks(spectrum, len(sources)).permute(2, 1, 0).reshape(-1, len(sources))
    power = spectrum.abs().square().T.reshape(-1)
    bins = torch.arange(spectrum.shape[0]).repeat(spectrum.shape[1])
    kept = active.numpy()
    known = truth.numpy()[kept]
    return Bins(
        vectors.double().numpy()[kept],
        known,
        matched(masks.argmax(1).numpy()[kept], known, len(sources)),
        power.double().numpy()[kept],
        bins.numpy()[kept],
    )


def speaker_exhibits(
    separator: DeepClustering,
    mixtures: Mixtures,
    found: Inspection,
    *,
    most: int,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> list[Exhibit]:
    """The cloud of one mixture's bins, how often K-means is right, and dimensions over frequency.

    The mixture that is shown is the one whose agreement is the median.
    """
    count = min(most, len(mixtures))
    rows, seconds = [], 0.0
    for number in range(count):
        item = mixtures.load(number)
        bins = bins_of(separator, item.mixture, item.sources)
        seconds += len(item.mixture) / item.sample_rate
        if bins is not None:
            rows.append((number, bins.agreement, bins.weighted, bins.majority))
        if progress is not None:
            progress(Progress(number + 1, count, seconds))
    if not rows:
        found.notes.append("nothing is heard in these mixtures: there is no cloud to draw")
        return []
    table = pd.DataFrame(rows, columns=["mixture", "agreement", "by_energy", "majority"])
    groups = mixtures.groups()[table["mixture"]]
    low, high = mean_interval(table["agreement"], groups=groups, random_state=seed)
    mean, chance = table["agreement"].mean(), table["majority"].mean()
    found.numbers["kmeans"] = {
        "agreement": mean,
        "low": low,
        "high": high,
        "by_energy": table["by_energy"].mean(),
        "majority": chance,
        "n_mixtures": len(table),
    }
    order = np.argsort(table["agreement"].to_numpy(), kind="stable")
    shown = int(table["mixture"].iloc[order[(len(table) - 1) // 2]])
    item = mixtures.load(shown)
    bins = bins_of(separator, item.mixture, item.sources)
    assert bins is not None
    paths = [mixtures.table["mixture"].iloc[i] for i in table["mixture"]]
    table.insert(1, "file", relative_paths(paths, mixtures.root))
    names = list(mixtures.sources) or [f"source {i + 1}" for i in range(len(item.sources))]
    kept = np.random.default_rng(seed).permutation(len(bins.truth))[:POINTS]
    points, shares = plane(bins.vectors)
    picture = [("by the source that is loudest", points[kept])]
    return [
        Exhibit(
            "bins",
            SECTION,
            "The bins of one mixture",
            f"{len(kept)} of {len(bins.truth)} bins that are not silent, of the mixture "
            f"{table.set_index('mixture')['file'][shown]} (its agreement is the median one), on "
            f"the first two principal components of their embeddings ({sum(shares):.0%} of the "
            f"variance). K-means on all dimensions gives {bins.agreement:.1%} of them to the "
            f"source that is loudest ({bins.weighted:.1%} by energy). Over {len(table)} mixtures "
            f"{mean:.1%} (95 % interval {low:.1%} to {high:.1%}, bootstrap over groups); one "
            f"source for all bins would have {chance:.1%}.",
            f"Scatter of {len(kept)} points, coloured by {len(names)} sources.",
            lambda: drawings.clouds(picture, bins.truth[kept], names, 5.0),
            table,
        ),
        _dimensions(separator, bins),
    ]


def _dimensions(separator: DeepClustering, bins: Bins) -> Exhibit:
    frequencies = frequencies_hz(separator)
    size = bins.vectors.shape[1]
    sums = np.zeros((len(frequencies), size))
    np.add.at(sums, bins.bins, np.abs(bins.vectors))
    counts = np.bincount(bins.bins, minlength=len(frequencies))[:, None]
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    centre = (means * frequencies[:, None]).sum(0) / np.maximum(means.sum(0), 1e-300)
    order = np.argsort(centre, kind="stable")
    table = pd.DataFrame(
        {"dimension": order, "centroid_hz": centre[order], "mean": means.mean(0)[order]}
    )
    return Exhibit(
        "dimensions",
        SECTION,
        "Where each dimension is used",
        f"Mean absolute value of the embedding's {size} dimensions over frequency, in the same "
        "mixture; by rising centroid. Bins that are never heard are empty.",
        f"Heat map of {size} dimensions over frequency.",
        lambda: drawings.frequency_columns(
            means[:, order], frequencies, [(0, "")], "mean |value|", "dimension, by centroid"
        ),
        table,
    )
