"""Short-time Fourier transform: framing, window, magnitudes; and the front end of that name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ossicle.errors import OssicleError
from ossicle.frontend.base import FrontEnd, require_choice, require_positive
from ossicle.frontend.scaling import Reference, Scaling

# Periodic windows, the kind for spectral analysis: the sample after the last would be the first;
# and Hann's with both ends zero, with which some networks were trained.
WINDOWS: dict[str, Callable[..., Tensor]] = {
    "hann": torch.hann_window,
    "hamming": torch.hamming_window,
    "blackman": torch.blackman_window,
    "rectangular": lambda length, dtype: torch.ones(length, dtype=dtype),
    "hann_symmetric": partial(torch.hann_window, periodic=False),
}

# Bytes of a block's complex spectra. A block with its intermediate results stays in the
# processor's cache, and is reused by the allocator rather than handed back to the system: long
# clips are two to three times as fast as in one pass.
BLOCK_BYTES = 2**19


class Spectrogram(nn.Module):
    """Magnitudes to the ``power`` of the short-time Fourier transform, (B, N) -> (B, K, T).

    The frame is ``n_fft`` samples long with ``window_align`` "center" (librosa, torch: the
    window sits in the middle of it), and ``win_length`` samples with "left" (TensorFlow, Kaldi:
    zeros follow the window up to ``n_fft``). With ``center`` half a frame is added on both
    sides, as ``pad_mode`` says. With ``N' = max(N, 1)`` samples, ``+ 2 * (frame // 2)`` if
    ``center``, the number of frames is

        T = 1 + (max(N', frame) - frame) // hop_length

    so samples after the last full frame are dropped, and without ``center`` a clip shorter than
    one frame gets zeros at its end up to one frame.

    Args:
        n_fft: length of the transform, samples.
        win_length: length of the window, samples, at most ``n_fft``; None is ``n_fft``.
        hop_length: from one frame to the next, samples.
        power: 1.0 for magnitudes, 2.0 for powers.
        center: frame t is centred on sample ``t * hop_length``, otherwise it begins there.
        pad_mode: "constant" (zeros) or "reflect" (mirrored without repeating the end sample;
            a clip shorter than the padding is mirrored again and again, as NumPy does it).
        window: "hann", "hamming", "blackman" or "rectangular", all periodic, or "hann_symmetric".
        window_align: "center" or "left".
        bins: (first, end) of the bins to return; None is all ``n_fft // 2 + 1``.

    Raises:
        OssicleError: an argument is out of its range.
    """

    window: Tensor

    def __init__(
        self,
        *,
        n_fft: int,
        win_length: int | None,
        hop_length: int,
        power: float,
        center: bool,
        pad_mode: str,
        window: str,
        window_align: str,
        bins: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        win_length = n_fft if win_length is None else win_length
        require_positive(n_fft=n_fft, win_length=win_length, hop_length=hop_length)
        if win_length > n_fft:
            raise OssicleError(f"win_length {win_length} is longer than n_fft {n_fft}")
        require_choice("power", power, (1.0, 2.0))
        require_choice("pad_mode", pad_mode, ("constant", "reflect"))
        require_choice("window", window, tuple(WINDOWS))
        require_choice("window_align", window_align, ("center", "left"))
        self.n_fft = n_fft
        self.win_length = win_length
        self.hop_length = hop_length
        self.power = power
        self.pad_mode = pad_mode
        self.first_bin, self.end_bin = bins or (0, n_fft // 2 + 1)
        self.frame_length = n_fft if window_align == "center" else win_length
        # Zeros before the window only turn the phases; to start at the window leaves magnitudes.
        self.lead = (self.frame_length - win_length) // 2
        self.trail = self.frame_length - win_length - self.lead
        self.pad = self.frame_length // 2 if center else 0
        self.block_frames = max(1, BLOCK_BYTES // (8 * (n_fft // 2 + 1)))
        # Made in float64: the error of a float32 cosine would show in the window's sidelobes.
        values = WINDOWS[window](win_length, dtype=torch.float64)
        self.register_buffer("window", values.float(), persistent=False)

    def num_frames(self, n_samples: int) -> int:
        """T for N = ``n_samples``, by the formula above."""
        padded = max(n_samples, 1) + 2 * self.pad
        return 1 + (max(padded, self.frame_length) - self.frame_length) // self.hop_length

    def forward(
        self, waveform: Tensor, project: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """(B, N) float32 -> (B, K, T), or what ``project`` makes of it.

        Args:
            waveform: (B, N).
            project: a map (b, K, t) -> (b, F, t) that treats each frame on its own. It is called
                on blocks of frames, so that the whole (B, K, T) need never exist.
        """
        # An exported graph has no lengths to loop over, and other devices no small cache.
        whole = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if not whole and len(waveform) == 0:  # which the Fourier transform refuses
            return self(waveform.new_zeros(1, waveform.shape[1]), project)[:0]
        waveform = self._padded(waveform)
        if whole or waveform.device.type != "cpu":
            return self._block(waveform, project)
        step = self.block_frames * self.hop_length
        length = step - self.hop_length + self.frame_length
        last_start = waveform.shape[1] - self.frame_length
        # Blocks never span two items: the arithmetic of an item is the same in every batch.
        items = [
            [self._block(item[:, i : i + length], project) for i in range(0, last_start + 1, step)]
            for item in waveform.split(1)
        ]
        joined = [torch.cat(blocks, dim=-1) if len(blocks) > 1 else blocks[0] for blocks in items]
        return torch.cat(joined) if len(joined) > 1 else joined[0]

    def _padded(self, waveform: Tensor) -> Tensor:
        """Add the padding, and zeros at the end up to one frame."""
        if waveform.shape[1] == 0:
            waveform = functional.pad(waveform, (0, 1))
        n_samples = waveform.shape[1]
        if self.pad and self.pad_mode == "reflect":
            if n_samples > self.pad:
                waveform = functional.pad(waveform, (self.pad, self.pad), mode="reflect")
            else:
                # A mirrored signal has the period 2 (N - 1).
                index = torch.arange(-self.pad, n_samples + self.pad, device=waveform.device)
                index = index.remainder(max(2 * (n_samples - 1), 1))
                index = torch.minimum(index, 2 * (n_samples - 1) - index)
                waveform = waveform[:, index]
        elif self.pad:
            waveform = functional.pad(waveform, (self.pad, self.pad))
        if waveform.shape[1] < self.frame_length:
            waveform = functional.pad(waveform, (0, self.frame_length - waveform.shape[1]))
        return waveform

    def _block(self, waveform: Tensor, project: Callable[[Tensor], Tensor] | None) -> Tensor:
        """Every full frame of (b, n) padded samples, -> (b, K, t)."""
        frames = waveform[:, self.lead : waveform.shape[1] - self.trail]
        frames = frames.unfold(-1, self.win_length, self.hop_length)
        spectra = torch.view_as_real(torch.fft.rfft(frames * self.window, n=self.n_fft))
        # Squares, sum and root are three times as fast as the modulus of complex numbers.
        squares = spectra[..., self.first_bin : self.end_bin, :].square()
        x = squares[..., 0] + squares[..., 1]
        if self.power == 1.0:
            if x.requires_grad:
                x = x.clamp(min=1e-30)  # the root's slope at 0 is infinite
            x = x.sqrt()
        x = x.transpose(-1, -2)
        return x.contiguous() if project is None else project(x)


class STFT(FrontEnd):
    """Spectrogram with all bins, (B, N) -> (B, 1, n_fft // 2 + 1, T).

    Args:
        sample_rate: Hz.
        n_fft: length of the transform, samples.
        win_length: length of the window, samples; None is ``n_fft``.
        hop_length: from one frame to the next, samples.
        power: 1.0 for magnitudes, 2.0 for powers.
        scaling, offset, reference, top_db, a_weighting, standardise_per_frequency,
            standardise_per_sample, scale: see ``Scaling``.
        center, pad_mode, window, window_align: see ``Spectrogram``, also for the number of
            frames and for short clips.

    Raises:
        OssicleError: an argument is out of its range.
    """

    def __init__(
        self,
        sample_rate: int,
        n_fft: int = 512,
        win_length: int | None = None,
        hop_length: int = 256,
        power: float = 2.0,
        scaling: str = "db",
        offset: float = 1e-10,
        reference: Reference = "max",
        top_db: float | None = 80.0,
        a_weighting: bool = False,
        standardise_per_frequency: bool = False,
        standardise_per_sample: bool = False,
        scale: float = 1.0,
        center: bool = True,
        pad_mode: str = "constant",
        window: str = "hann",
        window_align: str = "center",
    ) -> None:
        super().__init__(locals())
        self.spectrogram = Spectrogram(
            n_fft=n_fft,
            win_length=win_length,
            hop_length=hop_length,
            power=power,
            center=center,
            pad_mode=pad_mode,
            window=window,
            window_align=window_align,
        )
        self.hop_s = hop_length / sample_rate
        self.n_bands = n_fft // 2 + 1
        self.frequencies = np.arange(self.n_bands) * (sample_rate / n_fft)
        self.rescale = Scaling(
            self.frequencies,
            power=power,
            scaling=scaling,
            offset=offset,
            reference=reference,
            top_db=top_db,
            a_weighting=a_weighting,
            standardise_per_frequency=standardise_per_frequency,
            standardise_per_sample=standardise_per_sample,
            scale=scale,
        )

    def num_frames(self, n_samples: int) -> int:
        """T for N = ``n_samples``: see ``Spectrogram``."""
        return self.spectrogram.num_frames(n_samples)

    def transform(self, waveform: Tensor) -> Tensor:
        """(B, N) float32 -> (B, n_fft // 2 + 1, T)."""
        return self.rescale(self.spectrogram(waveform))
