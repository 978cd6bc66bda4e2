"""How each kind of encoder in the transformers library is fed, and what its maps are.

B batch, N samples, C channels, F' bands, T' frames. ``encoder.maps(network, waveform)`` takes
(B, N) and gives every layer; frames that stand for padding are left out, so that nothing but the
clip is pooled.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ossicle.backbones.base import LayerInfo
from ossicle.backbones.hf_frontend import (
    FRAME,
    HOP,
    MAX_WINDOW_SAMPLES,
    clap_bands,
    clap_window,
    kaldi_bands,
    normalised,
    read_settings,
    whisper_bands,
)
from ossicle.errors import OssicleError

# Networks that take any length: what they see at once, in seconds. Attention costs its square.
WAVE_WINDOW_S = 30.0
# What a module gave last, in each thread: the folded copy is shared by threads.
_HEARD = threading.local()


class Encoder(nn.Module):
    """A way to feed a network and to read it.

    Attributes:
        settings: of the preprocessor, as ``read_settings`` gives them.
        window_s: the longest stretch that the network takes, in seconds.
        min_s: the shortest, in seconds.
        feature_info: of the layers; ``stride`` counts samples.
        poolings: that suit them.
    """

    settings: dict[str, Any]
    window_s: float
    min_s: float
    feature_info: tuple[LayerInfo, ...]
    poolings: tuple[str, ...] = ("mean", "max")

    def attach(self, network: nn.Module) -> None:
        """Prepare the network once, where that is needed."""

    def maps(self, network: nn.Module, waveform: Tensor) -> OrderedDict[str, Tensor]:
        """(B, N) -> {layer: (B, C, T') or (B, C, F', T')}, shallow to deep."""
        raise NotImplementedError

    def named(self, maps: list[Tensor]) -> OrderedDict[str, Tensor]:
        """The maps under the names of ``feature_info``."""
        names = [info.name for info in self.feature_info]
        return OrderedDict(zip(names, maps, strict=True))


def _keep(module: nn.Module, arguments: Any, output: Tensor) -> None:
    _HEARD.output = output


def _names(count: int) -> list[str]:
    """Of the hidden states: what enters the first block, and what leaves each."""
    return ["embedding", *(f"block{i}" for i in range(1, count + 1))]


class WaveEncoder(Encoder):
    """wav2vec 2.0 and its kin: convolutions on samples, then attention over any length."""

    def __init__(self, config: Any, preprocessor: dict[str, Any]) -> None:
        super().__init__()
        self.settings = read_settings("wave", preprocessor)
        rate = self.settings["sampling_rate"]
        stride, least = math.prod(config.conv_stride), 1
        for kernel, step in zip(config.conv_kernel[::-1], config.conv_stride[::-1], strict=True):
            least = (least - 1) * step + kernel
        self.window_s, self.min_s = max(WAVE_WINDOW_S, least / rate), least / rate
        info = [LayerInfo("conv", config.conv_dim[-1], 0, stride)]
        names = _names(config.num_hidden_layers)
        info += [LayerInfo(name, config.hidden_size, 0, stride) for name in names]
        self.feature_info = tuple(info)

    def attach(self, network: nn.Module) -> None:
        """Listen to the convolutions, which the network does not hand out."""
        network.feature_extractor.register_forward_hook(_keep)  # type: ignore[union-attr, operator]

    def maps(self, network: nn.Module, waveform: Tensor) -> OrderedDict[str, Tensor]:
        """(B, N) -> {layer: (B, C, T')}, T' = (N - least) // stride + 1."""
        if self.settings["do_normalize"]:
            waveform = normalised(waveform)
        output = network(waveform, output_hidden_states=True, return_dict=True)
        conv, _HEARD.output = _HEARD.output, None
        return self.named([conv, *(state.mT for state in output.hidden_states)])


class ASTEncoder(Encoder):
    """Audio Spectrogram Transformer: patches of a picture of fixed length, and two tokens more."""

    poolings = ("mean", "max", "band")

    def __init__(self, config: Any, preprocessor: dict[str, Any]) -> None:
        super().__init__()
        self.settings = read_settings("ast", preprocessor)
        self.n_frames, self.patch, self.step = (
            config.max_length,
            config.patch_size,
            config.time_stride,
        )
        if self.settings["num_mel_bins"] != config.num_mel_bins:
            raise OssicleError("network and preprocessor differ in num_mel_bins")
        rate = self.settings["sampling_rate"]
        self.window_s = ((self.n_frames - 1) * HOP + FRAME) / rate
        self.min_s = FRAME / rate
        self.bands = (config.num_mel_bins - self.patch) // config.frequency_stride + 1
        self.columns = (self.n_frames - self.patch) // self.step + 1
        width, names = config.hidden_size, _names(config.num_hidden_layers)
        info = [LayerInfo(name, width, self.bands, self.step * HOP) for name in names]
        # Its stride is the window: one frame, whatever the clip.
        info.append(LayerInfo("pooled", width, 0, self.n_frames * HOP))
        self.feature_info = tuple(info)
        self.ears = kaldi_bands(self.settings)
        # What stands where the clip has ended: 0, scaled as the rest.
        silence = -self.settings["mean"] / (2 * self.settings["std"])
        self.silence = silence if self.settings["do_normalize"] else 0.0

    def maps(self, network: nn.Module, waveform: Tensor) -> OrderedDict[str, Tensor]:
        """(B, N) -> {layer: (B, C, F', T')} and "pooled", the mean of both tokens, (B, C, 1).

        T' counts the patches whose middle lies in the clip.
        """
        picture = self.ears(waveform)[:, 0, :, : self.n_frames]
        frames = picture.shape[-1]
        picture = functional.pad(picture, (0, self.n_frames - frames), value=self.silence)
        output = network(picture.mT, output_hidden_states=True, return_dict=True)
        own = min(max(-(-(frames - self.patch // 2) // self.step), 1), self.columns)
        maps = [
            state[:, 2:].mT.unflatten(-1, (self.bands, self.columns))[..., :own]
            for state in output.hidden_states
        ]
        return self.named([*maps, output.pooler_output.unsqueeze(-1)])


class WhisperEncoder(Encoder):
    """Whisper's encoder: 30 s, the rest of them silence."""

    def __init__(self, config: Any, preprocessor: dict[str, Any]) -> None:
        super().__init__()
        self.settings = read_settings("whisper", preprocessor)
        if self.settings["feature_size"] != config.num_mel_bins:
            raise OssicleError("network and preprocessor differ in the number of bands")
        hop, rate = self.settings["hop_length"], self.settings["sampling_rate"]
        # The second convolution halves the frames.
        self.stride = 2 * hop
        self.n_samples = self.stride * config.max_source_positions
        if self.n_samples > MAX_WINDOW_SAMPLES:
            raise OssicleError("max_source_positions is out of any real range")
        self.window_s, self.min_s = self.n_samples / rate, 1 / rate
        names = _names(config.encoder_layers)
        self.feature_info = tuple(LayerInfo(n, config.d_model, 0, self.stride) for n in names)
        self.ears = whisper_bands(self.settings)

    def maps(self, network: nn.Module, waveform: Tensor) -> OrderedDict[str, Tensor]:
        """(B, N) -> {layer: (B, C, T')}, T' = ceil(N / stride): those of the clip alone."""
        own = max(1, -(-waveform.shape[1] // self.stride))
        waveform = functional.pad(waveform, (0, self.n_samples - waveform.shape[1]))
        picture = self.ears(waveform)[:, 0, :, :-1]
        output = network(picture, output_hidden_states=True, return_dict=True)
        return self.named([state[:, :own].mT for state in output.hidden_states])


class CLAPEncoder(Encoder):
    """CLAP's audio encoder (HTSAT): a picture folded four times, stages of half the size each."""

    poolings = ("mean", "max", "band")

    def __init__(self, config: Any, preprocessor: dict[str, Any]) -> None:
        super().__init__()
        self.settings = read_settings("clap", preprocessor)
        rate, hop = self.settings["sampling_rate"], self.settings["hop_length"]
        if self.settings["feature_size"] != config.num_mel_bins:
            raise OssicleError("network and preprocessor differ in the number of bands")
        if self.settings["padding"] not in ("repeatpad", "repeat", "pad"):
            raise OssicleError(f"preprocessor: unknown padding {self.settings['padding'][:40]!r}")
        self.n_samples = int(self.settings["max_length_s"] * rate)
        self.window_s, self.min_s = self.n_samples / rate, 1 / rate
        self.fused = config.enable_fusion
        # Time is cut in so many pieces, which lie one below the other.
        self.folds = config.spec_size // config.num_mel_bins
        patch = config.patch_stride
        rows, columns = (patch, patch) if isinstance(patch, int) else patch
        bands = config.spec_size // rows // self.folds
        frames = config.spec_size // columns * self.folds
        if self.n_samples // hop + 1 > config.spec_size * self.folds:
            raise OssicleError("the preprocessor's window is longer than the network's")
        width, info = config.patch_embeds_hidden_size, []
        names = ["patches", *(f"stage{i}" for i in range(1, len(config.depths) + 1))]
        for i, name in enumerate(names):
            # Every stage but the last halves both sides at its end.
            halved = min(i, len(config.depths) - 1)
            parts = frames >> halved
            info.append(LayerInfo(name, width << halved, bands >> halved, self.n_samples // parts))
        info.append(LayerInfo("pooled", config.hidden_size, 0, self.n_samples))
        info.append(LayerInfo("projection", config.projection_dim, 0, self.n_samples))
        self.feature_info = tuple(info)
        self.ears = clap_bands(self.settings)

    def maps(self, network: nn.Module, waveform: Tensor) -> OrderedDict[str, Tensor]:
        """(B, N) -> {stage: (B, C, F', T')}, "pooled" and "projection" (B, C, 1).

        T' counts the frames of the clip, not those of its repetitions.
        """
        share = waveform.shape[1] / self.n_samples
        picture = self.ears(clap_window(waveform, self.n_samples, self.settings["padding"])).mT
        longer = torch.zeros(len(waveform), 1, dtype=torch.bool, device=waveform.device)
        # No part is longer than the window, which is when fusion would look at several crops.
        output = network.audio_model(  # type: ignore[operator]
            input_features=picture.expand(-1, 4 if self.fused else 1, -1, -1),
            is_longer=longer,
            output_hidden_states=True,
            return_dict=True,
        )
        maps = []
        for state in output.hidden_states:
            # (B, C, pieces x F', T'' of a piece): the pieces side by side again.
            unfolded = state.unflatten(2, (self.folds, -1)).transpose(2, 3).flatten(3)
            own = min(max(1, math.ceil(unfolded.shape[-1] * share)), unfolded.shape[-1])
            maps.append(unfolded[..., :own])
        pooled = output.pooler_output
        embedding = network.audio_projection(pooled)  # type: ignore[operator]
        return self.named([*maps, pooled.unsqueeze(-1), embedding.unsqueeze(-1)])
