"""The partitioned autoencoder: learns what is foreground without having heard any alone.

Stowell and Turner 2015 (arXiv 1509.05982): an autoencoder of spectrograms whose latents are split
in two sets. Where a recording is known to be noise alone, the foreground's set is pressed to zero;
the background's set must then carry the noise, everywhere. Without the background's latents, what
is decoded is the foreground.

Symbols beside those of `base`: B bands, K latents, P frames after pooling.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ossicle.errors import OssicleError
from ossicle.separators.base import MaskSeparator
from ossicle.separators.spectral_gate import SpectralGate, check_floor

SCALES = ("linear", "mel", "erb")
COMPRESSIONS = ("none", "sqrt", "log")
OUTPUTS = ("mask", "decoded")
LEAK = 1 / 3  # "very leaky"
POOL = 2
# A band's level when whitening, at least this of the mean power of all: 50 dB below it.
FLATTEST = 1e-5
_TINY = 1e-12


class PartitionedAutoencoder(MaskSeparator):
    """An autoencoder along time of bands, with foreground and background latents.

    The defaults are the authors' network (danstowell/autoencoder-specgram): one convolution of 9
    frames that sees all bands, very leaky ReLU, the maximum of 2 frames kept with its place, one
    convolution back, ReLU. The input is normalised in each band and the output is not.

    Args:
        sample_rate: Hz.
        sources: names of foreground and background.
        n_fft, hop_length: of the Fourier transform, samples.
        n_bands: B; hats that overlap by half, so that they add up to 1 in every bin.
        scale: their centres lie evenly in Hz ("linear"), mel, or ERB rate: low sounds need finer
            bands than an even 350 Hz.
        f_min, f_max: Hz of the first and last centre; f_max 0: half the sample rate.
        compression: of a band's magnitude m: "none", "sqrt", or "log", log(1 + 1000 m): without,
            the loudest band alone is learnt.
        n_foreground, n_background: K of each set.
        kernel: frames that a convolution sees, odd.
        depth: hidden convolutions of the encoder, each taking frames twice as far apart as the one
            before: to hear a second around, not 26 ms.
        width: channels of hidden convolutions.
        decoder_bias: with it no latents at all do not decode to silence.
        own_level: spectra are divided by the stretch's root mean square first, so that loudness is
            no matter; decoded bands are in those units.
        whiten: if above 0, each band is divided by the level that this share of its frames in the
            stretch does not reach, so that noises of any colour and loudness look alike, and what
            stands out is how far it stands out; decoded bands are in those units.
        quiet: if above 0, the network also hears how far (log) each band is above the level that
            this share of frames in it does not reach: what a gate knows.
        exponent: of magnitudes in a mask; 2 is Wiener's.
        gate: masks are multiplied by the opening of a stationary `SpectralGate` to the power of
            this; 0: by none. What stays below the noise of its own bin is not foreground, and bins
            are finer than bands.
        output: "mask": the foreground's decoding over both decodings, applied to the spectrum;
            "decoded": the foreground's decoding itself is the spectrum's magnitude in each band.
        floor_db: gain of a bin without foreground, for "mask".

    Attributes:
        band_mean, band_std: (B,) of the training data.
        hats: (B, F) the bands.

    Raises:
        OssicleError: a value is out of range.
    """

    def __init__(
        self,
        sample_rate: int = 22_050,
        sources: list[str] | None = None,
        n_fft: int = 128,
        hop_length: int = 64,
        n_bands: int = 32,
        scale: str = "linear",
        f_min: float = 0.0,
        f_max: float = 0.0,
        compression: str = "none",
        n_foreground: int = 3,
        n_background: int = 3,
        kernel: int = 9,
        depth: int = 0,
        width: int = 64,
        decoder_bias: bool = True,
        own_level: bool = False,
        whiten: float = 0.0,
        quiet: float = 0.0,
        exponent: float = 2.0,
        gate: float = 0.0,
        output: str = "mask",
        floor_db: float = -40.0,
    ) -> None:
        sources = ["foreground", "background"] if sources is None else sources
        super().__init__(sample_rate, sources, n_fft, hop_length)
        self.keep(locals())
        if len(sources) != 2:
            raise OssicleError(f"latents are split in two sets, got sources {sources}")
        _check(scale, SCALES, "scale")
        _check(compression, COMPRESSIONS, "compression")
        if min(n_bands, n_foreground, n_background, width) < 1 or depth < 0 or n_bands < 2:
            raise OssicleError("there must be two bands, and a latent and a channel, at least")
        if kernel < 1 or kernel % 2 == 0 or not (0 <= quiet < 1 and 0 <= whiten < 1):
            raise OssicleError("kernel must be odd, quiet and whiten at least 0 and below 1")
        top = f_max or sample_rate / 2
        if not 0 <= f_min < top <= sample_rate / 2:
            raise OssicleError(f"bands from {f_min} to {top} Hz do not fit {sample_rate} Hz")
        self.compression, self.exponent, self.quiet = compression, exponent, quiet
        self.own_level, self.whiten = own_level, whiten
        self.n_foreground, self.n_background = n_foreground, n_background
        self.output, self.floor_db, self.gate = output, floor_db, gate
        self._gate = SpectralGate(sample_rate, n_fft=n_fft, hop_length=hop_length)
        n_latents = n_foreground + n_background
        self.register_buffer("hats", _hats(sample_rate, n_fft, n_bands, scale, f_min, top))
        self.register_buffer("band_mean", torch.zeros(n_bands))
        self.register_buffer("band_std", torch.ones(n_bands))
        self.hats: Tensor
        self.band_mean: Tensor
        self.band_std: Tensor
        ears = n_bands * (2 if quiet else 1)
        self.encoder = nn.ModuleList(
            _convolution(ears if i == 0 else width, width, kernel, 2**i) for i in range(depth)
        )
        self.to_latents = _convolution(width if depth else ears, n_latents, kernel)
        # One convolution however deep the encoder is: what is decoded from both sets is then, but
        # for the last ReLU, the sum of what is decoded from each.
        self.to_bands = _convolution(n_latents, n_bands, kernel, bias=decoder_bias)

    @property
    def output(self) -> str:
        """ "mask" or "decoded"; may be set."""
        return self._output

    @output.setter
    def output(self, value: str) -> None:
        """Checked, and kept for the bundle."""
        _check(value, OUTPUTS, "output")
        self._output = self._keywords["output"] = value

    @property
    def exponent(self) -> float:
        """Of magnitudes in a mask; may be set."""
        return self._exponent

    @exponent.setter
    def exponent(self, value: float) -> None:
        """Checked, and kept for the bundle."""
        if not 0 < value < math.inf:
            raise OssicleError(f"exponent must be above 0, got {value}")
        self._exponent = self._keywords["exponent"] = float(value)

    @property
    def gate(self) -> float:
        """Power of the gate's opening in a mask; may be set."""
        return self._gate_power

    @gate.setter
    def gate(self, value: float) -> None:
        """Checked, and kept for the bundle."""
        if not 0 <= value < math.inf:
            raise OssicleError(f"gate must be at least 0, got {value}")
        self._gate_power = self._keywords["gate"] = float(value)

    @property
    def floor_db(self) -> float:
        """Gain of a bin without foreground, dB; may be set."""
        return self._floor_db

    @floor_db.setter
    def floor_db(self, value: float) -> None:
        """Checked, and kept for the bundle."""
        self._floor_db = check_floor(value)
        self._keywords["floor_db"] = float(value)

    def bands(self, spectrum: Tensor) -> Tensor:
        """(..., F, T) complex -> (..., B, T): root mean square magnitude in each band, compressed.

        Magnitudes are those of the transform over half its length: a full-scale sine is about 0.6.
        """
        weights = self.hats / self.hats.sum(-1, keepdim=True)
        power = (spectrum.abs() * (2 / self.fourier.n_fft)).square()
        if self.own_level:
            power = power / power.mean((-2, -1), keepdim=True).clamp(min=_TINY)
        power = weights @ power
        if self.whiten:
            place = max(1, math.ceil(self.whiten * power.shape[-1]))
            level = power.kthvalue(place, dim=-1, keepdim=True).values
            # No more than the mean allows: where a band is silent now and then, all stands out.
            least = FLATTEST * power.mean((-2, -1), keepdim=True)
            power = power / torch.maximum(level, least).clamp(min=_TINY)
        magnitude = (power + _TINY).sqrt()
        if self.compression == "sqrt":
            return magnitude.sqrt()
        return (1000 * magnitude).log1p() if self.compression == "log" else magnitude

    def magnitudes(self, bands: Tensor) -> Tensor:
        """Undoes the compression of ``bands``."""
        if self.compression == "sqrt":
            return bands.square()
        # An untrained network may decode anything: beyond full scale by far there is no sound.
        return bands.clamp(max=20).expm1() / 1000 if self.compression == "log" else bands

    def encode(self, bands: Tensor) -> tuple[Tensor, Tensor]:
        """(b, B, T) -> latents (b, K, P) and where in time each maximum was (b, K, P)."""
        hidden = (bands - self.band_mean[:, None]) / self.band_std[:, None]
        if self.quiet:
            # The order statistic, without interpolation, which would sort at double the cost.
            place = max(1, math.ceil(self.quiet * bands.shape[-1]))
            # Above 0 even in digital silence, whose logarithm would outweigh all that sounds.
            above = torch.log(
                self.magnitudes(bands) + 1e-2 * self.magnitudes(self.band_mean[:, None])
            )
            level = above.kthvalue(place, dim=-1, keepdim=True).values
            hidden = torch.cat([hidden, above - level], 1)
        # The last frame twice, where there is no partner for it.
        hidden = F.pad(hidden, (0, bands.shape[-1] % POOL), mode="replicate")
        for i, layer in enumerate(self.encoder):
            new = F.leaky_relu(layer(hidden), LEAK)
            hidden = new if i == 0 else hidden + new
        hidden = F.leaky_relu(self.to_latents(hidden), LEAK)
        latents, places = F.max_pool1d(hidden, POOL, return_indices=True)
        return latents, places

    def decode(self, latents: Tensor, places: Tensor, n_frames: int) -> Tensor:
        """Latents (b, K, P) and their places -> bands (b, B, T), not negative."""
        hidden = F.max_unpool1d(latents, places, [POOL])
        return F.relu(self.to_bands(hidden))[..., :n_frames]

    def only(self, latents: Tensor, foreground: bool) -> Tensor:
        """Latents (b, K, P) with those of the other set at zero; the foreground's come first."""
        keep = torch.arange(latents.shape[1], device=latents.device) < self.n_foreground
        return latents * (keep == foreground)[:, None]

    def share(self, foreground: Tensor, background: Tensor) -> Tensor:
        """Bands (..., B, T) of both decodings -> the foreground's part (..., B, T) in [0, 1]."""
        ours = self.magnitudes(foreground) ** self.exponent
        theirs = self.magnitudes(background) ** self.exponent
        return ours / (ours + theirs + _TINY)

    def masks(self, spectrum: Tensor, n_sources: int) -> Tensor:
        """(F, T) complex64 -> (2, F, T) that add up to 1, in [0, 1] where ``output`` is "mask"."""
        bands = self.bands(spectrum)[None]
        latents, places = self.encode(bands)
        n_frames = bands.shape[-1]
        foreground = self.decode(self.only(latents, True), places, n_frames)
        if self.output == "decoded":
            # The ratio of levels, so that within a band the spectrum keeps its shape.
            gain = self.magnitudes(foreground) / self.magnitudes(bands).clamp(min=_TINY)
            gains = self.hats.T @ gain[0]
        else:
            background = self.decode(self.only(latents, False), places, n_frames)
            # The hats' sum is 1 up to rounding.
            gains = (self.hats.T @ self.share(foreground, background)[0]).clamp(0, 1)
            if self.gate:
                gains = gains * self._gate.opening(spectrum) ** self.gate
            floor = 10 ** (self.floor_db / 20)
            gains = floor + (1 - floor) * gains
        return torch.stack([gains, 1 - gains])


