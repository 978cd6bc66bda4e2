"""Pooled layers of any number of clips on disk, a column a block: read are the columns asked for.

A folder holds `key.json` (what the features are of), `features.lance` (a Lance data set, a row a
clip) and `notes.jsonl` (a line a piece: clips left out, seconds). A piece is seen whole, once it is
committed, or not at all. Writing holds one piece in memory, and 16 bytes a clip.

n clips, d values.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import secrets
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ossicle.errors import DataError, OssicleError
from ossicle.features import FeatureTable
from ossicle.record import json_safe, write_json

KEY, DATA, NOTES = "key.json", "features.lance", "notes.jsonl"
# Pieces as they came, after which they are joined: each commit lists every one of them anew.
LOOSE_PIECES = 256
# Size of what they are joined to; what is read at a time; the largest matrix held in memory.
JOINED_BYTES, BATCH_BYTES, MEMORY_BYTES = 2**30, 2**25, 2**31
_BLOCK, _FORMAT = b"block", 1
_TOLD = ("seconds_read", "seconds_used", "elapsed_s", "sample_rate")


class FeatureStore:
    """Features of a table's clips under one network: written in pieces, read by columns.

    Pickled, it is its folder, which another process opens again.

    Args:
        folder: made where it is missing.
        key: what the features are of, as JSON; None: whatever is there.

    Attributes:
        seconds_read, seconds_used: audio decoded, and audio that entered the features.
        elapsed_s: time of the extraction, the sum over pieces, whatever ran side by side.
        sample_rate: Hz of the network.

    Raises:
        DataError: the folder holds features of something else, or cannot be read.
        OssicleError: Lance is not installed.
    """

    def __init__(self, folder: str | Path, key: Mapping[str, Any] | None = None) -> None:
        if importlib.util.find_spec("lance") is None:
            raise OssicleError('the feature store needs Lance: pip install "ossicle[scale]"')
        self._lance: Any = importlib.import_module("lance")
        self.folder = Path(folder)
        self.key = _opened_key(self.folder, key)
        self._data: Any = None
        self._columns: OrderedDict[str, tuple[str, int]] = OrderedDict()  # block -> name, width
        self._place = np.zeros(0, np.int64)  # of each row in the data set; -1: it is not there
        self._n = self._loose = 0
        self._skipped: dict[int, tuple[str, str]] = {}
        self._told = -1
        self._refresh()

    @classmethod
    def of(cls, root: str | Path, key: Mapping[str, Any]) -> FeatureStore:
        """The store of that key, in a folder of its own below ``root``."""
        text = json.dumps(json_safe(key), sort_keys=True).encode()
        return cls(Path(root) / hashlib.sha256(text).hexdigest()[:16], key)

    def __reduce__(self) -> tuple[type[FeatureStore], tuple[Path]]:
        return (type(self), (self.folder,))

    def __len__(self) -> int:
        return len(self.rows())

    def rows(self) -> np.ndarray:
        """(n,) int64 rows with features, ascending."""
        self._refresh()
        return np.flatnonzero(self._place >= 0)

    def done(self) -> np.ndarray:
        """Rows that need no more work, ascending: with features, or left out for a reason."""
        return np.union1d(self.rows(), np.array(sorted(self._skipped), np.int64))

    @property
    def skipped(self) -> list[tuple[int, str, str]]:
        """(row, path, reason) of what could not be used, by row."""
        self._refresh()
        return [(row, *self._skipped[row]) for row in sorted(self._skipped)]

    @property
    def n_bytes(self) -> int:
        """Size on disk."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def names(self) -> list[str]:
        """Blocks "LAYER/POOLING", shallow to deep; none before there is a clip."""
        self._refresh()
        return list(self._columns)

    def sizes(self, names: Sequence[str] | None = None) -> list[int]:
        """Columns of each block, in the order of ``matrix``."""
        return [self._columns[name][1] for name in self._chosen(names)]

    def append(self, rows: np.ndarray, table: FeatureTable) -> None:
        """Add the features of a piece; rows that are there already stay as they are.

        Args:
            rows: (k,) of the clips that were asked for, each once, from 0.
            table: of them; its ``index`` and ``skipped`` count in ``rows``.

        Raises:
            OssicleError: the table has other blocks than the store, or a row comes twice.
            DataError: it cannot be written.
        """
        rows = np.asarray(rows, np.int64)
        if len(np.unique(rows)) != len(rows) or (rows < 0).any():
            raise OssicleError(f"{self.folder}: a row of a piece is negative, or there twice")
        with self._alone() as locked:
            self._refresh()
            asked = rows[np.asarray(table.index, np.int64)]
            new = ~self._there(asked)
            some = [(int(rows[row]), path, why) for row, path, why in table.skipped]
            some = [entry for entry in some if entry[0] not in self._skipped]
            if not new.any() and not some:
                return
            note: dict[str, Any] = {name: getattr(table, name) for name in _TOLD}
            note |= {"piece": secrets.randbits(62), "clips": int(new.sum()), "skipped": some}
            arrow = self._arrow(asked[new], table, new, note["piece"]) if new.any() else None
            with self._writing():
                # First the note, which counts once its piece is there: a stop leaves both or none.
                with (self.folder / NOTES).open("a", encoding="utf-8") as file:
                    file.write(f"\n{json.dumps(note)}\n")  # also after a line that was cut short
                if arrow is not None and self._data is None:
                    self._data = self._lance.write_dataset(arrow, self.folder / DATA)
                elif arrow is not None:
                    self._data = self._lance.write_dataset(arrow, self._data, mode="append")
                self._told = (self.folder / NOTES).stat().st_size
            self._count(note)
            if arrow is not None:
                self._add(asked[new])
                self._loose += 1
            if self._loose >= LOOSE_PIECES:
                self._join(locked)

    def compact(self) -> None:
        """Join what came piece by piece, and remove what stopped runs left behind."""
        with self._alone() as locked:
            self._refresh()
            if self._data is not None:
                self._join(locked)

    def matrix(
        self, names: Sequence[str] | None = None, rows: np.ndarray | None = None
    ) -> np.ndarray:
        """(n, d) float32: the blocks side by side; only their columns are read.

        Args:
            names: blocks; None is all.
            rows: of the clips, in the order wanted; None: all with features, ascending.

        Raises:
            OssicleError: no block is named, one is not there, or a row has no features.
        """
        chosen = self._chosen(names)
        columns, width = [self._columns[n][0] for n in chosen], sum(self.sizes(chosen))
        size = max(1, BATCH_BYTES // (4 * width))
        if rows is None:
            rank = np.empty(self._n, np.int64)
            rank[self._place[self._place >= 0]] = np.arange(self._n)
            scan = self._data.scanner(columns, batch_size=size, scan_in_order=True)
            return self._filled(scan.to_batches(), rank, chosen, width)
        places = self._place[self._checked(rows)]
        parts = (places[start : start + size] for start in range(0, len(places), size))
        taken = (self._data.take(part.tolist(), columns).to_batches() for part in parts)
        batches = (batch for part in taken for batch in part)
        return self._filled(batches, np.arange(len(places)), chosen, width)

    def features(self, names: Sequence[str] | None = None) -> np.ndarray | StoreMatrix:
        """``matrix``, or where it is larger than MEMORY_BYTES, its rows on disk."""
        matrix = StoreMatrix(self, names)
        return matrix if 4 * np.prod(matrix.shape) > MEMORY_BYTES else self.matrix(names)

    def table(self, names: Sequence[str] | None = None) -> FeatureTable:
        """All clips' features in memory, as ``ossicle.features.extract`` gives them.

        Args:
            names: blocks; None is all.

        Raises:
            DataError: no clip has features.
            OssicleError: a block is not there.
        """
        if not len(self):
            first = "".join(f"; the first: {p}: {why}" for _, p, why in self.skipped[:1])
            raise DataError(f"{self.folder}: no clip has features{first}")
        blocks = OrderedDict((name, self.matrix([name])) for name in self._chosen(names))
        told: dict[str, Any] = {name: getattr(self, name) for name in _TOLD}
        return FeatureTable(blocks, self.rows(), self.skipped, **told)

    def _filled(
        self, batches: Iterator[Any], at: np.ndarray, chosen: Sequence[str], width: int
    ) -> np.ndarray:
        """(n, d), the rows of the batches in turn at those of the matrix."""
        matrix, start = np.empty((len(at), width), np.float32), 0
        for batch in batches:
            rows, left = at[start : start + batch.num_rows], 0
            for number, name in enumerate(chosen):
                size = self._columns[name][1]
                values = batch.column(number).flatten().to_numpy(zero_copy_only=True)
                matrix[rows, left : left + size] = values.reshape(-1, size)
                left += size
            start += batch.num_rows
        return matrix

    def _chosen(self, names: Sequence[str] | None) -> list[str]:
        self._refresh()
        chosen = list(self._columns if names is None else names)
        unknown = [name for name in chosen if name not in self._columns]
        if unknown or not chosen:
            which = unknown[0] if unknown else "none is named"
            raise OssicleError(f"{self.folder}: no such block: {which}")
        return chosen

    def _there(self, rows: np.ndarray) -> np.ndarray:
        """(k,) whether each row has features."""
        there = (rows >= 0) & (rows < len(self._place))
        there[there] = self._place[rows[there]] >= 0
        return there

    def _checked(self, rows: np.ndarray) -> np.ndarray:
        rows = np.asarray(rows, np.int64)
        if not (there := self._there(rows)).all():
            raise OssicleError(f"{self.folder}: row {rows[~there][0]} has no features")
        return rows

    def _add(self, rows: np.ndarray) -> None:
        """Note where rows are that come next in the data set."""
        if len(rows) and (top := int(rows.max()) + 1) > len(self._place):
            room = max(top, 2 * len(self._place)) - len(self._place)
            self._place = np.pad(self._place, (0, room), constant_values=-1)
        self._place[rows] = self._n + np.arange(len(rows))
        self._n += len(rows)
        for column in () if self._columns else self._data.schema:
            if name := (column.metadata or {}).get(_BLOCK):
                self._columns[name.decode()] = (column.name, column.type.list_size)

    def _arrow(self, rows: np.ndarray, table: FeatureTable, new: np.ndarray, piece: int) -> Any:
        """Rows of the data set; ``new`` is a mask on those of the table."""
        widths = [(name, block.shape[1]) for name, block in table.blocks.items()]
        if self._columns and widths != list(zip(self._columns, self.sizes(), strict=True)):
            raise OssicleError(f"{self.folder}: the piece has other blocks than the store")
        arrays = [pa.array(rows), pa.array(np.full(len(rows), piece))]
        fields = [pa.field(name, pa.int64(), nullable=False) for name in ("row", "piece")]
        for number, (name, block) in enumerate(table.blocks.items()):
            flat = pa.array(np.ascontiguousarray(block[new], np.float32).reshape(-1))
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, block.shape[1]))
            # Lance takes no dots in a column's name, and layers of some networks have them.
            told, kind = {_BLOCK: name.encode()}, arrays[-1].type
            fields.append(pa.field(f"block{number}", kind, nullable=False, metadata=told))
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields))

    def _join(self, locked: bool) -> None:
        width = 16 + 4 * sum(self.sizes())
        with self._writing():
            self._data.optimize.compact_files(
                target_rows_per_fragment=max(1, JOINED_BYTES // width),
                batch_size=max(1, BATCH_BYTES // width),
                num_threads=1,
            )
            # Where nobody else writes, what no version names was never committed.
            self._data.cleanup_old_versions(timedelta(0), delete_unverified=locked)
        self._data = None
        self._refresh()
        self._loose = 0

    def _count(self, note: Mapping[str, Any]) -> None:
        self._skipped |= {int(row): (path, reason) for row, path, reason in note["skipped"]}
        for name in _TOLD[:3]:
            setattr(self, name, getattr(self, name) + note[name])
        self.sample_rate = note["sample_rate"]

    def _refresh(self) -> None:
        """Look again where another process has written."""
        told, data = (self.folder / NOTES).stat().st_size, self._data
        if data is None or data.latest_version != data.version:
            data = self._opened()
        if data is self._data and told == self._told:
            return
        self._data, self._told, self._skipped = data, told, {}
        self.seconds_read = self.seconds_used = self.elapsed_s = 0.0
        self.sample_rate = 0
        self._n, self._place, pieces = 0, np.zeros(0, np.int64), set()
        if data is not None:
            for batch in data.scanner(["row", "piece"], scan_in_order=True).to_batches():
                self._add(batch.column(0).to_numpy())
                pieces.update(np.unique(batch.column(1).to_numpy()).tolist())
            self._loose = len(data.get_fragments())
        with (self.folder / NOTES).open("rb") as file:
            for line in file:
                with suppress(ValueError):  # empty, or cut short by a crash
                    note = json.loads(line)
                    if not note["clips"] or note["piece"] in pieces:
                        self._count(note)

    def _opened(self) -> Any:
        if not any((self.folder / DATA).glob("_versions/*.manifest")):
            return None
        try:
            return self._lance.dataset(self.folder / DATA)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.folder}: cannot be read; delete it") from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = error.strerror or str(error).partition(", /")[0]
            raise DataError(f"{self.folder}: cannot be written ({why})") from error

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """One process writes at a time, others wait; False where the disk cannot see to it."""
        locked = False
        with (self.folder / KEY).open("rb") as file:
            with suppress(ImportError, OSError):
                fcntl: Any = importlib.import_module("fcntl")
                fcntl.flock(file, fcntl.LOCK_EX)
                locked = True
            yield locked


class StoreMatrix:
    """What ``FeatureStore.matrix`` gives, (n, d) float32, read from disk as it is indexed.

    Args:
        store: of the features.
        names, rows: and errors: as in ``FeatureStore.matrix``.

    Attributes:
        shape: (n, d).
        block_sizes: columns of each block.
        rows: (n,) of the clips.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self,
        store: FeatureStore,
        names: Sequence[str] | None = None,
        rows: np.ndarray | None = None,
    ) -> None:
        self.store = store
        self.names = store.names() if names is None else list(names)
        self.block_sizes = store.sizes(self.names)
        self.rows = store.rows() if rows is None else store._checked(rows)
        self.shape = (len(self.rows), sum(self.block_sizes))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: Any) -> np.ndarray:
        """(k, d) at positions, a slice or a mask; (d,) at an integer."""
        rows = self.rows[at]
        matrix = self.store.matrix(self.names, np.atleast_1d(rows))
        return matrix if np.ndim(rows) else matrix[0]


def _opened_key(folder: Path, key: Mapping[str, Any] | None) -> dict[str, Any]:
    path = folder / KEY
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NOTES).touch()
        if not path.is_file():
            write_json(path, {"format": _FORMAT, "key": json_safe(key or {})})
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["format"] != _FORMAT:
            raise ValueError
        found = dict(told["key"])
    except OSError as error:
        raise DataError(f"{folder}: no feature store ({error.strerror or error})") from error
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: of no feature store of this version; delete {folder}") from error
    wanted = found if key is None else json_safe(key)
    if differ := [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]:
        what = f"{folder}: holds features of something else (other {', '.join(differ)})"
        raise DataError(f"{what}; choose another folder, or delete it")
    return found
