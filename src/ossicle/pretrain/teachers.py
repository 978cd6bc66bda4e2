"""What frozen networks say of every window of the recordings: computed once, kept, gone on with.

A teacher's layers, pooled, are thousands of numbers that say much the same. They are standardised,
cut at eight deviations, and reduced to their principal components; each component is divided by the
square root of its deviation, so that the first ones lead without drowning the others. The numbers
are kept as float16 in a folder of the cache, beside what turns features into components.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ossicle.audio import resample
from ossicle.backbones import BACKBONES, WEIGHTS
from ossicle.download import cache_dir
from ossicle.errors import DataError, OssicleError
from ossicle.features import Progress, one_thread, run_in_order
from ossicle.heads import POOLINGS
from ossicle.model import Model, create_model
from ossicle.pretrain.waveforms import Waveforms
from ossicle.pretrain.windows import Windows, hear
from ossicle.record import json_safe, replaced, write_json

COMPONENTS = "components.safetensors"
DONE = "done.json"
FREE = ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC0-1.0", "ISC", "MIT")
# Windows that the components are learnt from.
SAMPLE = 4096
CUT = 8.0
CHUNK = 256
AT_ONCE_S = 16.0
ORDERED, SPANS = "spans", 8  # beside the poolings of any layer


class Teacher(NamedTuple):
    """What of a network is taught.

    Attributes:
        size: components kept.
        banded: layers that are also read channel by band.
        ordered: layers that are also read in eight spans of the window, one after another.
        deepest: the mean and the maximum of the last layer, and no other.
    """

    size: int = 128
    banded: tuple[str, ...] = ()
    ordered: tuple[str, ...] = ()
    deepest: bool = False


# Behind a network's name: its last layer, which among all is one of many, as a teacher of its own.
LAST = "/last"
# Others are taught by the mean of each of their layers and the maximum of the last.
TEACHERS: dict[str, Teacher] = {
    "yamnet": Teacher(512, ("pointwise4", "pointwise6", "pointwise8")),
    "efficientat_mn04": Teacher(256),
    "speech_embedding": Teacher(384, ("conv11", "conv15"), ("conv15",)),
}


class Targets(NamedTuple):
    """What is to be learnt of each window.

    Attributes:
        values: (n, K) float16, all teachers side by side; mapped from files where there is one.
        sizes: teacher -> columns, in order.
        licences: teacher -> SPDX identifier of its weights.
        folders: teacher -> where components and numbers are kept.
    """

    values: np.ndarray
    sizes: dict[str, int]
    licences: dict[str, str]
    folders: dict[str, Path]


def network_of(name: str) -> str:
    """The network that a teacher is: "yamnet" of "yamnet/last"."""
    return name.removesuffix(LAST)


def teacher_of(name: str) -> Teacher:
    """What of it is taught."""
    if name.endswith(LAST):
        return Teacher(256, deepest=True)
    return TEACHERS.get(name, Teacher())


def check_teachers(names: Sequence[str]) -> None:
    """Refuse what cannot teach.

    Raises:
        OssicleError: there is none, one is unknown, named twice, has no published weights, or
            weights whose licence does not let others be made from them.
    """
    if not names:
        raise OssicleError("distillation needs teachers: --teachers yamnet,efficientat_mn04")
    for name in names:
        network = network_of(name)
        if network not in BACKBONES or network not in WEIGHTS:
            known = ", ".join(sorted(WEIGHTS))
            raise OssicleError(f"{name!r} cannot teach: choose networks with weights: {known}")
        licence = WEIGHTS[network].licence
        if licence not in FREE:
            raise OssicleError(
                f"{name} cannot teach: its licence ({licence}) may not let weights be made from it"
            )
    if len(set(names)) < len(names):
        raise OssicleError("a teacher is named twice")


def learn_targets(
    waveforms: Waveforms,
    windows: Windows,
    names: Sequence[str],
    key: str,
    *,
    made: str = "",
    workers: int = 1,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> Targets:
    """Every teacher's components of every window; what is there already is not computed again.

    Args:
        waveforms: decoded recordings.
        windows: of them; those made of others come last. Components are learnt from the real ones,
            and kept apart, so that other made ones cost nothing but themselves.
        names: of teachers.
        key: what tells the real windows from others.
        made: what tells the made ones, beside `key`.
        workers: threads.
        seed: of the windows that components are learnt from.
        progress: told of windows done, over all teachers.

    Raises:
        OssicleError: as ``check_teachers``.
        DownloadError: a teacher's weights are not to be had.
    """
    check_teachers(names)
    columns: list[np.ndarray] = []
    sizes: dict[str, int] = {}
    folders: dict[str, Path] = {}
    n_real = int((~windows.changed).sum())
    parts = [windows.some(np.arange(n_real)), windows.some(np.arange(n_real, len(windows)))]
    total, before = len(names) * len(windows), 0
    for name in names:
        teacher, origin = teacher_of(name), WEIGHTS[network_of(name)].origin
        own = [key, name, list(teacher), origin, SAMPLE, CUT, seed]
        learnt: list[np.ndarray] = []
        for part, about in zip(parts, (own, [*own, made]), strict=True):
            if not len(part):
                continue
            name_of = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
            folder = cache_dir() / "teachers" / name_of

            def told(done: int, seconds: float, before: int = before) -> None:
                if progress is not None:
                    progress(Progress(before + done, total, seconds))

            if learnt:
                _carry_over(folders[name], folder)
            job = _Lesson(waveforms, part, name, teacher, folder, workers, seed)
            learnt.append(job.values(told))
            folders.setdefault(name, folder)
            before += len(part)
        columns.append(learnt[0] if len(learnt) == 1 else np.concatenate(learnt))
        sizes[name] = columns[-1].shape[1]
    values = columns[0] if len(columns) == 1 else np.concatenate(columns, 1)
    return Targets(values, sizes, {n: WEIGHTS[network_of(n)].licence for n in names}, folders)


def _carry_over(source: Path, folder: Path) -> None:
    """Components into another folder, where what was said through others counts no more."""
    there = folder / COMPONENTS
    if there.is_file() and there.read_bytes() == (source / COMPONENTS).read_bytes():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DONE).unlink(missing_ok=True)
    with replaced(there) as copy:
        shutil.copyfile(source / COMPONENTS, copy)


def keep_with_run(targets: Targets, folder: Path) -> None:
    """Copy what turns features into components to a run's folder, ``teachers/NAME.safetensors``."""
    out = folder / "teachers"
    out.mkdir(parents=True, exist_ok=True)
    for name, source in targets.folders.items():
        with replaced(out / f"{name.replace('/', '-')}.safetensors") as part:
            shutil.copyfile(source / COMPONENTS, part)


