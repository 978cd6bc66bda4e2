"""The bundle: a folder that holds a whole model, with nothing in it that could be executed.

`model.safetensors` (weights), `config.json` (how to feed and read them), `README.md` (the model
card). `save` writes it whole or not at all; `load` trusts none of it.
"""

from __future__ import annotations

import json
import secrets
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as as_safetensors
from torch import Tensor

from ossicle import __version__
from ossicle.backbones import FAMILIES, REBUILDABLE
from ossicle.backbones.base import Backbone
from ossicle.backbones.clip_policy import ClipPolicy, Patches
from ossicle.card import plain_card
from ossicle.errors import BundleError, OssicleError
from ossicle.frontend import FRONTENDS, FrontEnd, create_frontend
from ossicle.heads import ACTIVATIONS, Head
from ossicle.model import Model
from ossicle.record import json_safe, write_json

FORMAT = "ossicle-bundle"
FORMAT_VERSION = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
MAX_CONFIG_BYTES = 20_000_000
MAX_HEADER_BYTES = 20_000_000
# Beyond these only memory or the stack would be eaten: any number in a front end or clip policy,
# those that matrices are made of, values of a filter bank, samples of a clip's window (over an
# hour at 16 kHz), nesting of the config.
MAX_NUMBER = 1_000_000
MAX_SIZES = {"n_fft": 65_536, "win_length": 65_536, "n_mels": 2048, "delta_width": 1001}
MAX_FILTERS = 4_000_000
MAX_WINDOW_SAMPLES = 80_000_000
MAX_DEPTH = 32


