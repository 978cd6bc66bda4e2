"""Separation from waveform to waveform, with an analysis and a synthesis that are learnt.

Symbols: B items, S sources, D filters, L samples of a filter, T frames, N samples; time is last.

Venkataramani, Casebeer & Smaragdis 2017 (arXiv 1705.02514): a convolution with D filters takes the
place of the Fourier transform, X = filters * x, one frame every hop. What a spectrogram tells is in
the modulator, M = softplus(smoothing * |X|); what phases tell is in the carrier, P = X / M, which a
skip connection takes past the network. The network makes modulators of the sources from that of the
mixture; the synthesis, a transposed convolution, makes waveforms of modulator times carrier.

What stands between is either one network that is trained to separate ("network"), or an
autoencoder a source whose latents are fitted to the mixture ("autoencoders", Venkataramani,
Tzinis & Smaragdis 2019, arXiv 1911.00102: `ossicle.separators.nonnegative_autoencoder` on
modulators).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ossicle.errors import OssicleError
from ossicle.separators.base import Separator
from ossicle.separators.nonnegative_autoencoder import (
    EPS,
    Autoencoder,
    check_autoencoder,
    check_fit,
    frame_levels,
    source_spectra,
)

MODELS = ("network", "autoencoders")
ESTIMATES = ("mask", "modulator")
STARTS = ("fourier", "random")
MAX_LENGTH = 65_536
MAX_FILTERS = 8_192
MAX_HIDDEN = 4_096
MAX_BLOCKS = 64
# Root of the mean square that a stretch is brought to: the softplus of the modulator bends around
# 1, which should be far below what is heard.
_LEVEL = 30.0
_SILENCE = 1e-8


class AdaptiveTransform(nn.Module):
    """Learnt analysis and synthesis: waveform -> modulator and carrier, and back.

    Args:
        n_filters: D, even.
        filter_length: L, samples, a multiple of the hop.
        hop_length: samples from one frame to the next, at most L / 2.
        smoothing: frames that the modulator is smoothed over, odd.
        tied: the synthesis has the filters of the analysis (its transpose) and none of its own.
        start: "fourier", windowed cosines and sines, which give back what they are given where
            D >= L; or "random".

    Attributes:
        filters: (D, 1, L) of the analysis.
        synthesis: (D, 1, L), None where tied.
        smoother: (D, 1, smoothing), one row a filter.
    """

    def __init__(
        self,
        n_filters: int,
        filter_length: int,
        hop_length: int,
        smoothing: int,
        tied: bool,
        start: str,
    ) -> None:
        super().__init__()
        self.filter_length, self.hop_length = filter_length, hop_length
        filters = _fourier_filters(n_filters, filter_length, hop_length)
        if start == "random":
            filters = torch.randn_like(filters) * math.sqrt(
                2 * hop_length / (n_filters * filter_length)
            )
        self.filters = nn.Parameter(filters[:, None])
        self.synthesis = None if tied else nn.Parameter(filters[:, None].clone())
        self.smoother = nn.Parameter(torch.full((n_filters, 1, smoothing), 1.0 / smoothing))

    def num_frames(self, n_samples: int) -> int:
        """T for N samples: so many that every sample is under L / hop filters."""
        return -(-n_samples // self.hop_length) + self.filter_length // self.hop_length - 1

    def analyse(self, samples: Tensor) -> Tensor:
        """(B, N) -> X (B, D, T)."""
        n_samples = samples.shape[-1]
        left = self.filter_length - self.hop_length
        whole = (self.num_frames(n_samples) - 1) * self.hop_length + self.filter_length
        padded = functional.pad(samples, (left, whole - left - n_samples))
        return functional.conv1d(padded[:, None], self.filters, stride=self.hop_length)

    def modulator(self, analysed: Tensor) -> Tensor:
        """X -> M, both (B, D, T); M is above zero."""
        reach = self.smoother.shape[-1] // 2
        smooth = functional.conv1d(
            analysed.abs(), self.smoother, padding=reach, groups=len(self.smoother)
        )
        # The softplus is so small far below zero that a carrier would be infinite.
        return functional.softplus(smooth).clamp(min=1e-6)

    def synthesise(self, analysed: Tensor, n_samples: int) -> Tensor:
        """(B, D, T) -> (B, N): the transposed convolution, cut to where the samples were."""
        filters = self.filters if self.synthesis is None else self.synthesis
        whole = functional.conv_transpose1d(analysed, filters, stride=self.hop_length)[:, 0]
        left = self.filter_length - self.hop_length
        return whole[:, left : left + n_samples]


class ModulatorNetwork(nn.Module):
    """Modulators of the sources from that of a mixture, by convolutions along time.

    log M -> D to `hidden` channels -> `n_blocks` residual blocks whose convolutions stand 1, 2, 4,
    ... 2^5 frames apart, over and over -> S times D numbers a frame. Norms are over the channels of
    a frame, so that a frame is heard by the network only within its finite reach.

    Args:
        n_filters: D.
        n_sources: S.
        hidden: channels.
        n_blocks: residual blocks.
        estimate: "mask", M^_s = sigmoid(z_s) M; or "modulator", M^_s = softplus(z_s).
    """

    def __init__(
        self, n_filters: int, n_sources: int, hidden: int, n_blocks: int, estimate: str
    ) -> None:
        super().__init__()
        self.n_sources, self.estimate = n_sources, estimate
        self.inward = nn.Conv1d(n_filters, hidden, 1)
        self.blocks = nn.ModuleList([_Block(hidden, 2 ** (i % 6)) for i in range(n_blocks)])
        self.outward = nn.Conv1d(hidden, n_sources * n_filters, 1)

    def forward(self, modulator: Tensor) -> Tensor:
        """(B, D, T) -> (B, S, D, T), not below zero."""
        x = self.inward(modulator.log())
        for block in self.blocks:
            x = x + block(x)
        z = self.outward(x).unflatten(1, (self.n_sources, -1))
        if self.estimate == "mask":
            return z.sigmoid() * modulator[:, None]
        return functional.softplus(z)


class _Block(nn.Module):
    def __init__(self, hidden: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, hidden)
        self.along_time = nn.Conv1d(
            hidden, hidden, 3, padding=dilation, dilation=dilation, groups=hidden
        )
        self.across = nn.Conv1d(hidden, hidden, 1)
        self.back = nn.Conv1d(hidden, hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, hidden, T) -> the same."""
        batch, _, frames = x.shape
        # GroupNorm over one frame at a time.
        x = x.transpose(1, 2).flatten(0, 1)
        x = self.norm(x).unflatten(0, (batch, frames)).transpose(1, 2)
        x = functional.softplus(self.along_time(self.across(x)))
        out: Tensor = self.back(x)
        return out


