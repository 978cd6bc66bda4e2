"""Labels with times: what sounds when.

`formats` reads and writes them (one file a format), `source` makes a data set of recordings and
their labels. All formats are read into the same rows (`rows`).
"""

from ossicle.datasets.strong.formats import (
    ENDINGS,
    KINDS,
    read_events,
    read_label_file,
    write_events,
)
from ossicle.datasets.strong.source import StrongClips, read_strong

__all__ = [
    "ENDINGS",
    "KINDS",
    "StrongClips",
    "read_events",
    "read_label_file",
    "read_strong",
    "write_events",
]
