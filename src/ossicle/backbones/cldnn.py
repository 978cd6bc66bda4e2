"""The raw-waveform CLDNN: filters that are learned, starting from the ear's.

Sainath et al. 2015 ("Learning the speech front-end with raw waveform CLDNNs"): convolution in
time, convolution over frequency, linear reduction, LSTMs, a dense layer. With several microphones
the first layer filters each and sums: a beamformer that is learned (Hoshen et al. 2015, "Speech
acoustic modeling from raw multichannel waveforms"). B batch, C channels, F bands, N samples,
T frames of 10 ms.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ossicle.backbones.base import Backbone, LayerInfo
from ossicle.backbones.gammatone import erb_centres_hz, gammatone_filters
from ossicle.backbones.layers import draw_recurrent_weights, he_normal_
from ossicle.errors import OssicleError

SAMPLE_RATE = 16_000
FILTERS = 40
FILTER_LENGTH = 400  # 25 ms
WINDOW = 560  # 35 ms
HOP = 160  # 10 ms
# Edges of YAMNet's mel bands: a comparison with log-mels is then not one of bandwidths.
FMIN_HZ, FMAX_HZ = 125.0, 7_500.0
FLOOR = 0.01  # added before the logarithm
KERNEL_BANDS = 8  # of the convolution over frequency
POOL_BANDS = 3


class TimeConvolution(nn.Module):
    """log(relu(max over a window of the filtered waveform) + 0.01): (B, C, N) -> (B, F, T).

    Each of the F filters has one impulse response a channel; the outputs of the channels are
    summed. Within a window of 35 ms a filter of 25 ms has 161 places, and the greatest output is
    kept, so that the phase of a tone does not matter. T = max(1, N // hop): window t is centred on
    samples t * hop to (t + 1) * hop, with zeros beyond both ends.

    Args:
        channels: C, microphones.
        filters: F.
        length: of a filter, samples.
        window: over which the maximum is taken, samples; at least ``length`` and ``hop``.
        hop: from one window to the next, samples.
    """

    def __init__(
        self,
        channels: int = 1,
        filters: int = FILTERS,
        length: int = FILTER_LENGTH,
        window: int = WINDOW,
        hop: int = HOP,
    ) -> None:
        super().__init__()
        self.window, self.hop = window, hop
        self.conv = nn.Conv1d(channels, filters, length, bias=False)
        self.set_gammatones()

    def set_gammatones(self) -> None:
        """Gammatones on an ERB scale; with several channels, their mean goes into each filter."""
        filters, channels, length = self.conv.weight.shape
        responses = gammatone_filters(
            erb_centres_hz(filters, FMIN_HZ, FMAX_HZ), SAMPLE_RATE, length
        )
        # torch correlates; turned round in time, weights are what a convolution filters with.
        weight = torch.from_numpy(responses[:, None, ::-1] / channels)
        with torch.no_grad():
            self.conv.weight.copy_(weight.expand_as(self.conv.weight))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, N) -> (B, F, max(1, N // hop)).

        Raises:
            OssicleError: another number of channels than the filters have.
        """
        channels = self.conv.in_channels
        if x.shape[1] != channels:
            raise OssicleError(
                f"the network filters {channels} channels, the waveform has {x.shape[1]}: pass "
                f"(B, {channels}, N) to it, or build it with channels={x.shape[1]}"
            )
        before = (self.window - self.hop) // 2
        frames = max(1, x.shape[-1] // self.hop)
        after = self.window + (frames - 1) * self.hop - before - x.shape[-1]
        x = F.pad(x, (before, after))
        # An exported graph must not depend on the number of blocks, and there are no Fourier
        # transforms of half precision.
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if traced or x.dtype not in (torch.float32, torch.float64):
            y = self._greatest(self.conv(x))
        else:
            y = self._in_blocks(x, frames)
        return (F.relu(y) + FLOOR).log()

    def _greatest(self, y: Tensor) -> Tensor:
        """(B, F, places) -> (B, F, T): the maximum over the places within each window."""
        return F.max_pool1d(y, self.window - self.conv.kernel_size[0] + 1, self.hop)

    def _in_blocks(self, x: Tensor, frames: int) -> Tensor:
        """The same as ``_greatest(conv(x))`` by Fourier transforms, a block of frames at a time.

        Faster on a CPU, in inference and in training, and it holds the outputs of one block.
        """
        n_fft = 2 ** math.ceil(math.log2(4 * self.window))
        step = (n_fft - self.window) // self.hop + 1
        filters = torch.fft.rfft(self.conv.weight, n_fft).conj()  # conjugate: a correlation
        length = self.conv.kernel_size[0]
        parts = []
        for first in range(0, frames, step):
            last = min(first + step, frames) - 1
            part = x[..., first * self.hop : last * self.hop + self.window]
            spectra = torch.einsum("bck,fck->bfk", torch.fft.rfft(part, n_fft), filters)
            # Places further on have run round the end of the transform.
            y = torch.fft.irfft(spectra, n_fft)[..., : part.shape[-1] - length + 1]
            parts.append(self._greatest(y))
        return torch.cat(parts, -1)


class FrameLSTM(nn.Module):
    """A recurrent layer that runs forwards: (B, T, C) -> (B, T, H)."""

    def __init__(self, in_channels: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(in_channels, hidden, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, H)."""
        return self.lstm(x)[0]


class CLDNN(Backbone):
    """Waveform to features: (B, C, N) -> tconv, fconv, linear, LSTMs and dnn, T = max(1, N // 160).

    The structure is the paper's, and so are the sizes of the first layer; those of the others are
    ours, for networks that train on little sound.

    Args:
        channels: microphones. A ``Model`` reads mono; with more, call the network itself with
            (B, channels, N).
        fconv: C of the convolution over frequency.
        linear: C that the linear layer leaves of its channels and bands.
        lstm: C of the recurrent layers.
        lstm_layers: how many.
        dnn: C of the dense layer.
    """

    frontend: ClassVar[dict[str, Any]] = {"name": "waveform", "sample_rate": SAMPLE_RATE}
    # 35 ms are the samples of one window.
    clip: ClassVar[dict[str, Any]] = {"window_s": 10.0, "min_s": 0.035, "fill": "none"}
    source: ClassVar[str] = "Sainath et al. 2015, Interspeech, pages 1-5; no weights"
    # Gammatones are not drawn: with random weights too this layer is the same for every seed.
    seedless_layers: ClassVar[tuple[str, ...]] = ("tconv",)

    def __init__(
        self,
        channels: int = 1,
        fconv: int = 128,
        linear: int = 256,
        lstm: int = 256,
        lstm_layers: int = 2,
        dnn: int = 256,
    ) -> None:
        super().__init__()
        self._config = {
            "channels": channels,
            "fconv": fconv,
            "linear": linear,
            "lstm": lstm,
            "lstm_layers": lstm_layers,
            "dnn": dnn,
        }
        bands = (FILTERS - KERNEL_BANDS + 1) // POOL_BANDS
        self.tconv = TimeConvolution(channels)
        self.fconv = nn.Sequential(
            nn.Conv2d(1, fconv, (KERNEL_BANDS, 1)),
            nn.ReLU(inplace=True),
            nn.MaxPool2d((POOL_BANDS, 1)),
        )
        self.linear = nn.Linear(fconv * bands, linear)
        self.lstms = nn.ModuleDict(
            {
                f"lstm{number}": FrameLSTM(linear if number == 1 else lstm, lstm)
                for number in range(1, lstm_layers + 1)
            }
        )
        self.dnn = nn.Sequential(nn.Linear(lstm if lstm_layers else linear, dnn), nn.ReLU())
        self.feature_info = (
            LayerInfo("tconv", 1, FILTERS, HOP),
            LayerInfo("fconv", fconv, bands, HOP),
            LayerInfo("linear", linear, 0, HOP),
            *(LayerInfo(name, lstm, 0, HOP) for name in self.lstms),
            LayerInfo("dnn", dnn, 0, HOP),
        )

    def config(self) -> dict[str, Any]:
        """Keyword arguments that rebuild the network; JSON values."""
        return dict(self._config)

    def draw_weights(self, generator: torch.Generator) -> None:
        """He's and ``draw_recurrent_weights``, but gammatones in the first layer.

        What is drawn does not depend on the number of channels.
        """
        self.tconv.set_gammatones()
        for part in (self.fconv, self.linear, self.lstms, self.dnn):
            he_normal_(part, generator)
            draw_recurrent_weights(part, generator)

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, C, N) -> tconv (B, 1, 40, T), fconv (B, C', 11, T), the others (B, C', T).

        Raises:
            OssicleError: another number of channels than the network was built with.
        """
        maps: OrderedDict[str, Tensor] = OrderedDict()
        maps["tconv"] = self.tconv(x).unsqueeze(1)
        maps["fconv"] = self.fconv(maps["tconv"])
        x = self.linear(maps["fconv"].permute(0, 3, 1, 2).flatten(2))  # (B, T, C)
        maps["linear"] = x.transpose(1, 2)
        for name, layer in self.lstms.items():
            x = layer(x)
            maps[name] = x.transpose(1, 2)
        maps["dnn"] = self.dnn(x).transpose(1, 2)
        return maps