class EndToEnd(Separator):
    """Waveform in, waveforms of the sources out, each channel by itself.

    Args:
        sample_rate: Hz.
        sources: names, in order.
        n_filters, filter_length, hop_length, smoothing, tied, filters: of the
            `AdaptiveTransform`; ``filters`` is its start.
        model: "network" or "autoencoders".
        hidden, n_blocks, estimate: of the `ModulatorNetwork`.
        sizes, activation: of the autoencoders.
        latents, start, iterations, sparsity: of their fit, see `source_spectra`.
        exponent: of what each autoencoder makes, in its share of the mixture's modulator.
        consistent: what the sources lack of the mixture is given to all of them in equal parts, so
            that they add up to it (Wisdom et al. 2019, "Differentiable consistency constraints for
            improved deep speech enhancement", ICASSP, arXiv 1811.08521).

    Attributes:
        gains: (S,) factors on the sources: a loss that does not hear scale leaves it open.

    Raises:
        OssicleError: a value is out of range.
    """

    def __init__(
        self,
        sample_rate: int,
        sources: list[str],
        n_filters: int = 512,
        filter_length: int = 512,
        hop_length: int = 128,
        smoothing: int = 5,
        tied: bool = False,
        filters: str = "fourier",
        model: str = "network",
        hidden: int = 128,
        n_blocks: int = 6,
        estimate: str = "mask",
        sizes: list[int] = [64],  # noqa: B006
        activation: str = "abs",
        latents: str = "fitted",
        start: str = "encoder",
        iterations: int = 30,
        sparsity: float = 0.0,
        exponent: float = 1.0,
        consistent: bool = True,
    ) -> None:
        super().__init__(sample_rate, sources)
        self.keep(locals())
        if not sources:
            raise OssicleError("this system gives its sources in order: name them")
        _check_transform(n_filters, filter_length, hop_length, smoothing)
        if filters not in STARTS or model not in MODELS or estimate not in ESTIMATES:
            raise OssicleError(
                f"filters must be one of {', '.join(STARTS)}, model one of {', '.join(MODELS)}, "
                f"estimate one of {', '.join(ESTIMATES)}; got {filters}, {model}, {estimate}"
            )
        if not 1 <= hidden <= MAX_HIDDEN or not 0 <= n_blocks <= MAX_BLOCKS:
            raise OssicleError(
                f"hidden must be 1 to {MAX_HIDDEN} and n_blocks 0 to {MAX_BLOCKS}, "
                f"got {hidden} and {n_blocks}"
            )
        check_autoencoder(sizes, activation)
        check_fit(latents, start, iterations, sparsity)
        self.model, self.consistent = model, consistent
        self.latents, self.start = latents, start
        if not 0 < exponent <= 8:
            raise OssicleError(f"exponent must be above 0, at most 8, got {exponent}")
        self.iterations, self.sparsity, self.exponent = iterations, sparsity, exponent
        self.transform = AdaptiveTransform(
            n_filters, filter_length, hop_length, smoothing, tied, filters
        )
        self.network: ModulatorNetwork | None = None
        self.autoencoders: nn.ModuleList | None = None
        if model == "network":
            self.network = ModulatorNetwork(n_filters, len(sources), hidden, n_blocks, estimate)
        else:
            self.autoencoders = nn.ModuleList(
                [Autoencoder(n_filters, sizes, activation) for _ in sources]
            )
        self.gains: Tensor
        self.register_buffer("gains", torch.ones(len(sources)))

    def modulators(self, modulator: Tensor) -> Tensor:
        """Of the sources in a mixture: (B, D, T) -> (B, S, D, T)."""
        if self.network is not None:
            found: Tensor = self.network(modulator)
            return found
        return torch.stack([self._fitted(item) for item in modulator])

    def _fitted(self, modulator: Tensor) -> Tensor:
        """(D, T) -> (S, D, T): the autoencoders' shares of the mixture's modulator."""
        parts = source_spectra(
            list(self.autoencoders),  # type: ignore[arg-type]
            modulator / frame_levels(modulator),
            latents=self.latents,
            start=self.start,
            iterations=self.iterations,
            sparsity=self.sparsity,
        )
        parts = (parts / parts.sum(0)) ** self.exponent
        return modulator * parts / parts.sum(0)

    def estimates(self, mixtures: Tensor) -> Tensor:
        """(B, N) -> (B, S, N), before gains and consistency."""
        scale = levels(mixtures)
        analysed = self.transform.analyse(mixtures / scale)
        modulator = self.transform.modulator(analysed)
        carrier = analysed / modulator
        found = self.modulators(modulator) * carrier[:, None]
        waves = self.transform.synthesise(found.flatten(0, 1), mixtures.shape[-1])
        return scale[:, None] * waves.unflatten(0, found.shape[:2])

    def reconstructions(self, stems: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the autoencoders make of their own sources, for training them.

        Each hears the modulator of its own stem alone. The shares of what they make of it, and not
        the waveform of each by itself, go to the mixture's carrier: a carrier gives back any
        waveform, however little its modulator says of it, and a transform that has only to give
        back waveforms unlearns what tells sources apart.

        Args:
            stems: (B, S, N).

        Returns:
            Waveforms (B, S, N); modulators (B, S, D, T), frames divided by `frame_levels`, and what
            the autoencoders make of them; latents (B, S, K, T).
        """
        mixtures = stems.sum(1)
        scale = levels(mixtures)
        analysed = self.transform.analyse((stems / scale[:, None]).flatten(0, 1))
        modulator = self.transform.modulator(analysed).unflatten(0, stems.shape[:2])
        level = frame_levels(modulator)
        own = modulator / level
        pairs = [model(own[:, s]) for s, model in enumerate(self.autoencoders or [])]
        made = torch.stack([output for output, _ in pairs], 1)
        latents = torch.stack([latent for _, latent in pairs], 1)
        parts = level * (made + EPS)
        # Modulator times carrier of the mixture is its analysis, the sum of those of the stems.
        whole = analysed.unflatten(0, stems.shape[:2]).sum(1, keepdim=True)
        carried = parts / parts.sum(1, keepdim=True) * whole
        waves = self.transform.synthesise(carried.flatten(0, 1), stems.shape[-1])
        return scale[:, None] * waves.unflatten(0, stems.shape[:2]), own, made, latents

    def separate(self, samples: Tensor, n_sources: int | None = None) -> Tensor:
        """(C, N) -> (S, C, N)."""
        self.count(n_sources)
        with torch.inference_mode():
            found = self.gains[:, None] * self.estimates(samples)
            if self.consistent:
                found = made_consistent(found, samples)
            return found.transpose(0, 1).contiguous()


def levels(samples: Tensor) -> Tensor:
    """(B, N) -> (B, 1): what each is divided by, so that the transform hears them equally loud."""
    rms = samples.square().mean(-1, keepdim=True).sqrt()
    return rms.clamp(min=_SILENCE) / _LEVEL


def made_consistent(estimates: Tensor, mixtures: Tensor) -> Tensor:
    """The nearest waveforms (least squares) that add up to the mixtures.

    Args:
        estimates: (B, S, N).
        mixtures: (B, N).
    """
    lacking = mixtures - estimates.sum(1)
    return estimates + lacking[:, None] / estimates.shape[1]


def _fourier_filters(n_filters: int, length: int, hop: int) -> Tensor:
    """(D, L) cosines, then sines, at the middles of D / 2 equal bands, under a sine window.

    Scaled so that the transposed convolution gives back what was analysed, where D >= L: the sum
    over bands of cos(w (n - m)) is 0 but for n = m, and the squared windows add up to L / (2 hop).
    """
    place = torch.arange(length, dtype=torch.float64)
    bands = torch.arange(n_filters // 2, dtype=torch.float64)
    phase = math.pi * (bands[:, None] + 0.5) / (n_filters // 2) * place
    window = torch.sin(math.pi * (place + 0.5) / length)
    scale = math.sqrt(2 / n_filters * 2 * hop / length)
    return (scale * window * torch.cat([phase.cos(), phase.sin()])).float()


def _check_transform(n_filters: int, length: int, hop: int, smoothing: int) -> None:
    if not 2 <= n_filters <= MAX_FILTERS or n_filters % 2:
        raise OssicleError(f"n_filters must be even, 2 to {MAX_FILTERS}, got {n_filters}")
    if hop < 1 or not 2 * hop <= length <= MAX_LENGTH or length % hop:
        raise OssicleError(
            f"filters of {length} samples every {hop}: the length must be a multiple of the hop, "
            f"twice it at least, and {MAX_LENGTH} at most"
        )
    if not 1 <= smoothing <= 999 or smoothing % 2 == 0:
        raise OssicleError(f"smoothing must be an odd number of frames, got {smoothing}")
