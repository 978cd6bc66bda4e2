"""Exhibits of a separator: each system by what it is made of, any other by its weights."""

from __future__ import annotations

from ossicle.datasets.mixtures import Mixtures
from ossicle.errors import OssicleError
from ossicle.features import ProgressCallback
from ossicle.inspection.decoders import autoencoder_exhibits, nmf_exhibits
from ossicle.inspection.exhibit import Inspection
from ossicle.inspection.network import ranks
from ossicle.inspection.partition import mixture_exhibits, partition_exhibits
from ossicle.inspection.speakers import speaker_exhibits
from ossicle.inspection.transforms import transform_exhibits
from ossicle.inspection.weights import weight_table
from ossicle.separators.base import Separator
from ossicle.separators.deep_clustering import DeepClustering
from ossicle.separators.end_to_end import EndToEnd
from ossicle.separators.nmf import NMF
from ossicle.separators.nonnegative_autoencoder import NonnegativeAutoencoder
from ossicle.separators.partitioned_autoencoder import PartitionedAutoencoder


def look_at_separator(
    separator: Separator,
    found: Inspection,
    mixtures: Mixtures | None = None,
    *,
    most: int = 300,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> None:
    """Add what a separator is made of, and what it makes of mixtures.

    Args:
        separator: of any system.
        found: what is added to.
        mixtures: of its rate.
        most: of them at most, the first.
        seed: of what is drawn, and of intervals.
        progress: called after every mixture.

    Raises:
        OssicleError: the mixtures are of another rate, or of other sources.
    """
    if mixtures is not None:
        _check(separator, mixtures)
        found.facts["mixtures"] = str(min(most, len(mixtures)))
    if isinstance(separator, NMF):
        found.exhibits += nmf_exhibits(separator, mixtures, most)
    elif isinstance(separator, NonnegativeAutoencoder):
        found.exhibits += autoencoder_exhibits(separator, mixtures, most)
    elif isinstance(separator, EndToEnd):
        found.exhibits += transform_exhibits(separator)
    elif isinstance(separator, PartitionedAutoencoder):
        found.exhibits += partition_exhibits(separator)
        if mixtures is not None:
            found.exhibits += mixture_exhibits(
                separator, mixtures, found, most=most, seed=seed, progress=progress
            )
        else:
            found.notes.append("which latents carry foreground is told from --mixtures or --clips")
    elif isinstance(separator, DeepClustering):
        if mixtures is not None:
            found.exhibits += speaker_exhibits(
                separator, mixtures, found, most=most, seed=seed, progress=progress
            )
        else:
            found.notes.append("its embeddings are of mixtures: --mixtures shows them")
    # Changes of the unfolded bases are several matrices in one tensor, and have their own picture.
    table = weight_table(p for p in separator.named_parameters() if p[0] != "changes")
    if len(table):
        found.exhibits.append(ranks(table))
    else:
        found.notes.append("nothing in this system is learnt: there are no weights to show")


def _check(separator: Separator, mixtures: Mixtures) -> None:
    if mixtures.sample_rate != separator.sample_rate:
        raise OssicleError(
            f"{mixtures.root}: mixtures of {mixtures.sample_rate} Hz, the bundle is for "
            f"{separator.sample_rate} Hz: make them anew at its rate"
        )
    if separator.sources and mixtures.n_sources != len(separator.sources):
        raise OssicleError(
            f"{mixtures.root}: mixtures of {mixtures.n_sources} sources, the bundle gives "
            f"{len(separator.sources)} ({', '.join(separator.sources)})"
        )
