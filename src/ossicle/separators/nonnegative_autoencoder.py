"""A non-negative autoencoder for each source: non-negative matrix factorisation as a network.

Symbols: F frequency bins, T frames, K latents of a source, S sources; time is always last.

Smaragdis & Venkataramani 2017 (arXiv 1609.03296): an encoder H = g(W+ V) and a decoder
V^ = g(W H) take the places of the activations and bases of a factorisation V = W H. One model a
source is learnt from that source alone. A mixture is taken apart with the decoders as
they are: the latents of all sources are fitted together, until what the decoders make of them adds
up to the mixture.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ossicle.errors import OssicleError
from ossicle.separators.base import MaskSeparator

ACTIVATIONS = ("abs", "softplus", "relu")
LATENTS = ("fitted", "encoder")
STARTS = ("encoder", "even")
MAX_LAYERS = 8
MAX_ITERATIONS = 10_000
# Added to what a decoder gives, in parts of a frame's mean magnitude (100 dB below it).
EPS = 1e-5
# A frame whose mean magnitude is below this is silent: far below the last bit of 24.
SILENCE = 1e-6
# Of the fit of latents, in natural logarithms: the first change of each, the least and the most.
# Growth and shrinking are those of Riedmiller & Braun (1993).
_FIRST_STEP, _LEAST_STEP, _MOST_STEP = 0.1, 1e-6, 2.0
_GROW, _SHRINK = 1.2, 0.5
# A latent's range around a frame's mean magnitude; at the bottom it counts as zero.
_LEAST_LATENT, _MOST_LATENT = 1e-8, 1e6


def activate(x: Tensor, activation: str) -> Tensor:
    """g, elementwise: no value of it is below zero.

    Args:
        x: any shape.
        activation: "abs" (|x|), "softplus" (log(1 + e^x)) or "relu" (max(x, 0)).
    """
    if activation == "softplus":
        return functional.softplus(x)
    return x.abs() if activation == "abs" else x.relu()


def _slope(x: Tensor, activation: str) -> Tensor:
    """g', elementwise."""
    if activation == "softplus":
        return x.sigmoid()
    return x.sign() if activation == "abs" else (x > 0).to(x.dtype)


def divergence(spectrum: Tensor, estimate: Tensor) -> Tensor:
    """The generalised Kullback-Leibler divergence of each bin, V log(V / V^) - V + V^.

    Both shapes alike; `EPS` is added to the estimate, and 0 log 0 is 0.
    """
    estimate = estimate + EPS
    return torch.xlogy(spectrum, spectrum) - spectrum * estimate.log() - spectrum + estimate


def frame_levels(magnitudes: Tensor) -> Tensor:
    """(..., F, T) -> (..., 1, T): each frame's mean magnitude, at least `SILENCE`.

    What is fitted are frames divided by it: then neither the level of a recording nor what stands
    before and after a frame changes how that frame is taken apart.
    """
    return magnitudes.mean(-2, keepdim=True).clamp(min=SILENCE)


