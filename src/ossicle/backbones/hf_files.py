"""Where a network of the transformers library comes from: a folder, or the hub's cache.

Configuration, preprocessor, model card and safetensors are read, nothing else: no pickle is
fetched or opened, no code comes along.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ossicle.backbones.hf import (
    NETWORKS,
    HFBackbone,
    config_class,
    network_class,
    require_transformers,
    unknown_type,
)
from ossicle.download import is_offline, sha256_file
from ossicle.errors import DownloadError, OssicleError

CONFIG, CARD = "config.json", "README.md"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# The feature extractor by itself, or within the processor of a network that has one.
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
FETCHED = [CONFIG, CARD, WEIGHTS, INDEX, "model-*-of-*.safetensors", PREPROCESSOR, PROCESSOR]
UNKNOWN_LICENCE = "unknown: see its card"
# A licence in the block of settings that heads a model card.
_LICENCE = re.compile(r"^license:\s*[\"']?([\w.+-]+)[\"']?\s*$", re.MULTILINE)
# Weights that only training reads.
_UNUSED = ("masked_spec_embed",)


class Found(NamedTuple):
    """A network's files.

    Attributes:
        folder: where they are.
        name: of the folder or on the hub; no path.
        origin: name and revision, or the checksum of the weights.
    """

    folder: Path
    name: str
    origin: str


def open_hf(what: str, pretrained: bool) -> tuple[HFBackbone, dict[str, Any]]:
    """The network of a folder or of the hub, and what its label says.

    Args:
        what: a folder that ``save_pretrained`` wrote, or NAME or NAME@REVISION on the hub.
        pretrained: with its weights; else they are yet to be drawn.

    Raises:
        OssicleError: transformers is not installed, or the folder holds no such network.
        DownloadError: it is not to be had.
    """
    require_transformers()
    found = find(what)
    kind, config, preprocessor = _read(found.folder)
    backbone = HFBackbone({"model_type": kind, **config.to_dict()}, preprocessor)
    if pretrained:
        _load_into(backbone, kind, config, found)
    licence = read_licence(found.folder)
    label = {"name": f"hf:{found.name}", "weights": found.name, "licence": licence}
    return backbone, {**label, "origin": found.origin}


def find(what: str) -> Found:
    """The files of a folder, or of the hub from its cache or over the network.

    Raises:
        OssicleError: no such folder.
        DownloadError: the hub does not have it, cannot be reached, or must not be.
    """
    folder = Path(what).expanduser()
    if folder.is_dir():
        name = folder.resolve().name
        weights = folder / WEIGHTS
        sha256 = f", SHA-256 {sha256_file(weights)}" if weights.is_file() else ""
        return Found(folder, name, f"folder {name}{sha256}")
    name, _, revision = what.partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise OssicleError(f"hf:{what}: there is no such folder, and it is no name on the hub")
    hub = importlib.import_module("huggingface_hub")
    try:
        folder = Path(
            hub.snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=FETCHED,
                local_files_only=is_offline(),
            )
        )
    except Exception as error:  # of the hub, of HTTP, of sockets
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:150]
        how = "OSSICLE_OFFLINE forbids to fetch it" if is_offline() else line
        raise DownloadError(
            f"hf:{what}: is no folder, and not to be had from the hub ({how}): fetch it where "
            f"there is a network (`hf download {name}`) and pass the folder, or copy the hub's "
            "cache (HF_HOME)"
        ) from error
    return Found(folder, name, f"huggingface.co/{name} at {folder.name}")


def read_licence(folder: Path) -> str:
    """The licence in the settings that head the model card."""
    card = folder / CARD
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    head = text.split("---")[1] if text.startswith("---") and text.count("---") > 1 else ""
    match = _LICENCE.search(head)
    return match[1] if match else UNKNOWN_LICENCE


def _read(folder: Path) -> tuple[str, Any, dict[str, Any]]:
    """(model type, the encoder's configuration, settings of the preprocessor)."""
    raw = _json(folder, CONFIG)
    whole = raw.get("model_type")
    kind = "clap_audio_model" if whole == "clap" else whole
    if not isinstance(kind, str) or kind not in NETWORKS:
        raise OssicleError(f"{folder.name}: {unknown_type(whole)}")
    try:
        config = config_class(str(whole)).from_dict(raw)
    except Exception as error:  # the library raises many kinds, some of them its own
        line = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()[:200]
        raise OssicleError(f"{folder.name}: {CONFIG} describes no {whole} ({line})") from error
    if (folder / PREPROCESSOR).is_file():
        preprocessor = _json(folder, PREPROCESSOR)
    elif (folder / PROCESSOR).is_file():
        preprocessor = _json(folder, PROCESSOR).get("feature_extractor", {})
    else:
        raise OssicleError(
            f"{folder.name}: lacks {PREPROCESSOR}, which says what the network hears: write it "
            "with the feature extractor's save_pretrained"
        )
    return kind, config.audio_config if whole == "clap" else config, preprocessor


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OssicleError(f"{folder.name}: {name} cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise OssicleError(f"{folder.name}: {name} is not a JSON object")
    return value


def _load_into(backbone: HFBackbone, kind: str, config: Any, found: Found) -> None:
    """Read the weights into the network, under whatever names the files have them."""
    if not any((found.folder / name).is_file() for name in (WEIGHTS, INDEX)):
        raise OssicleError(
            f"{found.name}: holds no {WEIGHTS}; pickled weights are not read: convert them with "
            "transformers (save_pretrained), or name a revision that has them "
            "(hf:NAME@refs/pr/NUMBER)"
        )
    whole = network_class(kind)
    if kind == "whisper":
        # Its files name the encoder's weights as parts of the whole.
        whole = importlib.import_module("transformers").WhisperModel
    try:
        with _quiet():
            network, told = whole.from_pretrained(
                str(found.folder),
                config=config,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # the library raises many kinds, some of them its own
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise OssicleError(f"{found.name}: {WEIGHTS} cannot be read ({line})") from error
    missing = [name for name in told["missing_keys"] if not name.endswith(_UNUSED)]
    wrong = [str(entry[0]) for entry in told.get("mismatched_keys", [])]
    if kind == "whisper":
        network = network.encoder
        missing = [name for name in missing if "encoder." in name and "decoder" not in name]
    if missing or wrong:
        what = f"lacks {sorted(missing)[0]}" if missing else f"has {wrong[0]} of another shape"
        raise OssicleError(f"{found.name}: {WEIGHTS} {what}: not the weights of this {kind}")
    state = network.state_dict()
    own = backbone.network.state_dict()
    backbone.network.load_state_dict({name: state[name] for name in own})


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars or advice from the library; what goes wrong is raised."""
    logging = importlib.import_module("transformers.utils.logging")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
