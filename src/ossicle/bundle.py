"""The bundle: a folder that holds a whole model, with nothing in it that could be executed.

`model.safetensors` (weights), `config.json` (how to feed and read them), `README.md` (the model
card). `save` writes it whole or not at all; `load` trusts none of it.
"""

from __future__ import annotations

import json
import math
import secrets
import shutil
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ossicle import __version__
from ossicle.backbones import BACKBONES
from ossicle.backbones.base import Backbone
from ossicle.errors import BundleError, OssicleError
from ossicle.frontend import create_frontend
from ossicle.heads import Head
from ossicle.model import ClipPolicy, Model
from ossicle.record import json_safe, write_json

FORMAT = "ossicle-bundle"
FORMAT_VERSION = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
MAX_CONFIG_BYTES = 20_000_000
MAX_HEADER_BYTES = 20_000_000
# Sizes in a front end or clip policy beyond which only memory would be eaten.
MAX_NUMBER = 1_000_000


def save(model: Model, path: str | Path, *, card: str | None = None) -> Path:
    """Write a model as a bundle.

    Args:
        model: with or without a head.
        path: the folder to make; an older bundle there is replaced, anything else is left alone.
        card: text of the model card; None writes a plain one from the model's label.

    Returns:
        The folder.

    Raises:
        BundleError: the path holds something that is not a bundle, or cannot be written.
    """
    path = Path(path)
    if path.exists() and not is_bundle(path):
        raise BundleError(f"{path}: is there already and is not a bundle; choose another name")
    temporary = path.parent / f".{path.name[:32]}.{secrets.token_hex(4)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        save_file(_tensors(model), temporary / WEIGHTS)
        write_json(temporary / CONFIG, _config(model))
        (temporary / CARD).write_text(card or plain_card(model), encoding="utf-8")
        if path.exists():
            old = temporary.with_suffix(".old")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.rename(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def is_bundle(path: str | Path) -> bool:
    """Whether a folder looks like a bundle: both of its files are there."""
    return all((Path(path) / name).is_file() for name in (CONFIG, WEIGHTS))


def load(path: str | Path) -> Model:
    """Read a bundle; needs no network, runs nothing from the folder.

    Raises:
        BundleError: it is not a bundle, is broken, or was made by a later format; the message says
            what is wrong.
    """
    path = Path(path)
    config = _read_config(path)
    try:
        model = _build(config)
    except BundleError:
        raise
    except (OssicleError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise BundleError(f"{path}: {CONFIG} describes no model ({_short(error)})") from error
    expected = _tensors(model)
    tensors = _read_tensors(path / WEIGHTS, expected)
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False)


def plain_card(model: Model) -> str:
    """A model card with what the model itself knows."""
    label = model.info
    lines = [
        f"# {label.get('title', label.get('name', 'model'))}",
        "",
        "An ossicle model. `ossicle predict THIS_FOLDER recordings/ -o labels.csv` labels",
        'recordings; `ossicle.load("THIS_FOLDER")` gives it in Python.',
        "",
        f"- task: {model.task}, {len(model.classes)} classes",
        f"- audio: mono, resampled to {model.sample_rate} Hz by itself",
        f"- clips: {model.clip.describe(model.sample_rate)}",
    ]
    for key in ("name", "source", "weights", "licence"):
        if label.get(key):
            lines.append(f"- {'backbone' if key == 'name' else key}: {label[key]}")
    lines += [f"- parameters: {model.num_parameters:,}", "", "## Classes", ""]
    lines += [f"{i}. {_plain(name)}" for i, name in enumerate(model.classes, start=1)]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    return " ".join(str(text).split()).replace("<", "&lt;")


def _tensors(model: Model) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def _config(model: Model) -> dict[str, Any]:
    name = next(key for key, kind in BACKBONES.items() if type(model.backbone) is kind)
    frontend = next(key for key, kind in _frontends().items() if type(model.frontend) is kind)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "ossicle": __version__,
        "sample_rate": model.sample_rate,
        "frontend": {"name": frontend, **model.frontend.config()},
        "backbone": {"name": name, "config": model.backbone.config()},
        "clip": model.clip._asdict(),
        "readout": list(model.readout),
        "head": None if model.head is None else {"sizes": list(model.head.sizes)},
        "task": model.task,
        "classes": list(model.classes),
        "info": json_safe(model.info),
    }


