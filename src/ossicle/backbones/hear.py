"""Any module with the API of the HEAR benchmark as a backbone: `hear:MODULE` or `hear:MODULE:FILE`.

The API (Turian et al. 2022, "HEAR: Holistic Evaluation of Audio Representations",
arXiv 2203.03022, section 3): ``load_model``, ``get_timestamp_embeddings`` and
``get_scene_embeddings``. The module is Python code that the user has installed and names; a bundle
cannot carry it.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections import OrderedDict
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ossicle.backbones.base import Backbone, LayerInfo
from ossicle.errors import BundleError, OssicleError

FUNCTIONS = ("load_model", "get_timestamp_embeddings", "get_scene_embeddings")
SIZES = ("sample_rate", "timestamp_embedding_size", "scene_embedding_size")
# Long enough for any module; noise, as silence may be a special case.
CHECK_S = 2.0
# Nothing says that such code may run in several threads at once.
_LOCK = threading.Lock()


class HEARBackbone(Backbone):
    """A HEAR module's model: (B, 1, N) -> "timestamp" (B, D, T') and "scene" (B, D', 1).

    Its weights are its own and stay as they are, in evaluation.

    Args:
        module: with the three functions.
        model: what its ``load_model`` gave.

    Raises:
        OssicleError: the module or its model is not what the API asks for.
    """

    clip: ClassVar[dict[str, Any]] = {"window_s": 30.0, "min_s": 1.0, "fill": "none"}
    poolings: ClassVar[tuple[str, ...]] = ("mean", "max")

    def __init__(self, module: ModuleType, model: nn.Module) -> None:
        super().__init__()
        self.module, self.model = module, model
        name = module.__name__
        sizes = []
        for size in SIZES:
            value: Any = getattr(model, size, None)
            if type(value) is not int or value < 1:
                raise OssicleError(f"hear:{name}: its model's {size} is {value!r}, not a size")
            sizes.append(value)
        rate, self.timestamp_size, self.scene_size = sizes
        self.frontend = {  # type: ignore[misc]
            "name": "waveform",
            "sample_rate": rate,
        }
        self.source = f"HEAR module {name}"  # type: ignore[misc]
        self.model.eval().requires_grad_(False)
        noise = torch.rand(1, round(CHECK_S * rate), generator=_generator()) - 0.5
        with torch.no_grad():
            timestamps = self._timestamps(noise.to(_device(model)))[1]
            self._scene(noise.to(_device(model)))
        hop_ms = float(timestamps.double().diff(dim=1).mean()) if timestamps.shape[1] > 1 else 0.0
        if timestamps.shape[1] > 1 and not hop_ms > 0:
            raise OssicleError(f"hear:{name}: its timestamps do not rise")
        stride = round(hop_ms * rate / 1000) or noise.shape[1]
        self.feature_info = (
            LayerInfo("timestamp", self.timestamp_size, 0, stride),
            LayerInfo("scene", self.scene_size, 0, noise.shape[1]),
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> HEARBackbone:
        """A copy that shares the model: what others' code makes of a copied one is not known."""
        copied = HEARBackbone.__new__(HEARBackbone)
        nn.Module.__init__(copied)
        own = {name: value for name, value in self.__dict__.items() if not name.startswith("_")}
        # Not a child, so that nothing is folded into it or laid out anew.
        copied.__dict__.update(own, model=self.model, training=False)
        return copied

    def train(self, mode: bool = True) -> HEARBackbone:
        """The model stays in evaluation."""
        super().train(mode)
        self.model.eval()
        return self

    def config(self) -> dict[str, Any]:
        """There is none.

        Raises:
            BundleError: always: the network is code, and a bundle holds none.
        """
        raise BundleError(
            f"a bundle cannot carry the module {self.module.__name__}: it is code, and a bundle "
            "holds none; keep the features (`ossicle embed`) or the report"
        )

    def draw_weights(self, generator: torch.Generator) -> None:
        """There are none to draw.

        Raises:
            OssicleError: always.
        """
        raise OssicleError(f"hear:{self.module.__name__}: its weights are its own, never random")

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 1, N) -> {"timestamp": (B, D, T'), "scene": (B, D', 1)}."""
        waveform = x.squeeze(1)
        with _LOCK:
            moments, _ = self._timestamps(waveform)
            scene = self._scene(waveform)
        return OrderedDict(timestamp=moments.mT, scene=scene.unsqueeze(-1))

    def _timestamps(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T', D) float32 and (B, T') ms."""
        given = self._call("get_timestamp_embeddings", waveform)
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise self._wrong("get_timestamp_embeddings", "not (embeddings, timestamps)")
        moments, timestamps = given
        wanted = (len(waveform), None, self.timestamp_size)
        self._check("get_timestamp_embeddings", moments, wanted)
        self._check("get_timestamp_embeddings", timestamps, tuple(moments.shape[:2]))
        if not moments.shape[1]:
            raise self._wrong("get_timestamp_embeddings", "no timestamps")
        return moments.float(), timestamps

    def _scene(self, waveform: Tensor) -> Tensor:
        """(B, D') float32."""
        scene = self._call("get_scene_embeddings", waveform)
        self._check("get_scene_embeddings", scene, (len(waveform), self.scene_size))
        return scene.float()

    def _call(self, function: str, waveform: Tensor) -> Any:
        try:
            return getattr(self.module, function)(waveform, self.model)
        except Exception as error:
            raise self._wrong(function, f"an error ({_line(error)})") from error

    def _check(self, function: str, value: object, wanted: tuple[Any, ...]) -> None:
        if not isinstance(value, Tensor):
            raise self._wrong(function, f"a {type(value).__name__}, not a tensor of torch")
        shape = tuple(value.shape)
        fits = len(shape) == len(wanted)
        if not fits or any(w not in (None, s) for s, w in zip(shape, wanted, strict=True)):
            shown = ", ".join("T" if size is None else str(size) for size in wanted)
            raise self._wrong(function, f"{shape} where the API asks for ({shown})")

    def _wrong(self, function: str, what: str) -> OssicleError:
        return OssicleError(f"hear:{self.module.__name__}: {function} gives {what}")


