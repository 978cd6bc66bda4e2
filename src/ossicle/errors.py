"""The errors that a user can cause and mend: each message is one line that says what to do."""

from __future__ import annotations

from os import PathLike, fspath


class OssicleError(Exception):
    """Base of all errors that stem from input; the command line prints them and exits with 2."""


class AudioError(OssicleError):
    """A file that cannot be used as audio.

    Args:
        path: the file.
        reason: why, in a few words, with what to do about it.
    """

    def __init__(self, path: str | PathLike[str], reason: str) -> None:
        super().__init__(f"{fspath(path)}: {reason}")
        self.path = fspath(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[AudioError], tuple[str, str]]:
        # Exceptions cross process borders from data workers; the default rebuilds from `args`.
        return (AudioError, (self.path, self.reason))


class DataError(OssicleError):
    """A clips table, label or split that cannot be used."""


class BundleError(OssicleError):
    """A saved model that is broken, hostile or of another version."""


class DownloadError(OssicleError):
    """A file that could not be fetched or whose checksum is wrong."""