def _frontends() -> dict[str, type]:
    from ossicle.frontend import FRONTENDS

    return dict(FRONTENDS)


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise BundleError(f"{path}: no such folder; a bundle is the folder that `train` wrote")
    for name in (CONFIG, WEIGHTS):
        file = path / name
        if file.is_symlink() or not file.is_file():
            raise BundleError(f"{path}: not a bundle, the file {name} is missing or is a link")
    file = path / CONFIG
    if file.stat().st_size > MAX_CONFIG_BYTES:
        raise BundleError(f"{path}: {CONFIG} is larger than any real one")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BundleError(f"{path}: {CONFIG} is not JSON ({_short(error)})") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise BundleError(f"{path}: {CONFIG} is not of an {FORMAT}")
    version = config.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path}: made by ossicle {config.get('ossicle')} in bundle format {version}, this is "
            f"{__version__}, which reads format {FORMAT_VERSION}: install the other version"
        )
    return config


def _build(config: dict[str, Any]) -> Model:
    """The model that a config describes, with empty weights; every value is checked."""
    frontend = _object(config, "frontend")
    _check_numbers(frontend, "frontend")
    network = _object(config, "backbone")
    name = network.get("name")
    if name not in BACKBONES:
        raise BundleError(f"backbone {name!r} is unknown to this version ({', '.join(BACKBONES)})")
    _check_numbers(network, "backbone")
    backbone: Backbone = BACKBONES[str(name)](**_object(network, "config"))
    clip = _object(config, "clip")
    _check_numbers(clip, "clip")
    policy = ClipPolicy(float(clip["window_s"]), float(clip["min_s"]), str(clip["fill"]))
    longest = max(policy.window_s, policy.min_s)
    if not (policy.window_s > 0 and policy.min_s >= 0 and longest <= 3600):
        raise BundleError(f"clip windows of {policy.window_s} to {policy.min_s} s make no sense")
    if policy.fill not in ("none", "repeat"):
        raise BundleError(f"unknown way to fill a clip: {policy.fill!r}")
    readout, classes = _strings(config, "readout"), _strings(config, "classes")
    if len(set(classes)) != len(classes):
        raise BundleError("a class is named twice")
    head = None
    if config.get("head") is not None:
        sizes = _object(config, "head").get("sizes")
        if not isinstance(sizes, list) or not all(
            isinstance(size, int) and 0 < size <= MAX_NUMBER for size in sizes
        ):
            raise BundleError("the head's sizes are not a list of sizes")
        if math.prod(sizes[:2]) > 4e9 or len(sizes) > 8:
            raise BundleError("the head is larger than any real one")
        head = Head(sizes)
    model = Model(
        create_frontend(**frontend),
        backbone,
        clip=policy,
        readout=readout,
        head=head,
        classes=classes,
        task=str(config.get("task")),
        info=_object(config, "info"),
    )
    if model.sample_rate != config.get("sample_rate"):
        raise BundleError(
            f"sample_rate {config.get('sample_rate')} is not the front end's {model.sample_rate}"
        )
    return model


def _object(config: dict[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    if not isinstance(value, dict):
        raise BundleError(f"{CONFIG} lacks {key!r}")
    return value


def _strings(config: dict[str, Any], key: str) -> tuple[str, ...]:
    value = config.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BundleError(f"{CONFIG}: {key!r} must be a list of strings")
    return tuple(value)


def _check_numbers(value: Any, where: str) -> None:
    """Refuse numbers that are not finite or so large that only memory would be eaten."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_numbers(item, f"{where}.{key}")
    elif isinstance(value, list):
        for item in value:
            _check_numbers(item, where)
    elif isinstance(value, int | float) and not (abs(value) <= MAX_NUMBER):
        raise BundleError(f"{where} is {value}: out of any real range")


def _read_tensors(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of exactly the expected names, shapes and types, all finite.

    Raises:
        BundleError: anything else.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
    header = struct.unpack("<Q", start)[0] if len(start) == 8 else size
    if header > min(size - 8, MAX_HEADER_BYTES):
        raise BundleError(f"{path}: not safetensors, or cut short")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(f"{path}: not safetensors, or cut short ({_short(error)})") from error
    missing, foreign = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    if missing or foreign:
        what = f"lacks {missing[0]}" if missing else f"holds {foreign[0]}, which is not the model's"
        raise BundleError(f"{path}: {what}")
    for name, tensor in tensors.items():
        want = expected[name]
        if tensor.shape != want.shape or tensor.dtype != want.dtype:
            raise BundleError(
                f"{path}: {name} is {_shape(tensor)}, {CONFIG} asks for {_shape(want)}"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise BundleError(f"{path}: {name} holds NaN or infinity")
    return tensors


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