class Components(NamedTuple):
    """Features (D,) -> components (k,).

    Attributes:
        mean, deviation: (D,) of the features; 1 in place of a deviation of 0.
        directions: (D, k) float32, each divided by the square root of its component's deviation.
        centre: (k,) mean of what comes out.
    """

    mean: np.ndarray
    deviation: np.ndarray
    directions: np.ndarray
    centre: np.ndarray

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """(n, D) -> (n, k) float32."""
        standard = np.clip((X - self.mean) / self.deviation, -CUT, CUT)
        return standard @ self.directions - self.centre


def learn_components(X: np.ndarray, size: int) -> Components:
    """Principal components of standardised, cut features.

    Args:
        X: (n, D) float32.
        size: components, at most; no more than n - 1 and D.

    Raises:
        DataError: all rows are alike.
    """
    mean, deviation = X.mean(0, dtype=np.float64), X.std(0, dtype=np.float64)
    deviation = np.where(deviation > 1e-6 * np.abs(mean) + 1e-12, deviation, 1.0)
    mean, deviation = mean.astype(np.float32), deviation.astype(np.float32)
    Z = np.clip((X - mean) / deviation, -CUT, CUT)
    middle = Z.mean(0, dtype=np.float64).astype(np.float32)
    Z -= middle
    # Of the smaller of both products, which have the same values.
    wide = Z.shape[1] > len(Z)
    gram = (Z @ Z.T if wide else Z.T @ Z).astype(np.float64)
    values, vectors = np.linalg.eigh(gram)
    kept = min(size, len(X) - 1, X.shape[1])
    values, vectors = values[::-1][:kept], vectors[:, ::-1][:, :kept]
    # Of single precision, below which directions are noise.
    alive = values > 1e-6 * max(values[0], 1e-30)
    if not alive.any():
        raise DataError("all windows sound alike to a teacher: there is nothing to learn from it")
    values, vectors = values[alive], vectors[:, alive]
    directions = Z.T @ (vectors / np.sqrt(values)).astype(np.float32) if wide else vectors
    spread = np.sqrt(values / len(X))
    directions = (directions / np.sqrt(spread)).astype(np.float32)
    return Components(mean, deviation, directions, middle @ directions)


