"""Systems that take a recording apart: one file a system, all behind `base.Separator`."""

from __future__ import annotations

from importlib import import_module

from ossicle.errors import OssicleError
from ossicle.separators.base import Separator

# Where each lives; loaded on first use. Bundles name them.
SEPARATORS = {
    "deep_clustering": "deep_clustering:DeepClustering",
    "nmf": "nmf:NMF",
    "unfolded_nmf": "unfolded_nmf:UnfoldedNMF",
    "nonnegative_autoencoder": "nonnegative_autoencoder:NonnegativeAutoencoder",
    "end_to_end": "end_to_end:EndToEnd",
    "partitioned_autoencoder": "partitioned_autoencoder:PartitionedAutoencoder",
    "spectral_gate": "spectral_gate:SpectralGate",
}


def separator_class(name: str) -> type[Separator]:
    """The class of a system.

    Raises:
        OssicleError: there is none of that name.
    """
    if name not in SEPARATORS:
        raise OssicleError(f"unknown system {name!r}; there are {', '.join(SEPARATORS)}")
    module, kind = SEPARATORS[name].split(":")
    found: type[Separator] = getattr(import_module(f"{__name__}.{module}"), kind)
    return found
