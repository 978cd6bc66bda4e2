"""Exhibits of systems that explain a spectrum by parts: bases, and what latents decode to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import pandas as pd
import torch
from torch import nn

from ossicle.datasets.mixtures import Mixtures
from ossicle.inspection import drawings
from ossicle.inspection.bases import base_table, in_order
from ossicle.inspection.exhibit import Exhibit
from ossicle.separators.base import MaskSeparator
from ossicle.separators.end_to_end import EndToEnd
from ossicle.separators.nmf import NMF
from ossicle.separators.nonnegative_autoencoder import (
    Autoencoder,
    NonnegativeAutoencoder,
    frame_levels,
)
from ossicle.separators.unfolded_nmf import UnfoldedNMF

SECTION = "What it is made of"
MARKED = 5  # of each source, those used most


def frequencies_hz(separator: MaskSeparator) -> np.ndarray:
    """(F,) of the bins of its transform."""
    fourier = separator.fourier
    return np.arange(fourier.n_bins) * (separator.sample_rate / fourier.n_fft)


def fixed_sources(separator: NMF) -> list[tuple[str, int]]:
    """(name, bases) of the sources whose bases the bundle holds."""
    pairs = zip(separator.sources, separator.n_components, strict=True)
    return [(name, count) for name, count in pairs if name not in separator.free]


def nmf_bases(separator: NMF, weights: torch.Tensor) -> dict[str, np.ndarray]:
    """Source -> (F, K) magnitudes, of the middle frame of bases (context * F, sum of K)."""
    bins = separator.fourier.n_bins
    middle = separator.context // 2 * bins
    rows = weights.detach()[middle : middle + bins].double().cpu().numpy()
    rows = np.maximum(rows, 0.0) ** (1 / separator.power)
    names = fixed_sources(separator)
    edges = np.cumsum([count for _, count in names])[:-1]
    parts = np.split(rows, edges, axis=1)
    return {name: part for (name, _), part in zip(names, parts, strict=True)}


@torch.inference_mode()
def nmf_use(separator: NMF, mixtures: Mixtures, most: int) -> dict[str, np.ndarray]:
    """Source -> (K,) sums of what each basis gave to the models of some mixtures."""
    total: np.ndarray | None = None
    for number in range(min(most, len(mixtures))):
        samples = torch.from_numpy(mixtures.load(number).mixture)
        frames = separator.frames(separator.fourier.analyse(samples).abs())
        bases, active = separator.explained(frames)
        part = (bases.sum(0) * active.sum(1)).double().cpu().numpy()
        total = part if total is None else total + part
    assert total is not None
    edges = np.cumsum(separator.n_components)[:-1]
    shares = dict(zip(separator.sources, np.split(total, edges), strict=True))
    return {name: shares[name] for name, _ in fixed_sources(separator)}


def nmf_exhibits(separator: NMF, mixtures: Mixtures | None, most: int) -> list[Exhibit]:
    """Bases in the order of their centroids; of the unfolded kind also what training changed."""
    use = None if mixtures is None else nmf_use(separator, mixtures, most)
    if not isinstance(separator, UnfoldedNMF):
        return [
            columns_exhibit(
                frequencies_hz(separator),
                nmf_bases(separator, separator.bases),
                use,
                "bases",
                "bases",
            )
        ]
    last = nmf_bases(separator, separator.layer_bases(separator.n_iterations))
    plain = nmf_bases(separator, separator.bases)
    return [
        columns_exhibit(frequencies_hz(separator), last, use, "bases", "bases of the last layer"),
        columns_exhibit(
            frequencies_hz(separator),
            plain,
            None,
            "bases_before",
            "bases that training started from",
        ),
        _changes(separator),
    ]


def autoencoders_of(separator: NonnegativeAutoencoder | EndToEnd) -> list[Autoencoder]:
    """One a source, in order."""
    return [cast(Autoencoder, model) for model in separator.autoencoders or []]


@torch.inference_mode()
def decoder_outputs(separator: NonnegativeAutoencoder | EndToEnd) -> dict[str, np.ndarray]:
    """Source -> (F, K): what each latent alone at 1 adds to what no latent at all decodes to."""
    found = {}
    for name, model in zip(separator.sources, autoencoders_of(separator), strict=True):
        decoder = model.decoder
        size = cast(nn.Linear, decoder.maps[0]).in_features
        unit = decoder(torch.eye(size))
        found[name] = (unit - decoder(torch.zeros(size, 1))).clamp(min=0).double().numpy()
    return found


@torch.inference_mode()
def encoder_use(
    separator: NonnegativeAutoencoder, mixtures: Mixtures, most: int
) -> dict[str, np.ndarray]:
    """Source -> (K,) sums of the latents that its encoder gives for its own stems."""
    sums = [0.0] * len(separator.sources)
    for number in range(min(most, len(mixtures))):
        stems = torch.from_numpy(mixtures.load(number).sources)
        spectra = separator.fourier.analyse(stems).abs()
        frames = spectra / frame_levels(spectra)
        for i, model in enumerate(autoencoders_of(separator)):
            sums[i] = sums[i] + model.encoder(frames[i]).sum(-1).double().numpy()
    return dict(zip(separator.sources, map(np.asarray, sums), strict=True))


def autoencoder_exhibits(
    separator: NonnegativeAutoencoder, mixtures: Mixtures | None, most: int
) -> list[Exhibit]:
    """What each latent decodes to."""
    use = None
    if mixtures is not None and mixtures.sources:
        use = encoder_use(separator, mixtures, most)
    what = "decoded latents"
    return [
        columns_exhibit(frequencies_hz(separator), decoder_outputs(separator), use, "decoder", what)
    ]


def columns_exhibit(
    frequencies: np.ndarray,
    bases: Mapping[str, np.ndarray],
    use: Mapping[str, np.ndarray] | None,
    name: str,
    what: str,
) -> Exhibit:
    """Spectra side by side, by source and centroid.

    Args:
        frequencies: (F,) Hz, rising.
        bases: source -> (F, K).
        use: source -> (K,), where known.
        name: of the files; "decoder" is said to be one.
        what: they are.
    """
    table = base_table(bases, frequencies, use)
    columns, borders = in_order(bases, table)
    marks: list[int] = []
    used = ""
    if use is not None:
        for source in bases:
            mine = table[table["source"] == source]["share"].nlargest(MARKED)
            marks += list(mine.index)
            used += f" The {len(mine)} used most of {source} give {mine.sum():.0%} of it."
        used += " Triangles mark them."
    counts = ", ".join(f"{part.shape[1]} of {source}" for source, part in bases.items())
    medians = ", ".join(
        f"{source} {part['centroid_hz'].median():.0f} Hz"
        for source, part in table.groupby("source", sort=False)
    )
    told = (
        " Each is what its latent alone, at 1, adds to what is decoded without any."
        if name == "decoder"
        else ""
    )
    return Exhibit(
        name,
        SECTION,
        f"{what[0].upper()}{what[1:]}",
        f"A column each ({counts}), of largest value 1, by rising centroid within a source "
        f"(median centroid: {medians}).{told}{used}",
        f"Heat map of {columns.shape[1]} spectra side by side: {counts}.",
        lambda: drawings.frequency_columns(
            columns, frequencies, borders, "magnitude", "column, by centroid", marks
        ),
        table,
    )


def _changes(separator: UnfoldedNMF) -> Exhibit:
    """How much training changed each layer's bases, over frequency."""
    bins = separator.fourier.n_bins
    middle = separator.context // 2 * bins
    theta = separator.changes.detach()[:, middle : middle + bins].double().cpu()
    by_bin = theta.abs().mean(2).numpy()
    frequencies = frequencies_hz(separator)
    layers = separator.n_iterations + 1
    first = layers - separator.n_trained
    tied = len(theta) == 1 and separator.n_trained > 1
    names = (
        [f"layers {first} to {layers - 1}"]
        if tied
        else [f"layer {first + i}" for i in range(len(theta))]
    )
    flat = theta.flatten(1)
    table = pd.DataFrame(
        {
            "layer": names,
            "mean_change": flat.abs().mean(1).numpy(),
            "largest_change": flat.abs().amax(1).numpy(),
            "share_grown": (flat > 0).double().mean(1).numpy(),
        }
    )
    return Exhibit(
        "changes",
        SECTION,
        "What training changed",
        f"Mean |theta| of each trained layer over frequency; a basis entry is exp(theta) times "
        f"what it was. Layer {layers - 1}, the last, makes the masks; the first {first} have the "
        "bases of plain NMF.",
        f"Heat map of {len(names)} sets of bases over frequency.",
        lambda: drawings.frequency_columns(
            by_bin.T, frequencies, [(0, "")], "mean |theta|", "trained set of bases"
        ),
        table,
        True,
    )
