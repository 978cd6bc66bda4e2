"""Any audio encoder of the transformers library as a backbone: `hf:NAME_OR_DIR`.

The network is the library's own class, built from its configuration alone; nothing is looked up or
run from elsewhere. What it hears is computed here, from the settings of its preprocessor.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ossicle.backbones.base import Backbone
from ossicle.backbones.hf_encoders import (
    ASTEncoder,
    CLAPEncoder,
    Encoder,
    WaveEncoder,
    WhisperEncoder,
)
from ossicle.errors import OssicleError

INSTALL = 'needs the transformers library: pip install "ossicle[hf]"'
# Of a hostile configuration only memory and time would be eaten.
MAX_NUMBER, MAX_ITEMS, MAX_TEXT, MAX_BLOCKS = 1_000_000, 64, 100, 256
_BLOCKS = ("num_hidden_layers", "encoder_layers", "decoder_layers", "depths")
# Training's own: augmentation, blocks left out at random, and convolutions after the last block.
_OFF = {
    "apply_spec_augment": False,
    "layerdrop": 0.0,
    "encoder_layerdrop": 0.0,
    "add_adapter": False,
}


class Family(NamedTuple):
    """One kind of network.

    Attributes:
        network: its class, as MODULE:CLASS within ``transformers``.
        encoder: how it is fed and read.
        source: paper.
    """

    network: str
    encoder: type[Encoder]
    source: str


# model_type of the configuration -> what it is.
NETWORKS: dict[str, Family] = {
    "audio-spectrogram-transformer": Family(
        "models.audio_spectrogram_transformer:ASTModel",
        ASTEncoder,
        "AST, Gong et al. 2021, arXiv 2104.01778",
    ),
    "clap_audio_model": Family(
        "models.clap:ClapAudioModelWithProjection",
        CLAPEncoder,
        "CLAP, Wu et al. 2023, arXiv 2211.06687",
    ),
    "data2vec-audio": Family(
        "models.data2vec:Data2VecAudioModel",
        WaveEncoder,
        "data2vec, Baevski et al. 2022, arXiv 2202.03555",
    ),
    "hubert": Family(
        "models.hubert:HubertModel", WaveEncoder, "HuBERT, Hsu et al. 2021, arXiv 2106.07447"
    ),
    "unispeech": Family(
        "models.unispeech:UniSpeechModel",
        WaveEncoder,
        "UniSpeech, Wang et al. 2021, arXiv 2101.07597",
    ),
    "unispeech-sat": Family(
        "models.unispeech_sat:UniSpeechSatModel",
        WaveEncoder,
        "UniSpeech-SAT, Chen et al. 2021, arXiv 2110.05752",
    ),
    "wav2vec2": Family(
        "models.wav2vec2:Wav2Vec2Model",
        WaveEncoder,
        "wav2vec 2.0, Baevski et al. 2020, arXiv 2006.11477",
    ),
    "wavlm": Family(
        "models.wavlm:WavLMModel", WaveEncoder, "WavLM, Chen et al. 2021, arXiv 2110.13900"
    ),
    "whisper": Family(
        "models.whisper.modeling_whisper:WhisperEncoder",
        WhisperEncoder,
        "Whisper, Radford et al. 2022, arXiv 2212.04356",
    ),
}


class HFBackbone(Backbone):
    """A network of the transformers library: (B, 1, N) samples -> every hidden state.

    Args:
        config: ``model_type`` and the keywords of that type's configuration class.
        preprocessor: settings of its feature extractor.

    Raises:
        OssicleError: transformers is not installed, the type is none of ``NETWORKS``, or the
            values describe no network.
    """

    def __init__(self, config: dict[str, Any], preprocessor: dict[str, Any]) -> None:
        super().__init__()
        kind = config.get("model_type")
        if not isinstance(kind, str) or kind not in NETWORKS:
            raise OssicleError(unknown_type(kind))
        family = NETWORKS[kind]
        self._config = {"model_type": kind, **_checked(config, _fields(kind))}
        try:
            settings = _configuration(self._config)
            # Its tables are needed at once, also where weights are only to be shaped.
            with torch.device("cpu"):
                self.encoder = family.encoder(settings, dict(preprocessor))
            self.network = _network(kind, settings)
        except OssicleError as error:
            raise OssicleError(f"{kind}: {error}") from error
        except Exception as error:  # the library raises many kinds, some of them its own
            line = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()[:200]
            raise OssicleError(f"the configuration describes no {kind} ({line})") from error
        self.encoder.attach(self.network)
        self.feature_info = self.encoder.feature_info
        rate = self.encoder.settings["sampling_rate"]
        self.frontend = {"name": "waveform", "sample_rate": rate}  # type: ignore[misc]
        self.clip = {  # type: ignore[misc]
            "window_s": self.encoder.window_s,
            "min_s": self.encoder.min_s,
            "fill": "none",
        }
        self.poolings = self.encoder.poolings  # type: ignore[misc]
        self.source = family.source  # type: ignore[misc]

    def config(self) -> dict[str, Any]:
        """Keyword arguments that rebuild the network; JSON values."""
        return {"config": dict(self._config), "preprocessor": dict(self.encoder.settings)}

    def draw_weights(self, generator: torch.Generator) -> None:
        """Random weights as the library draws them for training from scratch."""
        seed = int(torch.randint(2**31, (), generator=generator))
        # The library draws from torch's own generator, which is the caller's.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = _network(self._config["model_type"], _configuration(self._config))
        self.network.load_state_dict(fresh.state_dict())

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, N) -> every layer's map, shallow to deep."""
        return self.encoder.maps(self.network, x.squeeze(1))


