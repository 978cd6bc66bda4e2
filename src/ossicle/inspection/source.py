"""What is looked into: a bundle, or a network by its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ossicle import bundle
from ossicle.backbones import is_family
from ossicle.errors import OssicleError
from ossicle.inspection.exhibit import Inspection
from ossicle.model import Model
from ossicle.separators import SEPARATORS
from ossicle.separators.base import Separator

if TYPE_CHECKING:
    from collections.abc import Callable


def open_source(
    source: str, pick: Callable[[str], Model], *, random: bool = False
) -> Model | Separator:
    """The bundle of that path, or what ``pick`` makes of the name.

    Args:
        source: a bundle's folder, or a network's name.
        pick: name -> network, such as ``ossicle.line.pick_model``.
        random: whether ``pick`` draws new weights, for a bundle's network too.

    Raises:
        BundleError: the path is there and is no bundle, or a broken one.
        OssicleError: there is no such network, or a separator's weights are to be drawn.
    """
    if bundle.is_bundle(source) or (Path(source).exists() and not is_family(source)):
        found = bundle.load_any(source)
        if not random:
            return found
        if isinstance(found, Separator):
            raise OssicleError(f"{source}: is a separator; --random is for networks")
    return pick(source)


def described(found: Model | Separator, source: str) -> Inspection:
    """The title and the facts at the top of the page."""
    name = Path(source).name if Path(source).exists() else source
    size = sum(p.numel() for p in found.parameters())
    facts = {"parameters": f"{size:,}", "sample rate": f"{found.sample_rate:,} Hz"}
    if isinstance(found, Separator):
        known = {place.rpartition(":")[2]: name for name, place in SEPARATORS.items()}
        system = known.get(type(found).__name__, type(found).__name__)
        sources = ", ".join(found.sources) or "any number of like sources"
        return Inspection(name, {"system": str(system), "sources": sources, **facts})
    front = type(found.frontend).__name__
    facts["front end"] = (
        f"{front}, {found.frontend.n_bands} bands" if front != "Waveform" else ("waveform")
    )
    facts["layers"] = str(len(found.layers))
    if found.info.get("weights"):
        facts["weights"] = str(found.info["weights"])
    if found.head is not None:
        facts["head"] = f"{found.head.sizes[0]:,} values to {found.head.sizes[-1]} outputs"
    return Inspection(name, facts)
