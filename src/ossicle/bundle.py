"""The bundle: a folder that holds a whole model, with nothing in it that could be executed.

`model.safetensors` (weights), `config.json` (how to feed and read them), `README.md` (the model
card). `save` writes it whole or not at all; `load` trusts none of it.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import save as as_safetensors
from torch import Tensor

from ossicle import __version__
from ossicle.backbones import FAMILIES, REBUILDABLE
from ossicle.backbones.base import Backbone
from ossicle.bundle_checks import (
    CONFIG,
    check_values,
    clip_policy_of,
    object_of,
    one_of,
    patches_of,
    short,
    shown,
    sizes_of,
    strings_of,
)
from ossicle.bundle_files import read_json, read_tensors
from ossicle.calibrated import CalibrationTable
from ossicle.card import plain_card
from ossicle.detector import Detector
from ossicle.errors import BundleError, OssicleError
from ossicle.frontend import FRONTENDS, FrontEnd, create_frontend
from ossicle.heads import ACTIVATIONS, Head
from ossicle.model import Model
from ossicle.novelty import Novelty
from ossicle.record import json_safe, write_json
from ossicle.separator_card import separator_card
from ossicle.separators import SEPARATORS, separator_class
from ossicle.separators.base import Separator

FORMAT = "ossicle-bundle"
FORMAT_VERSION = 1
WEIGHTS, CARD = "model.safetensors", "README.md"


def save(model: Model | Separator, path: str | Path, *, card: str | None = None) -> Path:
    """Write a model as a bundle.

    Args:
        model: with or without a head; or a separator.
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
    config = _separator_config(model) if isinstance(model, Separator) else _config(model)
    temporary = path.parent / f".{path.name[:32]}.{secrets.token_hex(4)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        # Not safetensors' save_file, whose files nobody else may read.
        (temporary / WEIGHTS).write_bytes(as_safetensors(_tensors(model)))
        write_json(temporary / CONFIG, config)
        title = path.resolve().name.encode("utf-8", "replace").decode()
        if card is None:
            card = _card(model, title)
        (temporary / CARD).write_text(card, encoding="utf-8")
        _put(temporary, path)
    except UnicodeError as error:
        raise BundleError(f"{path}: a class name is not valid text ({short(error)})") from error
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or short(error)
        raise BundleError(f"{path}: cannot be written ({reason})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def _card(model: Model | Separator, title: str) -> str:
    if isinstance(model, Separator):
        return separator_card(model, title)
    return plain_card(model, title)


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
        return read_json(config).get("format") == FORMAT
    except (BundleError, OSError):
        return False


def load(path: str | Path) -> Model:
    """Read a model's bundle; needs no network, runs nothing from the folder.

    Raises:
        BundleError: it is not a bundle, is broken, was made by a later format, or holds a
            separator; the message says what is wrong.
    """
    model = load_any(path)
    if isinstance(model, Separator):
        verb = "denoise" if "background" in model.sources else "separate"
        raise BundleError(f"{path}: takes recordings apart; use ossicle {verb} run")
    return model


def load_separator(path: str | Path) -> Separator:
    """Read a separator's bundle, as `load` does a model's.

    Raises:
        BundleError: as `load`; or it holds a model that labels.
    """
    separator = load_any(path)
    if not isinstance(separator, Separator):
        verb = "detect" if isinstance(separator, Detector) else "predict"
        raise BundleError(f"{path}: takes nothing apart; use ossicle {verb}")
    return separator


def load_any(path: str | Path) -> Model | Separator:
    """Read a bundle of either kind.

    Raises:
        BundleError: as `load`, but for the kind.
    """
    path = Path(path)
    config = _read_config(path)
    model: Model | Separator
    try:
        model = _build_separator(config) if "separator" in config else _build(config)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error
    except (OssicleError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise BundleError(f"{path}: {CONFIG} describes no model ({short(error)})") from error
    # The shapes cost no memory until the file has been seen to hold them.
    model.load_state_dict(read_tensors(path / WEIGHTS, model.state_dict()), assign=True)
    return model.eval().requires_grad_(False)


def _tensors(model: Model | Separator) -> dict[str, Tensor]:
    return {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}


def _separator_config(separator: Separator) -> dict[str, Any]:
    for name in SEPARATORS:
        if separator_class(name).__name__ == type(separator).__name__:
            break
    else:
        raise BundleError(f"a {type(separator).__name__} cannot be saved: it is no system of ours")
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "ossicle": __version__,
        "sample_rate": separator.sample_rate,
        "separator": {"name": name, "config": separator.config()},
        "sources": list(separator.sources),
        "info": json_safe(separator.info),
    }


def _build_separator(config: dict[str, Any]) -> Separator:
    """The separator that a config describes; weights have shapes only. Every value is checked."""
    entry = object_of(config, "separator")
    kind = separator_class(one_of(entry, "name", SEPARATORS, "separator"))
    keywords = object_of(entry, "config")
    check_values(keywords, get_type_hints(kind.__init__), "separator")
    with torch.device("meta"):
        separator = kind(**keywords)
    separator.info = object_of(config, "info")
    return separator


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
        **_optional(model),
        "task": model.task,
        "classes": list(model.classes),
        "info": json_safe(model.info),
    }


