"""Windows of recordings with the targets of their frames, in batches known from their number.

W windows, B of them in a batch, K classes, T frames, N samples of a window.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ossicle.datasets.strong import StrongClips
from ossicle.errors import DataError
from ossicle.features import Clip
from ossicle.pretrain.waveforms import Waveforms
from ossicle.strong.targets import frame_targets, pack, spans
from ossicle.train import Batch, step_seed

ORDER = 21  # stream of random numbers


class Windows(NamedTuple):
    """Stretches of recordings, each heard at once.

    Attributes:
        items: (W,) number of the recording among the waveforms.
        starts: (W,) first sample.
        lengths: (W,) samples that are the recording's; the rest of a window is filling.
    """

    items: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


def cut_windows(lengths: Sequence[int] | np.ndarray, size: int) -> Windows:
    """Windows that hold every sample of recordings, the last ending where the recording does.

    A recording that is no multiple of the window is cut into windows that overlap evenly; one
    shorter than a window is one, filled up.

    Args:
        lengths: samples of each recording.
        size: samples of a window.

    >>> cut_windows([25, 4], 10).starts
    array([ 0,  8, 15,  0])
    """
    items, starts, used = [], [], []
    for item, length in enumerate(np.asarray(lengths).tolist()):
        n = max(1, -(-length // size))
        first = np.linspace(0, max(0, length - size), n).round().astype(int)
        items += [item] * n
        starts += first.tolist()
        used += [min(size, length)] * n
    return Windows(*(np.array(part, np.int64) for part in (items, starts, used)))


def recordings(clips: StrongClips) -> list[Clip]:
    """The recordings, to be decoded."""
    return [Clip(str(path)) for path in clips.files["path"]]


class Labels:
    """The targets of any window of some recordings.

    Args:
        clips: strong and weak labels.
        waveforms: their recordings, decoded; ``rows`` are rows of ``clips.files``.
        edges: (T + 1,) of a window's frames, in seconds from its start.
    """

    def __init__(self, clips: StrongClips, waveforms: Waveforms, edges: np.ndarray) -> None:
        self.classes, self.edges, self.rate = clips.classes, edges, waveforms.sample_rate
        by_file = {str(name): spans(part) for name, part in clips.events.groupby("file")}
        files = clips.files.iloc[waveforms.rows]
        self._events = [by_file.get(str(path), {}) for path in files["path"]]
        self._strong = [kind == "strong" for kind in files["kind"]]
        index = {name: k for k, name in enumerate(clips.classes)}
        self._weak = np.zeros((len(files), len(clips.classes)), np.float32)
        for row, labels in zip(self._weak, files["labels"], strict=True):
            row[[index[label] for label in labels if label in index]] = 1

    def of(self, item: int, start: int, length: int) -> np.ndarray:
        """(K + 2, T + 1) targets of a window, as ``ossicle.strong.targets.pack`` packs them.

        A window of a recording with weak labels is said to hold all of them: where it is but a
        part of the recording, nobody knows better.

        Args:
            item: number of the recording among the waveforms.
            start: first sample of the window.
            length: samples of it that are the recording's.
        """
        onset, edges = start / self.rate, self.edges
        valid = (edges[:-1] < length / self.rate).astype(np.float32)
        if not self._strong[item]:
            nothing = np.zeros((len(self.classes), len(edges) - 1), np.float32)
            return pack(nothing, np.zeros_like(valid), self._weak[item], valid)
        frames = frame_targets(self._events[item], edges + onset, self.classes) * valid
        return pack(frames, valid, (frames.max(1) > 0).astype(np.float32), valid)


class StrongBatches:
    """Batch ``step`` of windows: what the network hears, and what it should answer.

    An epoch goes once through all windows in a random order. ``Batch.waveforms`` are (b, 1, N)
    samples, or where maps are given, (b, 1, M) of them; ``Batch.targets`` are (b, K + 2, T + 1).

    Args:
        waveforms: decoded recordings.
        windows: of them.
        labels: the windows' targets.
        batch_size: windows of a step; fewer where there are fewer in all.
        window: N.
        maps: (any, M) float16, what a frozen front makes of windows, heard in their place.
        numbers: (W,) the row of each window in ``maps``; None: its own number.
        seed: of the order.

    Attributes:
        seconds_per_item: of audio.
        steps_per_epoch: whole batches; what is left of an epoch is left out of it.

    Raises:
        DataError: there are no windows.
    """

    def __init__(
        self,
        waveforms: Waveforms,
        windows: Windows,
        labels: Labels,
        *,
        batch_size: int,
        window: int,
        maps: np.ndarray | None = None,
        numbers: np.ndarray | None = None,
        seed: int = 0,
    ) -> None:
        if not len(windows.items):
            raise DataError("there are no recordings to learn from")
        self.waveforms, self.windows, self.labels = waveforms, windows, labels
        self.batch_size, self.window = min(batch_size, len(windows.items)), window
        self.maps, self.numbers, self.seed = maps, numbers, seed
        self.seconds_per_item = window / waveforms.sample_rate
        self.steps_per_epoch = len(windows.items) // self.batch_size
        self._epoch: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))
        self._lock = threading.Lock()

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The batch of ``step``.

        Raises:
            DataError: it is to be dealt out to several processes, which nothing here does.
        """
        if world > 1:
            raise DataError("a detector is trained in one process")
        chosen = self._chosen(step)
        heard = np.stack([self._heard(int(number)) for number in chosen])
        targets = np.stack([self.labels.of(*self._where(int(number))) for number in chosen])
        names = [self.waveforms.names[self.windows.items[number]] for number in chosen]
        rows = slice(0, len(chosen))
        return Batch(
            torch.from_numpy(heard)[:, None],
            names,
            rows,
            len(chosen),
            None,
            torch.from_numpy(targets),
        )

    def _chosen(self, step: int) -> np.ndarray:
        epoch, place = divmod(step, self.steps_per_epoch)
        with self._lock:  # of several loaders
            if self._epoch[0] != epoch:
                rng = np.random.default_rng(step_seed(self.seed, epoch, ORDER))
                self._epoch = (epoch, rng.permutation(len(self.windows.items)))
            order = self._epoch[1]
        return order[place * self.batch_size : (place + 1) * self.batch_size]

    def _where(self, number: int) -> tuple[int, int, int]:
        w = self.windows
        return int(w.items[number]), int(w.starts[number]), int(w.lengths[number])

    def _heard(self, number: int) -> np.ndarray:
        if self.maps is not None:
            row = number if self.numbers is None else int(self.numbers[number])
            return self.maps[row].astype(np.float32)
        item, start, _ = self._where(number)
        return self.waveforms.read(item, start, self.window)
