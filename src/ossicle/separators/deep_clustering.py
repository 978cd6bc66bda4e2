"""Deep clustering: bins of one source lie together in a learnt space, K-means finds the sources.

J. R. Hershey, Z. Chen, J. Le Roux, S. Watanabe, "Deep clustering: discriminative embeddings for
segmentation and separation", ICASSP 2016 (arXiv 1508.04306).

Symbols: B items, F bins, T frames, D dimensions of the embedding, S sources; the M = T F bins of a
stretch are in the order of frames.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional

from ossicle.errors import OssicleError
from ossicle.separators.base import MaskSeparator

MASKS = ("soft", "binary")
# Below the loudest bin by more than this, levels are alike: nothing is heard there.
RANGE_DB = 80.0
# K-means finds the centres on no more bins than this, evenly spread, and then assigns all.
MOST_BINS = 60_000
MIN_NORM = 1e-12


class DeepClustering(MaskSeparator):
    """A BLSTM gives each time-frequency bin a unit vector; bins of one source lie together.

    log-magnitudes -> BLSTM stack -> linear -> tanh -> unit length;
    K-means over the bins that are not silent, over the whole stretch ("global" there).

    Args:
        sample_rate: Hz; the paper has 8000.
        n_fft, hop_length: the paper has 32 ms and 8 ms.
        hidden: units of a layer in each direction; the paper has 600.
        n_layers: the paper has 2.
        embedding: D; the paper has 40, and tried 5 to 60.
        threshold_db: bins so far below the loudest are silent; the paper has 40.
        dropout: between the layers, in training.
        sources: none, as the number of speakers is free.

    Attributes:
        mask: "binary", as in the paper, or "soft": the softmax of -``sharpness`` times the squared
            distances to the centres (Isik et al., Interspeech 2016).
        sharpness: of soft masks.

    Raises:
        OssicleError: a size is out of range, or sources are named.
    """

    block_s = 30.0
    overlap_s = 5.0

    def __init__(
        self,
        sample_rate: int = 8000,
        n_fft: int = 256,
        hop_length: int = 64,
        hidden: int = 300,
        n_layers: int = 2,
        embedding: int = 20,
        threshold_db: float = 40.0,
        dropout: float = 0.0,
        mask: str = "binary",
        sharpness: float = 5.0,
        sources: list[str] | None = None,
    ) -> None:
        super().__init__(sample_rate, sources or [], n_fft, hop_length)
        self.keep(locals())
        if sources:
            raise OssicleError("deep clustering separates like sources: it takes no names for them")
        if min(hidden, n_layers, embedding) < 1 or not 0 <= dropout < 1 or sharpness <= 0:
            raise OssicleError(
                "hidden, n_layers, embedding and sharpness must be above 0 and dropout in [0, 1)"
            )
        if not 0 < threshold_db <= RANGE_DB:
            raise OssicleError(f"threshold_db must be above 0 and at most {RANGE_DB:g}")
        if mask not in MASKS:
            raise OssicleError(f"mask {mask!r}: choose one of {', '.join(MASKS)}")
        self.threshold_db, self.embedding = threshold_db, embedding
        self.mask, self.sharpness = mask, sharpness
        n_bins = self.fourier.n_bins
        self.level_mean: Tensor
        self.level_std: Tensor
        self.register_buffer("level_mean", torch.zeros(n_bins))
        self.register_buffer("level_std", torch.ones(n_bins))
        self.blstm = nn.LSTM(
            n_bins,
            hidden,
            n_layers,
            batch_first=True,
            bidirectional=True,
            dropout=dropout if n_layers > 1 else 0.0,
        )
        self.project = nn.Linear(2 * hidden, n_bins * embedding)

    def config(self) -> dict[str, object]:
        """The constructor's keywords, with the kind of mask now chosen."""
        return {**super().config(), "mask": self.mask, "sharpness": self.sharpness}

    def levels(self, spectra: Tensor) -> Tensor:
        """(B, F, T) complex64 -> (B, T, F) dB below each item's loudest bin, at most 80."""
        power = spectra.real.square() + spectra.imag.square()
        peak = power.amax((1, 2), keepdim=True).clamp(min=1e-20)
        floor = 10 ** (-RANGE_DB / 10)
        return 10 * (power / peak).clamp(min=floor).log10().transpose(1, 2)

    def active(self, levels: Tensor) -> Tensor:
        """(B, T, F) dB -> bool: bins that are not silent; there are none in digital silence."""
        heard = levels > -self.threshold_db
        return heard & (levels.amax((1, 2), keepdim=True) > -RANGE_DB)

    def embed(self, levels: Tensor) -> Tensor:
        """(B, T, F) dB -> (B, T F, D), of unit length."""
        normalised = (levels - self.level_mean) / self.level_std
        hidden, _ = self.blstm(normalised)
        vectors = self.project(hidden).float().tanh()
        vectors = vectors.reshape(len(levels), -1, self.embedding)
        return functional.normalize(vectors, dim=-1, eps=MIN_NORM)

    def masks(self, spectrum: Tensor, n_sources: int) -> Tensor:
        """(F, T) -> (S, F, T); where nothing is heard all sources have equal shares."""
        levels = self.levels(spectrum[None])
        active = self.active(levels).reshape(-1)
        n_bins, n_frames = spectrum.shape
        if int(active.sum()) < n_sources:
            return torch.full((n_sources, n_bins, n_frames), 1 / n_sources)
        vectors = self.embed(levels)[0]
        squares = self._distances(vectors, active, n_sources)
        if self.mask == "binary":
            shares = functional.one_hot(squares.argmin(1), n_sources).float()
        else:
            shares = (-self.sharpness * squares).softmax(1)
        return shares.reshape(n_frames, n_bins, n_sources).permute(2, 1, 0)

    def _distances(self, vectors: Tensor, active: Tensor, n_sources: int) -> Tensor:
        """(M, D) -> (M, S) squared distances to the centres of the active bins."""
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        heard = vectors[active]
        step = -(-len(heard) // MOST_BINS)
        sample = heard[::step].double().cpu().numpy()
        with warnings.catch_warnings():
            # Where all vectors are alike, centres fall together: shares are then whatever.
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = KMeans(n_sources, n_init=4, random_state=0).fit(sample)
        centres = torch.from_numpy(found.cluster_centers_).to(vectors)
        squares = vectors.square().sum(1, keepdim=True) - 2 * vectors @ centres.T
        return (squares + centres.square().sum(1)).clamp(min=0)


def ideal_assignment(spectra: Tensor) -> Tensor:
    """Which source is the loudest in each bin, (B, S, F, T) complex -> one-hot (B, T F, S)."""
    power = (spectra.real.square() + spectra.imag.square()).transpose(2, 3)
    most = power[:, 0]
    loudest = torch.zeros_like(most, dtype=torch.int64)
    # One after the other: argmax along so short an axis takes ten times as long.
    for source in range(1, power.shape[1]):
        louder = power[:, source] > most
        most = torch.where(louder, power[:, source], most)
        loudest = torch.where(louder, source, loudest)
    one_hot = [(loudest == source).flatten(1) for source in range(power.shape[1])]
    return torch.stack(one_hot, -1).to(power.dtype)


def affinity_loss(vectors: Tensor, assignment: Tensor, weight: Tensor) -> Tensor:
    """||V V' - Y Y'||^2 over the pairs of bins that count, for each item.

    In its low-rank form ||V'V||^2 - 2 ||V'Y||^2 + ||Y'Y||^2, whose products are D x D,
    D x S and S x S, divided by the square of the sum of the weights.

    Args:
        vectors: V, (B, M, D).
        assignment: Y, (B, M, S), one-hot.
        weight: (B, M), 0 for silent bins.

    Returns:
        (B,), between 0 and 1 where vectors have unit length.
    """
    v, y = _weighted(vectors, assignment, weight)
    pairs = _square(v, v) - 2 * _square(v, y) + _square(y, y)
    return pairs / weight.sum(1).clamp(min=1.0).square()


def whitened_loss(vectors: Tensor, assignment: Tensor, weight: Tensor) -> Tensor:
    """D - tr((V'V)^-1 V'Y (Y'Y)^-1 Y'V), over D, for each item.

    The k-means objective of the assignment in whitened space: Z.-Q. Wang, J. Le Roux,
    J. R. Hershey, "Alternative objective functions for deep clustering", ICASSP 2018.

    Args and returns as in `affinity_loss`.
    """
    v, y = _weighted(vectors, assignment, weight)
    n_dims = v.shape[-1]
    gram = v.transpose(1, 2) @ v
    # The ridge keeps it invertible where few bins count; small beside the mean variance.
    ridge = 1e-4 * weight.sum(1)[:, None, None] / n_dims + 1e-6
    gram = gram + ridge * torch.eye(n_dims, dtype=v.dtype, device=v.device)
    cross = v.transpose(1, 2) @ y
    counts = y.square().sum(1).clamp(min=1e-6)
    explained = torch.linalg.solve(gram, cross / counts[:, None]) * cross
    return (n_dims - explained.sum((1, 2))) / n_dims


def _weighted(vectors: Tensor, assignment: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    root = weight.sqrt().unsqueeze(-1)
    return vectors * root, assignment * root


def _square(a: Tensor, b: Tensor) -> Tensor:
    return (a.transpose(1, 2) @ b).square().sum((1, 2))
