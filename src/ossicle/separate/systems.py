"""The systems that learn to take mixtures apart: settings, and what fits them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from ossicle.datasets.mixtures import Mixtures
from ossicle.errors import DataError, OssicleError
from ossicle.separate.training import Steps
from ossicle.separators.base import Separator


class System(NamedTuple):
    """One of them.

    Attributes:
        module: in `ossicle.separate`.
        settings: the class there.
        fit: the function there.
        ordered: whether it needs sources with names.
        does: in a few words.
    """

    module: str
    settings: str
    fit: str
    ordered: bool
    does: str


SYSTEMS = {
    "deep_clustering": System(
        "fit_deep_clustering",
        "DeepClusteringSettings",
        "fit_deep_clustering",
        False,
        "like sources, such as speakers, as many as asked for",
    ),
    "nmf": System("fit_nmf", "NMFSettings", "fit_nmf", True, "bases of each source, fixed"),
    "unfolded_nmf": System(
        "fit_unfolded",
        "UnfoldedSettings",
        "fit_unfolded",
        True,
        "the updates of NMF as layers, trained to separate",
    ),
    "nonnegative_autoencoder": System(
        "fit_autoencoder",
        "AutoencoderSettings",
        "fit_autoencoder",
        True,
        "a non-negative autoencoder for each source, latents fitted to the mixture",
    ),
    "end_to_end": System(
        "fit_end_to_end",
        "EndToEndSettings",
        "fit_end_to_end",
        True,
        "waveform to waveform, with learnt analysis and synthesis",
    ),
}


def settings_of(name: str) -> type[Any]:
    """The settings' class of a system.

    Raises:
        OssicleError: there is none of that name.
    """
    found: type[Any] = getattr(_module(name), SYSTEMS[name].settings)
    return found


def fit_system(
    name: str,
    mixtures: Mixtures,
    settings: Any = None,
    *,
    folder: Path | None = None,
    progress: Steps | None = None,
) -> Separator:
    """Fit a system on the parts "train" and "valid" of mixtures.

    Args:
        name: of `SYSTEMS`.
        mixtures: with their stems.
        settings: of the system's class; None: the defaults.
        folder: of checkpoint and log, where the system is trained step by step.
        progress: called with what is done, all there is, and seconds of audio heard.

    Raises:
        OssicleError: there is no such system, or a setting is out of range.
        DataError: the mixtures have no part "train", or their sources have no names and the
            system needs them.
    """
    module = _module(name)
    system = SYSTEMS[name]
    if not len(mixtures.part("train")):
        raise DataError(f"{mixtures.root}: has no mixtures in a part 'train' to learn from")
    if system.ordered and not mixtures.sources:
        raise DataError(
            f"{mixtures.root}: {name} learns each source by itself and needs names for them "
            "(speech, noise); its sources are alike: use deep_clustering"
        )
    fit: Callable[..., Separator] = getattr(module, system.fit)
    settings = getattr(module, system.settings)() if settings is None else settings
    return fit(mixtures, settings, folder=folder, progress=progress)


def _module(name: str) -> Any:
    if name not in SYSTEMS:
        raise OssicleError(f"unknown system {name!r}: choose one of {', '.join(SYSTEMS)}")
    return import_module(f"ossicle.separate.{SYSTEMS[name].module}")
