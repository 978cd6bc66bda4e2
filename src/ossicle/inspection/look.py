"""All of an inspection in one call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ossicle.datasets.clips import read_clips
from ossicle.datasets.mixtures import read_mixtures
from ossicle.errors import OssicleError
from ossicle.features import ProgressCallback
from ossicle.inspection.clips import look_at_clips
from ossicle.inspection.exhibit import Inspection
from ossicle.inspection.network import look_at_network
from ossicle.inspection.partition import look_at_labelled
from ossicle.inspection.separators import look_at_separator
from ossicle.inspection.source import described, open_source
from ossicle.model import Model
from ossicle.separators.base import Separator
from ossicle.separators.partitioned_autoencoder import PartitionedAutoencoder

CLIPS, MIXTURES = 300, 40


def look(
    source: str,
    pick: Callable[[str], Model],
    *,
    clips: Any = None,
    mixtures: str | Path | None = None,
    split: str = "test",
    largest: int = 32,
    most: int | None = None,
    without: str | None = None,
    groups: str | None = None,
    labels: str | None = None,
    random: bool = False,
    seed: int = 0,
    workers: int = 1,
    progress: ProgressCallback | None = None,
) -> Inspection:
    """Look into a bundle or a network.

    Args:
        source: a bundle's folder, or a network's name.
        pick: name -> network, such as ``ossicle.line.pick_model``.
        clips: of labelled sounds, as ``read_clips`` takes them; for networks.
        mixtures: a folder, as ``read_mixtures`` takes it; for separators.
        split: which part of the mixtures.
        largest: kernels of a layer that are shown, by norm.
        most: clips (None: 300) or mixtures (None: 40) at most.
        without: of clips for a partitioned autoencoder, the label of those of noise alone.
        groups, labels: of the clips, see ``read_clips``.
        random: new weights in place of the bundle's.
        seed: of draws and intervals.
        workers: threads.
        progress: called after every clip or mixture.

    Raises:
        OssicleError: there is no such thing, or clips or mixtures do not go with it.
    """
    thing = open_source(source, pick, random=random)
    found = described(thing, source)
    if isinstance(thing, Separator):
        if clips is not None and not isinstance(thing, PartitionedAutoencoder):
            raise OssicleError(f"{source}: is a separator; it takes --mixtures, not --clips")
        read = None if clips is None else read_clips(clips, groups=groups, labels=labels)
        data = None if mixtures is None else read_mixtures(mixtures).part(split, required=True)
        look_at_separator(thing, found, data, most=most or MIXTURES, seed=seed, progress=progress)
        if read is not None and isinstance(thing, PartitionedAutoencoder):
            look_at_labelled(
                thing, found, read, without, most=most or CLIPS, seed=seed, progress=progress
            )
        return found
    if mixtures is not None:
        raise OssicleError(f"{source}: is no separator; it takes --clips, not --mixtures")
    read = None if clips is None else read_clips(clips, groups=groups, labels=labels)
    found.notes += [] if read is None else read.notes
    look_at_network(thing, found, most=largest)
    if read is not None:
        look_at_clips(
            thing, read, found, most=most or CLIPS, seed=seed, workers=workers, progress=progress
        )
    return found