def _check(value: str, known: tuple[str, ...], name: str) -> None:
    if value not in known:
        raise OssicleError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def _convolution(
    channels: int, out: int, kernel: int, dilation: int = 1, bias: bool = True
) -> nn.Conv1d:
    return nn.Conv1d(
        channels, out, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=bias
    )


def _hats(
    sample_rate: int, n_fft: int, n_bands: int, scale: str, f_min: float, f_max: float
) -> Tensor:
    """(B, F) triangles between neighbouring centres; the outermost stay at 1 to the end.

    Raises:
        OssicleError: a band lies between two bins.
    """
    frequencies = np.arange(n_fft // 2 + 1) * sample_rate / n_fft
    warped = [_warp(np.asarray(f), scale) for f in (f_min, f_max, frequencies)]
    centres = np.linspace(float(warped[0]), float(warped[1]), n_bands)
    hats = np.stack([np.interp(warped[2], centres, row) for row in np.eye(n_bands)])
    # Low bands finer than the bins: what is wanted of each is its nearest bin.
    for band in np.flatnonzero(hats.sum(1) < 1e-3):
        nearest = np.abs(warped[2] - centres[band]).argmin()
        hats[band, nearest] = 1e-3
    hats /= hats.sum(0)
    return torch.from_numpy(hats.astype(np.float32))


def _warp(f: np.ndarray, scale: str) -> np.ndarray:
    if scale == "mel":
        return 2595 * np.log10(1 + f / 700)
    if scale == "erb":
        return 21.4 * np.log10(1 + 0.00437 * f)  # Glasberg and Moore 1990
    return f
