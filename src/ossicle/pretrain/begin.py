"""A run that begins with what an earlier one learnt: longer, on other recordings, at other rates.

The optimiser and the schedule are new. The parts beside the network (maps to teachers, projectors)
are taken over too where they mean the same, since at random they would first undo what was learnt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ossicle.bundle import is_bundle
from ossicle.bundle_files import read_json
from ossicle.errors import OssicleError
from ossicle.pretrain.objective import Pretraining
from ossicle.pretrain.settings import Settings
from ossicle.pretrain.teachers import COMPONENTS
from ossicle.train import CHECKPOINT

NETWORK, AVERAGE = "backbone.", "average_"  # how names of an objective's state begin


def training_folder(out: Path) -> Path:
    """Where the run that makes ``out`` keeps its checkpoint and log."""
    return out.with_name(f"{out.name.removesuffix('.ossicle')}-training")


def check_begin(bundle: str, out: Path) -> None:
    """Refuse what cannot be begun with.

    Raises:
        OssicleError: it is no bundle, the one to be written, or its run's checkpoint is not there.
    """
    if not is_bundle(Path(bundle)):
        raise OssicleError(f"{bundle}: is no bundle; begin with one that `ossicle pretrain` wrote")
    if Path(bundle).resolve() == out.resolve():
        raise OssicleError(f"{bundle}: cannot be begun with and written; choose another name")
    if not _checkpoint(bundle).is_file():
        raise OssicleError(
            f"{_checkpoint(bundle)}: the checkpoint of the run to begin with is missing; give the "
            "bundle where it was made"
        )


def earlier(bundle: str) -> dict[str, Any]:
    """What is told of the run to begin with: its weights, licence and record.

    Raises:
        BundleError: its label cannot be read.
    """
    info = read_json(Path(bundle) / "config.json").get("info") or {}
    told = ("weights", "licence", "training", "begun_with")
    return {"bundle": Path(bundle).name} | {name: info[name] for name in told if name in info}


def begun_with(bundle: str) -> str:
    """What tells an earlier run's state from others."""
    with _checkpoint(bundle).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def begin(
    objective: Pretraining,
    settings: Settings,
    classes: Sequence[str],
    teachers: Mapping[str, Path],
) -> bool:
    """Put what an earlier run had learnt at its end in place.

    Args:
        objective: before its first step, without a moving average yet.
        settings: of the run that begins; ``begin`` is the bundle that the earlier one wrote.
        classes: that its head tells apart, in order; none where it has no head.
        teachers: teacher -> folder with its components, which maps to them belong to.

    Returns:
        Whether all of it is taken over, not the network alone.

    Raises:
        OssicleError: its checkpoint is no checkpoint, or of another network.
    """
    bundle = settings.begin
    path = _checkpoint(bundle)
    try:
        # Tensors and plain values only: the file may be a stranger's.
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        state: dict[str, Tensor] = dict(found["objective"])
        average = {n.removeprefix(AVERAGE): t for n, t in state.items() if n.startswith(AVERAGE)}
    except Exception as error:  # torch raises several kinds for a broken file
        raise OssicleError(f"{path}: is no checkpoint; make its run anew") from error
    # What it took away in the end.
    state = {n: t for n, t in state.items() if not n.startswith(AVERAGE)} | average
    own = objective.state_dict()
    alike = _same_answers(bundle, settings, classes) and _same_components(path.parent, teachers)
    if alike and _shapes(state) == _shapes(own):
        objective.load_state_dict(state)
        return True
    network = {
        name.removeprefix(NETWORK): tensor
        for name, tensor in state.items()
        if name.startswith(NETWORK)
    }
    if _shapes(network) != _shapes(objective.backbone.state_dict()):
        raise OssicleError(f"{bundle}: holds another network; give the same backbone and --set")
    objective.begin_with(network)
    return False


def _checkpoint(bundle: str) -> Path:
    return training_folder(Path(bundle)) / CHECKPOINT


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _same_answers(bundle: str, settings: Settings, classes: Sequence[str]) -> bool:
    """Whether an earlier run gave the same answers in the same order: numbers of them tell less."""
    config = read_json(Path(bundle) / "config.json")
    arguments = ((config.get("info") or {}).get("training") or {}).get("arguments") or {}
    before = (arguments.get("objective"), arguments.get("teachers"), config.get("classes") or [])
    return before == (settings.objective, list(settings.teachers), list(classes))


def _same_components(folder: Path, teachers: Mapping[str, Path]) -> bool:
    """Whether every teacher's components are, byte for byte, those that an earlier run kept."""
    pairs = [
        (folder / "teachers" / f"{name.replace('/', '-')}.safetensors", source / COMPONENTS)
        for name, source in teachers.items()
    ]
    return all(kept.is_file() and kept.read_bytes() == now.read_bytes() for kept, now in pairs)
