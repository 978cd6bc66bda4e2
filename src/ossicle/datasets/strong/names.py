"""Which recording a name in a label file means.

Formats differ in what they keep of a name: RTTM has no ending, Raven the path on the machine of
whoever drew the selections, Label Studio the name alone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from ossicle.datasets.layouts import audio_below, resolve
from ossicle.datasets.patterns import relative_paths
from ossicle.errors import DataError

# Paths that count from the root of some machine, and addresses.
_WHOLE = re.compile(r"/|\\|[A-Za-z]:|[a-z0-9+]+://")


class Names:
    """Looks names up as paths first, then among the recordings below a folder.

    Args:
        root: the folder; None looks names up as paths alone.
        notes: where names that were found by a part of them alone are told.
    """

    def __init__(self, root: Path | None, notes: list[str]) -> None:
        self.root = root
        self.notes = notes
        self._paths: dict[str, list[str]] | None = None
        self._bases: dict[str, list[str]] = defaultdict(list)
        self._found: dict[str, tuple[str, bool]] = {}
        self._told = False

    def find(self, name: str, folder: Path) -> str | None:
        """The absolute path of a recording, or None.

        Args:
            name: a path, whole or counted from `folder`, with its ending or without; of a path of
                another machine, whatever part of its end is a path below the root.
            folder: that of the label file.

        Raises:
            DataError: several recordings could be meant, or one by several names.
        """
        path: str | None = resolve(name, folder) if name else None
        sure = path is not None and Path(path).is_file()
        if not sure:
            path, sure = self._among_recordings(name, folder)
        if path is None:
            return None
        before, before_sure = self._found.setdefault(path, (name, sure))
        if before != name and not (sure and before_sure):
            shown = relative_paths([path], self.root or folder)[0]
            raise DataError(f"{before} and {name}: would both be {shown}; write the whole paths")
        return path

    def _among_recordings(self, name: str, folder: Path) -> tuple[str | None, bool]:
        """The recording, and whether all of the name is in its path."""
        if self.root is None or not name:
            return None, False
        paths = self._index()
        parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
        below = relative_paths([str(folder)], self.root)[0] if folder != self.root else ""
        for key in (
            f"{below}/{'/'.join(parts)}",
            *("/".join(parts[i:]) for i in range(len(parts))),
        ):
            if key in paths:
                sure = key.endswith("/".join(parts))
                return self._only(paths[key], name, sure), sure
        # A name with folders that are not here must not mean a recording in another folder.
        if len(parts) == 1 or _WHOLE.match(name):
            found = self._bases.get(parts[-1], []) if parts else []
            if found:
                return self._only(found, name, len(parts) == 1), len(parts) == 1
        return None, False

    def _index(self) -> dict[str, list[str]]:
        """Path below the root, with its ending and without, -> recordings."""
        assert self.root is not None
        if self._paths is None:
            self._paths = defaultdict(list)
            for parts in audio_below(self.root)[0]:
                path, relative = str(self.root.joinpath(*parts)), "/".join(parts)
                for key in (relative, relative.rpartition(".")[0]):
                    self._paths[key].append(path)
                for key in (parts[-1], parts[-1].rpartition(".")[0]):
                    self._bases[key].append(path)
        return self._paths

    def _only(self, found: list[str], name: str, sure: bool) -> str:
        assert self.root is not None
        shown = relative_paths(found[:3], self.root)
        if len(found) > 1:
            raise DataError(f"{name}: could be any of {', '.join(shown)}; write the whole path")
        if not sure and not self._told:
            self._told = True
            self.notes.append(f"recordings found by the end of their paths: {name} is {shown[0]}")
        return found[0]