class _Lesson:
    """One teacher's numbers, in its folder."""

    def __init__(
        self,
        waveforms: Waveforms,
        windows: Windows,
        name: str,
        teacher: Teacher,
        folder: Path,
        workers: int,
        seed: int,
    ) -> None:
        self.waveforms, self.windows, self.name, self.teacher = waveforms, windows, name, teacher
        self.folder, self.workers, self.seed = folder, workers, seed
        self.order = np.argsort(windows.lengths, kind="stable")  # a batch has one length

    def values(self, told: Callable[[int, float], None]) -> np.ndarray:
        n = len(self.windows)
        data, done_file = self.folder / "values.f16", self.folder / DONE
        self.folder.mkdir(parents=True, exist_ok=True)
        components = self._components()
        k = components.directions.shape[1]
        done = 0
        if done_file.is_file() and data.is_file():
            with suppress(ValueError, LookupError, TypeError):  # what a crash left of it
                done = int(json.loads(done_file.read_text(encoding="utf-8"))["done"])
        if data.is_file() and data.stat().st_size != 2 * n * k:
            data.unlink()
            done = 0
        mode: Any = "r+" if data.is_file() else "w+"
        values = np.memmap(data, np.float16, mode, shape=(n, k))
        if done < n:
            model = self._model()
            chunks = [self.order[i : i + CHUNK] for i in range(done, n, CHUNK)]
            with one_thread():
                results = self._in_order(model, chunks)
                for number, X in results:
                    values[chunks[number]] = components(X)
                    done += len(chunks[number])
                    values.flush()
                    write_json(done_file, {"done": done})
                    told(done, float(self.windows.lengths[self.order[:done]].sum()) / self._rate)
        told(n, float(self.windows.lengths.sum()) / self._rate)
        return np.memmap(data, np.float16, "r", shape=(n, k))

    @property
    def _rate(self) -> int:
        return self.waveforms.sample_rate

    def _model(self) -> Model:
        return create_model(network_of(self.name), pretrained=True)

    def _components(self) -> Components:
        path = self.folder / COMPONENTS
        kept = _read_components(path)
        if kept is not None:
            return kept
        model = self._model()
        rng = np.random.default_rng(self.seed)
        rows = rng.choice(len(self.windows), min(SAMPLE, len(self.windows)), replace=False)
        rows = rows[np.argsort(self.windows.lengths[rows], kind="stable")]
        chunks = [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]
        with one_thread():
            X = np.concatenate([part for _, part in self._in_order(model, chunks)])
        learnt = learn_components(X, self.teacher.size)
        # safetensors writes memory as it lies, under the shape that it would have in C's order.
        arrays = map(np.ascontiguousarray, learnt)
        (self.folder / DONE).unlink(missing_ok=True)  # numbers belong to their components
        with replaced(path) as part:
            metadata = {"about": json.dumps(json_safe(self._about(model)))}
            save_file(dict(zip(Components._fields, arrays, strict=True)), part, metadata=metadata)
        return learnt

    def _in_order(self, model: Model, chunks: list[np.ndarray]) -> Iterator[tuple[int, Any]]:
        rows: Any = chunks  # in place of clips
        return run_in_order(lambda rows: self._features(model, rows), rows, self.workers)  # type: ignore[arg-type]

    def _about(self, model: Model) -> dict[str, Any]:
        source = WEIGHTS[network_of(self.name)]
        return {
            "teacher": self.name,
            "licence": source.licence,
            "origin": source.origin,
            "blocks": self._blocks(model),
            "windows": len(self.windows),
        }

    def _blocks(self, model: Model) -> list[str]:
        last = f"{model.layers[-1]}/max"
        if self.teacher.deepest:
            return [f"{model.layers[-1]}/mean", last]
        banded = [f"{layer}/band" for layer in self.teacher.banded]
        ordered = [f"{layer}/{ORDERED}" for layer in self.teacher.ordered]
        return [*(f"{layer}/mean" for layer in model.layers), *banded, *ordered, last]

    @torch.inference_mode()
    def _features(self, model: Model, rows: np.ndarray) -> np.ndarray:
        """(rows, D) float32; windows of one length go through the network together."""
        parts = []
        start = 0
        while start < len(rows):
            length = int(self.windows.lengths[rows[start]])
            most = max(1, int(AT_ONCE_S * self._rate / length))
            some = [r for r in rows[start : start + most] if self.windows.lengths[r] == length]
            start += len(some)
            sounds = [self._sound(model, int(row)) for row in some]
            maps = model.forward_layers(torch.from_numpy(np.stack(sounds)))
            parts.append(_read_out(model, maps, self._blocks(model)))
        return np.concatenate(parts)

    def _sound(self, model: Model, row: int) -> np.ndarray:
        sound = resample(hear(self.waveforms, self.windows, row), self._rate, model.sample_rate)
        return np.ascontiguousarray(model.clip.filled(sound, model.sample_rate), np.float32)


def _read_out(model: Model, maps: Any, blocks: Sequence[str]) -> np.ndarray:
    parts = []
    for block in blocks:
        layer, _, pooling = block.rpartition("/")
        x = maps[layer].float()
        if pooling == ORDERED:
            parts.append(spans(x.mean(2) if x.dim() == 4 else x).flatten(1))
        else:
            parts.append(POOLINGS[pooling](x))
    return torch.cat(parts, 1).numpy()


def spans(x: torch.Tensor) -> torch.Tensor:
    """(B, C, T) -> (B, C, 8, 1): means over eight spans, which share frames at their borders."""
    if x.shape[-1] < SPANS:
        x = F.interpolate(x.float(), SPANS, mode="nearest").to(x.dtype)
    return F.adaptive_avg_pool1d(x, SPANS).unsqueeze(-1)


def _read_components(path: Path) -> Components | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            return Components(*(file.get_tensor(name) for name in Components._fields))
    except (SafetensorError, KeyError, TypeError):
        return None