def _optional(model: Model) -> dict[str, Any]:
    """What a detector has beside a model's parts, novelty, a calibration; nothing without."""
    parts: dict[str, Any] = {}
    if isinstance(model, Detector):
        attention = model.attention
        parts["frames"] = {
            "attention": None if attention is None else {"sizes": list(attention.sizes)}
        }
    if model.novelty is not None:
        parts["novelty"] = model.novelty.config()
    if model.calibration is not None:
        parts["calibration"] = model.calibration.to_json()
    return parts


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
    config = read_json(path / CONFIG)
    if config.get("format") != FORMAT:
        raise BundleError(f"{path}: {CONFIG} is not of an {FORMAT}")
    version = config.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise BundleError(
            f"{path}: made by ossicle {shown(config.get('ossicle'))} in bundle format "
            f"{shown(version)}, this is {__version__}, which reads format {FORMAT_VERSION}: "
            "install the other version"
        )
    return config


def _build(config: dict[str, Any]) -> Model:
    """The model that a config describes; weights have shapes only. Every value is checked."""
    frontend = object_of(config, "frontend")
    kind = one_of(frontend, "name", FRONTENDS, "front end")
    check_values(frontend, get_type_hints(FRONTENDS[kind].__init__), "frontend")
    network = object_of(config, "backbone")
    name = one_of(network, "name", REBUILDABLE, "backbone")
    keywords = object_of(network, "config")
    check_values(keywords, get_type_hints(REBUILDABLE[name].__init__), "backbone")
    policy = clip_policy_of(object_of(config, "clip"), frontend["sample_rate"])
    readout, classes = strings_of(config, "readout"), strings_of(config, "classes")
    if len(set(classes)) != len(classes):
        raise BundleError("a class is named twice")
    with torch.device("meta"):
        backbone: Backbone = REBUILDABLE[name](**keywords)
        head = None if config.get("head") is None else Head(sizes_of(object_of(config, "head")))
    built = create_frontend(**frontend)
    _check_match(built, backbone)
    kind_of_model: Any = Model
    more: dict[str, Any] = {"readout": readout, "patches": patches_of(config)}
    more["task"] = one_of(config, "task", ACTIVATIONS, "task")
    if config.get("frames") is not None:
        kind_of_model, more = Detector, _detector_parts(config, backbone, more)
    model: Model = kind_of_model(
        built,
        backbone,
        clip=policy,
        head=head,
        classes=classes,
        info=object_of(config, "info"),
        **more,
    )
    model.calibration = CalibrationTable.from_json(
        config.get("calibration"), model.task, len(classes)
    )
    if config.get("novelty") is not None:
        width = sum(model.block_sizes(model.readout).values())
        with torch.device("meta"):
            model.novelty = Novelty.from_config(config["novelty"], width)
    if model.sample_rate != config.get("sample_rate"):
        raise BundleError(
            f"sample_rate {shown(config.get('sample_rate'))} is not the front end's "
            f"{model.sample_rate}"
        )
    return model


def _detector_parts(
    config: dict[str, Any], backbone: Backbone, more: dict[str, Any]
) -> dict[str, Any]:
    """What makes a detector of the parts; those that it has no choice of must be as it has them."""
    frames = object_of(config, "frames")
    unknown = sorted(set(frames) - {"attention"})
    if unknown or "attention" not in frames:
        what = f"{shown(unknown[0])} is unknown to this version" if unknown else "lacks 'attention'"
        raise BundleError(f"frames: {what}")
    fixed = {"readout": (f"{backbone.layers[-1]}/mean",), "patches": None, "task": "multilabel"}
    wrong = [key for key, value in fixed.items() if more[key] != value]
    if wrong or config.get("head") is None:
        raise BundleError(f"frames: a detector has another {(wrong or ['head'])[0]}")
    if frames["attention"] is None:
        return {"attention": None}
    with torch.device("meta"):
        return {"attention": Head(sizes_of(object_of(frames, "attention")))}


def _check_match(frontend: FrontEnd, backbone: Backbone) -> None:
    """Refuse a front end of another kind or height than the backbone's own."""
    own = create_frontend(**backbone.frontend)
    if type(frontend) is not type(own) or frontend.n_bands != own.n_bands:
        raise BundleError(
            f"the front end gives {frontend.n_bands} bands ({type(frontend).__name__}), the "
            f"backbone takes {own.n_bands} ({type(own).__name__})"
        )
