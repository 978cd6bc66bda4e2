"""Bases of each source from its stems; what cannot be learnt from them is chosen on mixtures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ossicle.datasets.mixtures import Mixtures
from ossicle.errors import DataError, OssicleError
from ossicle.separate.label import described
from ossicle.separate.training import Steps, improvement
from ossicle.separators.multiplicative import check_divergence, factorised
from ossicle.separators.nmf import NMF, stacked

BASES = ("learnt", "exemplars")


@dataclass(frozen=True)
class NMFSettings:
    """How NMF is fitted; every value is part of the record.

    Those with several values are tried out on the part "valid", each with each, and the first
    of each is taken where there is no such part.

    Attributes:
        n_fft_s, hop_s: frames and their distance, seconds.
        n_components: numbers of bases that each source has.
        sparsity: weights of the sum of the activations, in learning and in separating.
        exponents: of the masks, see `NMF`.
        divergence, power, context, n_iterations: see `NMF`.
        bases: "learnt" by updates, or "exemplars", frames drawn from the stems as they are (the
            former start from the latter).
        learning_iterations: updates of the bases, at most.
        tolerance: learning ends where the objective sinks by less than this share of itself in 10.
        max_frames: of each source that are learnt from, drawn from all of its stems alike.
        silence_db: frames so much below the loudest of their stem are left out.
        free: sources that are not learnt from at all, but on each recording; see `NMF`.
        free_components: bases of each of these.
        n_valid: mixtures that a choice is judged on.
        seed: of everything drawn.
    """

    n_fft_s: float = 0.064
    hop_s: float = 0.016
    n_components: tuple[int, ...] = (16, 64)
    sparsity: tuple[float, ...] = (0.0, 1.0, 3.0, 10.0)
    exponents: tuple[float, ...] = (1.0, 2.0)
    divergence: str = "kl"
    power: float = 1.0
    context: int = 1
    n_iterations: int = 25
    bases: str = "learnt"
    learning_iterations: int = 100
    tolerance: float = 1e-3
    max_frames: int = 6000
    silence_db: float = 40.0
    free: tuple[str, ...] = ()
    free_components: int = 4
    n_valid: int = 40
    seed: int = 0

    def check(self) -> NMFSettings:
        """Itself.

        Raises:
            OssicleError: a value is out of range.
        """
        check_divergence(self.divergence)
        if self.bases not in BASES:
            raise OssicleError(f"bases {self.bases!r}: choose one of {', '.join(BASES)}")
        for name in ("n_components", "sparsity", "exponents"):
            if not getattr(self, name):
                raise OssicleError(f"{name}: needs a value or several")
        counts = "n_iterations", "learning_iterations", "max_frames", "free_components", "n_valid"
        for name in ("n_fft_s", "hop_s", "silence_db", *counts):
            if not 0 < getattr(self, name) < math.inf:
                raise OssicleError(f"{name} must be above 0, got {getattr(self, name)}")
        if min(self.n_components) < 1 or max(self.n_components) > self.max_frames:
            raise OssicleError(
                f"n_components must be from 1 to max_frames ({self.max_frames}), got "
                f"{self.n_components}"
            )
        if not all(0 <= value < math.inf for value in (*self.sparsity, self.tolerance)):
            raise OssicleError("sparsity and tolerance must be numbers from 0 on")
        if self.seed < 0:
            raise OssicleError(f"seed must be from 0 on, got {self.seed}")
        return self


def fit_nmf(
    mixtures: Mixtures,
    settings: NMFSettings,
    *,
    folder: Path | None = None,
    progress: Steps | None = None,
) -> NMF:
    """Learn bases from the stems of the part "train"; sizes are chosen on the part "valid".

    Args:
        mixtures: of sources with names.
        settings: how.
        folder: not used: nothing here takes long enough to be gone on with.
        progress: called after each choice with those done, all, and seconds of audio heard.

    Raises:
        DataError: the sources have no names, or one of them is silent throughout.
        OssicleError: a setting is out of range.
    """
    s = settings.check()
    if not mixtures.sources:
        raise DataError(
            f"{mixtures.root}: NMF learns each source by itself, so that they need names (speech, "
            "noise); these are alike: use deep_clustering"
        )
    if set(s.free) - set(mixtures.sources) or len(s.free) >= len(mixtures.sources):
        raise OssicleError(f"free must name some, not all, of {', '.join(mixtures.sources)}")
    train, valid = mixtures.part("train"), mixtures.part("valid")
    frames, heard_s = _frames(train, s)
    taken, best = None, -math.inf
    chosen: dict[str, Any] = {}
    tried: list[dict[str, Any]] = []
    pairs = list(product(s.n_components, s.sparsity))
    for done, (count, sparsity) in enumerate(pairs):
        bases = torch.cat([_bases(spectrum, count, sparsity, s) for spectrum in frames], 1)
        for exponent in s.exponents:
            separator = _separator(mixtures, s, count, sparsity, exponent)
            separator.bases.copy_(bases)
            score = improvement(separator, valid, most=s.n_valid) if len(valid) else -math.inf
            tried.append({**_named(count, sparsity, exponent), **_scored(score)})
            if taken is None or score > best:
                taken, best = separator, score
                chosen = _named(count, sparsity, exponent)
            if not len(valid):
                break
        if progress is not None:
            progress(done + 1, len(pairs), heard_s)
        if not len(valid):
            break
    assert taken is not None
    chosen |= {**_scored(best), "tried": tried} if len(valid) else {}
    chosen["n_frames"] = [spectrum.shape[1] for spectrum in frames]
    taken.info = described("nmf", mixtures, asdict(s), chosen=chosen)
    return taken.eval()


def _named(count: int, sparsity: float, exponent: float) -> dict[str, Any]:
    return {"n_components": count, "sparsity": sparsity, "exponent": exponent}


def _scored(score: float) -> dict[str, Any]:
    return {"validation_si_sdr_improvement": score} if math.isfinite(score) else {}


def _separator(
    mixtures: Mixtures, s: NMFSettings, count: int, sparsity: float, exponent: float
) -> NMF:
    hop = max(1, round(s.hop_s * mixtures.sample_rate))
    n_fft = 2 * max(hop, round(s.n_fft_s * mixtures.sample_rate / 2))
    names = list(mixtures.sources)
    return NMF(
        mixtures.sample_rate,
        names,
        [s.free_components if name in s.free else count for name in names],
        n_fft,
        hop,
        divergence=s.divergence,
        sparsity=sparsity,
        n_iterations=s.n_iterations,
        exponent=exponent,
        power=s.power,
        context=s.context,
        free=[name for name in names if name in s.free],
    )


def _frames(train: Mixtures, s: NMFSettings) -> tuple[list[Tensor], float]:
    """For each source not free (context * F, T) of mean 1, and seconds heard of all together."""
    if not len(train):
        raise DataError(f"{train.root}: has no mixtures to learn from")
    like = _separator(train, s, 1, 0.0, 1.0)
    names = [name for name in train.sources if name not in s.free]
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    # Twice the share of each, since some are short: what is too much goes in the end.
    share = math.ceil(2 * s.max_frames / len(train))
    heard_s = 0.0
    for i in range(len(train)):
        for name, stem in _stems(train, i):
            if name in kept:
                rng = np.random.default_rng([s.seed, i, train.sources.index(name)])
                kept[name].append(_sounding(stem, like, s, share, rng))
                heard_s += stem.shape[-1] / train.sample_rate
    spectra = []
    for name, parts in kept.items():
        spectrum = torch.cat(parts, 1)
        if not spectrum.shape[1]:
            raise DataError(f"{train.root}: {name} is silent in all mixtures of the part 'train'")
        rng = np.random.default_rng([s.seed, len(train), train.sources.index(name)])
        spectrum = _some(spectrum, s.max_frames, rng)
        spectra.append(spectrum / spectrum.mean())
    return spectra, heard_s


def _stems(train: Mixtures, i: int) -> Iterator[tuple[str, Tensor]]:
    loaded = train.load(i)
    for name, stem in zip(train.sources, loaded.sources, strict=True):
        yield name, torch.from_numpy(np.ascontiguousarray(stem, dtype=np.float32))


def _sounding(
    stem: Tensor, like: NMF, s: NMFSettings, most: int, rng: np.random.Generator
) -> Tensor:
    """(N,) -> (context * F, T') at most so many of the frames in which a stem is heard."""
    magnitude = like.fourier.analyse(stem).abs()
    energy = magnitude.square().sum(0)
    floor = energy.max() * 10 ** (-s.silence_db / 10)
    heard = (energy >= floor) & (energy > 0)
    return _some(stacked(magnitude**s.power, s.context)[:, heard], most, rng)


def _some(spectrum: Tensor, most: int, rng: np.random.Generator) -> Tensor:
    if spectrum.shape[1] <= most:
        return spectrum
    columns = np.sort(rng.choice(spectrum.shape[1], most, replace=False))
    return spectrum[:, torch.from_numpy(columns)]


def _bases(spectrum: Tensor, count: int, sparsity: float, s: NMFSettings) -> Tensor:
    """(context * F, T) -> (context * F, count) of length 1."""
    rng = np.random.default_rng([s.seed, count])
    few = spectrum.shape[1] < count
    columns = rng.choice(spectrum.shape[1], count, replace=few)
    bases = spectrum[:, torch.from_numpy(columns)]
    if s.bases == "learnt":
        # Zeros would stay: each frame is given a little of the mean of all.
        start = bases + 0.1 * spectrum.mean(1, keepdim=True) + 1e-6
        bases, _, _ = factorised(
            spectrum,
            start,
            s.divergence,
            sparsity,
            n_iterations=s.learning_iterations,
            tolerance=s.tolerance,
        )
    return bases / torch.linalg.vector_norm(bases, dim=0).clamp_min(1e-12)