def open_hear(what: str, pretrained: bool) -> tuple[HEARBackbone, dict[str, Any]]:
    """The model of an installed module, and what its label says.

    Args:
        what: "MODULE" or "MODULE:FILE"; the file of weights is handed to its ``load_model``.
        pretrained: must be true: its weights are its own.

    Raises:
        OssicleError: there is no such module, or it does not follow the API.
    """
    name, _, path = what.partition(":")
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name):
        raise OssicleError(f"hear:{what}: a module is named as in Python's import")
    if not pretrained:
        raise OssicleError(f"hear:{name}: its weights are its own, never random")
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise OssicleError(
            f"hear:{name}: cannot be imported ({_line(error)}): install it beside ossicle"
        ) from error
    missing = [function for function in FUNCTIONS if not callable(getattr(module, function, None))]
    if missing:
        raise OssicleError(f"hear:{name}: is no HEAR module, it lacks {', '.join(missing)}")
    try:
        model = module.load_model(path) if path else module.load_model()
    except Exception as error:
        raise OssicleError(f"hear:{name}: load_model fails ({_line(error)})") from error
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        raise OssicleError(f"hear:{name}: load_model gives a {kind}, not a module of torch")
    backbone = HEARBackbone(module, model)
    label = {"name": f"hear:{name}", "weights": f"those of the module {name}"}
    return backbone, {**label, "licence": "unknown: see the module's", "origin": f"module {name}"}


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _device(model: nn.Module) -> torch.device:
    tensor = next(model.parameters(), None)
    return torch.device("cpu") if tensor is None else tensor.device


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:200] if lines else type(error).__name__