def require_transformers() -> Any:
    """The library.

    Raises:
        OssicleError: it is not installed.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise OssicleError(f"an hf: backbone {INSTALL}") from error


def unknown_type(kind: object) -> str:
    """What to say of a model type that is none of ``NETWORKS``."""
    return f"model type {ascii(kind)[:60]} is not one of those read here: {', '.join(NETWORKS)}"


def config_class(kind: str) -> Any:
    """The configuration class of a model type."""
    require_transformers()
    auto = importlib.import_module("transformers.models.auto.configuration_auto")
    return auto.CONFIG_MAPPING[kind]


def network_class(kind: str) -> Any:
    """The network's class of a model type."""
    require_transformers()
    module, _, name = NETWORKS[kind].network.partition(":")
    return getattr(importlib.import_module(f"transformers.{module}"), name)


def _fields(kind: str) -> set[str]:
    """Keywords of the type's own configuration: none that would load, run or look up anything."""
    base = importlib.import_module("transformers").PreTrainedConfig
    return set(config_class(kind).__dataclass_fields__) - set(base.__dataclass_fields__)


def _checked(config: Mapping[str, Any], fields: set[str]) -> dict[str, Any]:
    """The fields' values, all of them plain and in a real range; others are left out."""
    kept = {}
    for name, value in config.items():
        if name not in fields:
            continue
        items = list(value) if isinstance(value, list | tuple) else [value]
        plain = all(item is None or type(item) in (bool, int, float, str) for item in items)
        if not plain or len(items) > MAX_ITEMS:
            continue
        limit = MAX_BLOCKS if name in _BLOCKS else MAX_NUMBER
        for item in items:
            if isinstance(item, int | float) and not abs(item) <= limit:
                raise OssicleError(f"config: {name} is out of any real range")
            if isinstance(item, str) and len(item) > MAX_TEXT:
                raise OssicleError(f"config: {name} is out of any real range")
        kept[name] = items if isinstance(value, list | tuple) else value
    return {**kept, **{name: value for name, value in _OFF.items() if name in fields}}


def _configuration(config: Mapping[str, Any]) -> Any:
    keywords = {name: value for name, value in config.items() if name != "model_type"}
    return config_class(config["model_type"])(**keywords)


def _network(kind: str, settings: Any) -> nn.Module:
    """The library's network in float32; weights are what the current device makes of them."""
    network = network_class(kind)
    # Fused attention: the same numbers but for rounding, without a T x T matrix.
    attention = "sdpa" if network._supports_sdpa else "eager"
    return network._from_config(settings, attn_implementation=attention, dtype=torch.float32)
