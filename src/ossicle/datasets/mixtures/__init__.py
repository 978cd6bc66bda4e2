"""Mixtures of clips, with what they were made of: written, and read.

One file a step: `sources` reads the clips, `parts` says which may be in train, valid, test and
unseen, `plan` draws what a mixture holds, `render` makes its samples, `write` the files; `read` and
`others` find them again as a `table`.
"""

from __future__ import annotations

from ossicle.datasets.mixtures.read import read_mixtures
from ossicle.datasets.mixtures.settings import PARTS, MixtureSettings
from ossicle.datasets.mixtures.table import Mixture, Mixtures
from ossicle.datasets.mixtures.write import write_mixtures

__all__ = [
    "PARTS",
    "Mixture",
    "MixtureSettings",
    "Mixtures",
    "read_mixtures",
    "write_mixtures",
]