def save(model: Model, path: str | Path, *, card: str | None = None) -> Path:
    """Write a model as a bundle.

    Args:
        model: with or without a head.
        path: the folder to make; an older bundle there is replaced, its other files stay.
        card: text of the model card; None writes a plain one, headed by the folder's name.

    Returns:
        The folder.

    Raises:
        BundleError: the path holds something that is not a bundle or cannot be written, or the
            model cannot be described (a network or front end of your own, broken label text).
    """
    path = Path(path)
    if path.is_symlink():
        path = path.resolve()
    if path.exists() and not is_bundle(path):
        raise BundleError(f"{path}: is there already and is not a bundle; choose another name")
    config = _config(model)
    temporary = path.parent / f".{path.name[:32]}.{secrets.token_hex(4)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        # Not safetensors' save_file, whose files nobody else may read.
        (temporary / WEIGHTS).write_bytes(as_safetensors(_tensors(model)))
        write_json(temporary / CONFIG, config)
        title = path.resolve().name.encode("utf-8", "replace").decode()
        (temporary / CARD).write_text(card or plain_card(model, title), encoding="utf-8")
        _put(temporary, path)
    except UnicodeError as error:
        raise BundleError(f"{path}: a class name is not valid text ({_short(error)})") from error
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or _short(error)
        raise BundleError(f"{path}: cannot be written ({reason})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def _put(temporary: Path, path: Path) -> None:
    """Give the new folder its name; what lies in an older one beside the bundle moves over."""
    if not path.exists():
        temporary.rename(path)
        return
    old = temporary.with_suffix(".old")
    path.rename(old)
    try:
        temporary.rename(path)
    except OSError:
        old.rename(path)
        raise
    for file in old.iterdir():
        if file.name not in (CONFIG, WEIGHTS, CARD):
            file.rename(path / file.name)
    shutil.rmtree(old)


def is_bundle(path: str | Path) -> bool:
    """Whether a folder holds a bundle of any version: both files, the config with our mark.

    Other tools call their files the same; their folders are not ours to replace.
    """
    config = Path(path) / CONFIG
    if not (config.is_file() and (Path(path) / WEIGHTS).is_file()):
        return False
    try:
        return _read_json(config).get("format") == FORMAT
    except (BundleError, OSError):
        return False


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
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error
    except (OssicleError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise BundleError(f"{path}: {CONFIG} describes no model ({_short(error)})") from error
    # The shapes cost no memory until the file has been seen to hold them.
    model.load_state_dict(_read_tensors(path / WEIGHTS, model.state_dict()), assign=True)
    return model.eval().requires_grad_(False)


def _tensors(model: Model) -> dict[str, Tensor]:
    return {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}


def _config(model: Model) -> dict[str, Any]:
    _check_match(model.frontend, model.backbone)
    savable = {**REBUILDABLE, **{name: family.backbone for name, family in FAMILIES.items()}}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "ossicle": __version__,
        "sample_rate": model.sample_rate,
        "frontend": {"name": _name(model.frontend, FRONTENDS), **model.frontend.config()},
        "backbone": {"name": _name(model.backbone, savable), "config": model.backbone.config()},
        "clip": model.clip._asdict(),
        "patches": None if model.patches is None else model.patches._asdict(),
        "readout": list(model.readout),
        "head": None if model.head is None else {"sizes": list(model.head.sizes)},
        "task": model.task,
        "classes": list(model.classes),
        "info": json_safe(model.info),
    }


def _name(part: object, table: Mapping[str, type]) -> str:
    for name, kind in table.items():
        if type(part) is kind:
            return name
    raise BundleError(
        f"a {type(part).__name__} cannot be saved: a bundle holds what this package can rebuild "
        f"({', '.join(table)})"
    )


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise BundleError(f"{path}: no such folder; a bundle is the folder that `train` wrote")
    for name in (CONFIG, WEIGHTS):
        file = path / name
        if file.is_symlink() or not file.is_file():
            raise BundleError(f"{path}: not a bundle, the file {name} is missing or is a link")
    config = _read_json(path / CONFIG)
    if config.get("format") != FORMAT:
        raise BundleError(f"{path}: {CONFIG} is not of an {FORMAT}")
    version = config.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise BundleError(
            f"{path}: made by ossicle {_shown(config.get('ossicle'))} in bundle format "
            f"{_shown(version)}, this is {__version__}, which reads format {FORMAT_VERSION}: "
            "install the other version"
        )
    return config


def _read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file, of bounded size and depth, without NaN and infinity."""
    if file.stat().st_size > MAX_CONFIG_BYTES:
        raise BundleError(f"{file}: larger than any real one")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        _check_depth(value)
        # What could not be written again: NaN, infinity, half a surrogate pair.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file}: not JSON ({_short(error)})") from error
    if not isinstance(value, dict):
        raise BundleError(f"{file}: not a JSON object")
    return value


def _check_depth(value: Any, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("nested deeper than any real one")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, depth + 1)


def _build(config: dict[str, Any]) -> Model:
    """The model that a config describes; weights have shapes only. Every value is checked."""
    frontend = _object(config, "frontend")
    kind = _one_of(frontend, "name", FRONTENDS, "front end")
    _check_values(frontend, get_type_hints(FRONTENDS[kind].__init__), "frontend")
    network = _object(config, "backbone")
    name = _one_of(network, "name", REBUILDABLE, "backbone")
    keywords = _object(network, "config")
    _check_values(keywords, get_type_hints(REBUILDABLE[name].__init__), "backbone")
    policy = _clip_policy(_object(config, "clip"), frontend["sample_rate"])
    readout, classes = _strings(config, "readout"), _strings(config, "classes")
    if len(set(classes)) != len(classes):
        raise BundleError("a class is named twice")
    with torch.device("meta"):
        backbone: Backbone = REBUILDABLE[name](**keywords)
        head = None if config.get("head") is None else Head(_sizes(_object(config, "head")))
    built = create_frontend(**frontend)
    _check_match(built, backbone)
    model = Model(
        built,
        backbone,
        clip=policy,
        patches=_patches(config),
        readout=readout,
        head=head,
        classes=classes,
        task=_one_of(config, "task", ACTIVATIONS, "task"),
        info=_object(config, "info"),
    )
    if model.sample_rate != config.get("sample_rate"):
        raise BundleError(
            f"sample_rate {_shown(config.get('sample_rate'))} is not the front end's "
            f"{model.sample_rate}"
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


def _one_of(config: dict[str, Any], key: str, known: Mapping[str, Any], what: str) -> str:
    value = config.get(key)
    if not isinstance(value, str) or value not in known:
        raise BundleError(f"{what} {_shown(value)} is unknown to this version ({', '.join(known)})")
    return value


def _sizes(head: dict[str, Any]) -> list[int]:
    sizes = head.get("sizes")
    if not isinstance(sizes, list) or not 2 <= len(sizes) <= 8:
        raise BundleError("the head's sizes are not a list of two or a few more")
    if not all(type(size) is int and 0 < size <= MAX_NUMBER for size in sizes):
        raise BundleError("the head's sizes are not all sizes")
    return sizes


def _patches(config: dict[str, Any]) -> Patches | None:
    """How the head hears a clip; bundles without the entry have heads that hear whole clips."""
    if config.get("patches") is None:
        return None
    entry = _object(config, "patches")
    _check_values(entry, get_type_hints(Patches), "patches")
    patches = Patches(**entry)
    if not 0.001 <= patches.hop_s <= patches.window_s <= 3600:
        raise BundleError(f"patches of {patches.window_s} s every {patches.hop_s} s make no sense")
    if patches.last not in ("zeros", "overlap"):
        raise BundleError(f"unknown last patch: {_shown(patches.last)}")
    return patches


def _clip_policy(clip: dict[str, Any], sample_rate: int) -> ClipPolicy:
    _check_values(clip, get_type_hints(ClipPolicy), "clip")
    policy = ClipPolicy(**clip)
    if policy.fill not in ("none", "repeat"):
        raise BundleError(f"unknown way to fill a clip: {policy.fill!r}")
    shortest_window = max(policy.min_s, 1 / sample_rate)
    longest_window = MAX_WINDOW_SAMPLES / sample_rate
    if not (policy.min_s >= 0 and shortest_window <= policy.window_s <= longest_window):
        raise BundleError(f"clip windows of {policy.min_s} to {policy.window_s} s make no sense")
    return policy


def _check_values(keywords: dict[str, Any], hints: dict[str, Any], where: str) -> None:
    """Refuse values of other types than the parameters', and numbers beyond any real range."""
    for key, value in keywords.items():
        if key not in hints and key != "name":
            raise BundleError(f"{where}: {_shown(key)} is unknown to this version")
        if key in hints and type(value) not in _types(hints[key]):
            raise BundleError(f"{where}.{key} is a {type(value).__name__}, which it cannot be")
        if isinstance(value, int | float) and not abs(value) <= MAX_SIZES.get(key, MAX_NUMBER):
            raise BundleError(f"{where}.{key} is out of any real range")
    if keywords.get("n_fft", 0) * keywords.get("n_mels", 1) > MAX_FILTERS:
        raise BundleError(f"{where}: its filters would fill the memory")
    if keywords.get("sample_rate", 1) < 1:
        raise BundleError(f"{where}.sample_rate must be at least 1")


def _types(hint: Any) -> set[type]:
    """The JSON types that a type hint takes; a whole number may stand for a float."""
    if get_origin(hint) in (Union, UnionType):
        return set().union(*(_types(part) for part in get_args(hint)))
    if get_origin(hint) is Literal:
        return {type(value) for value in get_args(hint)}
    return {int, float} if hint is float else {get_origin(hint) or hint}


def _check_match(frontend: FrontEnd, backbone: Backbone) -> None:
    """Refuse a front end of another kind or height than the backbone's own."""
    own = create_frontend(**backbone.frontend)
    if type(frontend) is not type(own) or frontend.n_bands != own.n_bands:
        raise BundleError(
            f"the front end gives {frontend.n_bands} bands ({type(frontend).__name__}), the "
            f"backbone takes {own.n_bands} ({type(own).__name__})"
        )


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
        # Copies: the file may change or shrink while the model lives.
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise BundleError(f"{path}: not safetensors, or cut short ({_short(error)})") from error
    missing, foreign = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    if missing or foreign:
        what = f"lacks {missing[0]}" if missing else f"holds {_shown(foreign[0])}, not the model's"
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
    """An error in one line; what it quotes from the file cannot steer a terminal."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return "".join(c if c.isprintable() else "?" for c in line)


def _shown(value: Any) -> str:
    return ascii(value)[:80]