class Layers(nn.Module):
    """Linear maps, each followed by g; on frames (F, T), time last.

    Args:
        sizes: of input, layers between, and output.
        activation: g.

    With |x| or max(x, 0) there are no biases, so that a times the input gives a times the output,
    as in a factorisation. log(1 + e^x) needs them: it is 0.69 at 0.
    """

    def __init__(self, sizes: Sequence[int], activation: str) -> None:
        super().__init__()
        self.activation = activation
        bias = activation == "softplus"
        self.maps = nn.ModuleList([nn.Linear(a, b, bias=bias) for a, b in pairwise(sizes)])

    def forward(self, x: Tensor) -> Tensor:
        """(..., F, T) -> (..., F', T), not below zero."""
        for layer in self.maps:
            x = activate(self._linear(layer, x), self.activation)
        return x

    def forward_and_slopes(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The output, and g' at each layer, for `backward`."""
        slopes = []
        for layer in self.maps:
            x = self._linear(layer, x)
            slopes.append(_slope(x, self.activation))
            x = activate(x, self.activation)
        return x, slopes

    def backward(self, gradient: Tensor, slopes: list[Tensor]) -> Tensor:
        """The gradient with respect to the input, of that with respect to the output.

        Written out, since the fit of latents runs where torch keeps no graph.
        """
        for layer, slope in zip(reversed(list(self.maps)), reversed(slopes), strict=True):
            weight: Tensor = layer.weight  # type: ignore[assignment]
            gradient = weight.T @ (gradient * slope)
        return gradient

    def reach(self) -> Tensor:
        """|W_L| ... |W_1|, (F', F): the most that a unit of each input adds to each output.

        No g here is steeper than 1; with |x|, one layer and no weight below zero it is W itself.
        """
        reach = self.maps[0].weight.abs()  # type: ignore[operator]
        for layer in list(self.maps)[1:]:
            reach = layer.weight.abs() @ reach  # type: ignore[operator]
        return reach

    @staticmethod
    def _linear(layer: nn.Module, x: Tensor) -> Tensor:
        x = layer.weight @ x  # type: ignore[operator]
        return x if layer.bias is None else x + layer.bias[:, None]  # type: ignore[index]


class Autoencoder(nn.Module):
    """Encoder and decoder of one source.

    Args:
        n_bins: F.
        sizes: of the hidden layers; the last is K, and the decoder goes back the same way.
        activation: g.
    """

    def __init__(self, n_bins: int, sizes: Sequence[int], activation: str) -> None:
        super().__init__()
        self.encoder = Layers([n_bins, *sizes], activation)
        self.decoder = Layers([*reversed(sizes), n_bins], activation)

    def forward(self, magnitudes: Tensor) -> tuple[Tensor, Tensor]:
        """(..., F, T) -> the same, not below zero, and latents (..., K, T), not below zero."""
        latents = self.encoder(magnitudes)
        return self.decoder(latents), latents


def prices(decoder: Layers) -> Tensor:
    """(K, 1): what a unit of each latent costs, the Euclidean length of its column of `reach`.

    So sparsity cannot be had by small latents under large weights; it is what it is in a
    factorisation whose bases have length 1.
    """
    return torch.linalg.vector_norm(decoder.reach(), dim=0)[:, None]


def fit_latents(
    decoders: Sequence[Layers],
    spectrum: Tensor,
    starts: Sequence[Tensor],
    *,
    iterations: int,
    sparsity: float = 0.0,
) -> list[Tensor]:
    """Latents whose decoded sum is like a spectrum (Smaragdis & Venkataramani 2017).

    Minimises, over H_s >= 0, the divergence of the sum of V^_s = decoder_s(H_s) from V, plus
    sparsity * sum of H_s * prices_s. Resilient back-propagation (Riedmiller & Braun 1993) on the
    logarithm of each latent: it asks for signs alone, so that frames and latents of any scale go at
    their own pace and no frame knows of another.

    Args:
        decoders: S of them.
        spectrum: V, (F, T), frames divided by `frame_levels`.
        starts: S latents (K, T), not below zero.
        iterations: of them all; the same for every frame.
        sparsity: lambda, on a frame whose mean magnitude is 1.

    Returns:
        S latents (K, T); of each frame those with the least cost on the way.
    """
    price = sparsity * torch.cat([prices(decoder) for decoder in decoders])
    latents = torch.cat(list(starts)).clamp(_LEAST_LATENT, _MOST_LATENT)
    sizes = [start.shape[0] for start in starts]
    steps = torch.full_like(latents, _FIRST_STEP)
    before = torch.zeros_like(latents)
    best, least = latents, torch.full_like(latents[:1], float("inf"))
    for number in range(iterations + 1):
        passes = [
            decoder.forward_and_slopes(part)
            for decoder, part in zip(decoders, latents.split(sizes), strict=True)
        ]
        total = torch.stack([output for output, _ in passes]).sum(0) + EPS
        # Without the terms that no latent changes.
        cost = (total - spectrum * total.log()).sum(0, keepdim=True)
        cost = cost + (price * latents).sum(0, keepdim=True)
        better = cost < least
        least = torch.where(better, cost, least)
        best = torch.where(better, latents, best)
        if number == iterations:
            break
        residual = 1 - spectrum / total
        gradients = [
            decoder.backward(residual, slopes)
            for decoder, (_, slopes) in zip(decoders, passes, strict=True)
        ]
        signs = (torch.cat(gradients) + price).sign()
        agreement = signs * before
        factor = torch.where(agreement > 0, _GROW, torch.where(agreement < 0, _SHRINK, 1.0))
        steps = (steps * factor).clamp(_LEAST_STEP, _MOST_STEP)
        # After a change of sign one step is left out, or it would shrink twice for one passing.
        signs = torch.where(agreement < 0, 0.0, signs)
        latents = (latents * (-signs * steps).exp()).clamp(_LEAST_LATENT, _MOST_LATENT)
        before = signs
    return list(best.split(sizes))


def check_autoencoder(sizes: Sequence[int], activation: str) -> None:
    """Refuse what no autoencoder can be made of.

    Raises:
        OssicleError: no layers or too many, a size below 1, an unknown activation.
    """
    if not 1 <= len(sizes) <= MAX_LAYERS or min(sizes) < 1:
        raise OssicleError(f"sizes must be 1 to {MAX_LAYERS} numbers above zero, got {sizes}")
    if activation not in ACTIVATIONS:
        raise OssicleError(f"unknown activation {activation!r}; there are {', '.join(ACTIVATIONS)}")


def check_fit(latents: str, start: str, iterations: int, sparsity: float) -> None:
    """Refuse a fit of latents that cannot be.

    Raises:
        OssicleError: a value is out of range.
    """
    if latents not in LATENTS or start not in STARTS:
        raise OssicleError(
            f"latents must be one of {', '.join(LATENTS)} and start one of {', '.join(STARTS)}, "
            f"got {latents!r} and {start!r}"
        )
    if not 0 <= iterations <= MAX_ITERATIONS or not 0 <= sparsity < float("inf"):
        raise OssicleError(
            f"iterations must be 0 to {MAX_ITERATIONS} and sparsity not below zero, "
            f"got {iterations} and {sparsity}"
        )


def source_spectra(
    autoencoders: Sequence[Autoencoder],
    spectrum: Tensor,
    *,
    latents: str,
    start: str,
    iterations: int,
    sparsity: float,
) -> Tensor:
    """What each source has in a mixture's magnitudes: (F, T) -> (S, F, T), above zero.

    Args:
        autoencoders: S of them.
        spectrum: frames divided by `frame_levels`.
        latents: "fitted" to the mixture, or what the "encoder" of each source hears in it: one
            pass, much faster, and worse.
        start: of the fit: "encoder" takes each one's latents of an S-th of the mixture, "even"
            ones of equal size.
        iterations, sparsity: as in `fit_latents`.
    """
    if latents == "encoder":
        found = [model.encoder(spectrum) for model in autoencoders]
    else:
        share = spectrum / len(autoencoders)
        starts = [_even(model.decoder, share) for model in autoencoders]
        if start == "encoder":
            # With a little of all: the logarithm of a latent at zero would never come back.
            starts = [
                model.encoder(share) + 0.01 * even
                for model, even in zip(autoencoders, starts, strict=True)
            ]
        found = fit_latents(
            [model.decoder for model in autoencoders],
            spectrum,
            starts,
            iterations=iterations,
            sparsity=sparsity,
        )
    decoded = [model.decoder(part) for model, part in zip(autoencoders, found, strict=True)]
    return torch.stack(decoded) + EPS


def _even(decoder: Layers, spectrum: Tensor) -> Tensor:
    """(F, T) -> (K, T): latents that each have an equal part in a frame's mean magnitude."""
    column = decoder.reach().mean(0)[:, None].clamp(min=_LEAST_LATENT)
    return spectrum.mean(0, keepdim=True) / (len(column) * column)


class NonnegativeAutoencoder(MaskSeparator):
    """Wiener masks, V^_s / sum of V^, from one autoencoder a source.

    Args:
        sample_rate: Hz.
        sources: names, in order.
        n_fft, hop_length: samples.
        sizes: of each autoencoder's hidden layers; the last is K.
        activation: g, "abs", "softplus" or "relu".
        latents: "fitted" or "encoder", see `source_spectra`.
        start: "encoder" or "even".
        iterations: of the fit.
        sparsity: lambda of the fit, the price of a latent on a frame of mean magnitude 1.
        exponent: of V^ in the masks; 1: shares of magnitudes, 2: of their squares.

    Raises:
        OssicleError: a value is out of range.
    """

    def __init__(
        self,
        sample_rate: int,
        sources: list[str],
        n_fft: int = 1024,
        hop_length: int = 256,
        sizes: list[int] = [64],  # noqa: B006
        activation: str = "abs",
        latents: str = "fitted",
        start: str = "encoder",
        iterations: int = 30,
        sparsity: float = 0.0,
        exponent: float = 1.0,
    ) -> None:
        super().__init__(sample_rate, sources, n_fft, hop_length)
        self.keep(locals())
        if not sources:
            raise OssicleError("this system has one model a source: name the sources")
        check_autoencoder(sizes, activation)
        check_fit(latents, start, iterations, sparsity)
        if not 0 < exponent <= 8:
            raise OssicleError(f"exponent must be above 0, at most 8, got {exponent}")
        self.latents, self.start = latents, start
        self.iterations, self.sparsity, self.exponent = iterations, sparsity, exponent
        bins = self.fourier.n_bins
        self.autoencoders = nn.ModuleList([Autoencoder(bins, sizes, activation) for _ in sources])

    def source_spectra(self, magnitudes: Tensor) -> Tensor:
        """V^ of every source: (F, T) -> (S, F, T), at the level of the magnitudes."""
        levels = frame_levels(magnitudes)
        return levels * source_spectra(
            list(self.autoencoders),  # type: ignore[arg-type]
            magnitudes / levels,
            latents=self.latents,
            start=self.start,
            iterations=self.iterations,
            sparsity=self.sparsity,
        )

    def masks(self, spectrum: Tensor, n_sources: int) -> Tensor:
        """(F, T) complex64 -> (S, F, T) float32 in [0, 1] that add up to 1 in every bin."""
        parts = self.source_spectra(spectrum.abs())
        # Shares before powers, which would be too small for a float in silence.
        parts = (parts / parts.sum(0)) ** self.exponent
        return parts / parts.sum(0)
