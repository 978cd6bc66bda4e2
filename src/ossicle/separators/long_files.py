"""A recording of any length, rate and number of channels through a separator, in constant memory.

Blocks (`overlap`) of the recording at its own rate are taken apart one by one (`any_rate`), put
into one order where sources have no names (`matching`), and cross-faded. The ramps add up to one,
so sources that add up to each block add up to the recording.

Symbols: S sources, C channels, N samples; time last.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ossicle.audio import Audio, stream
from ossicle.decode import open_decoder
from ossicle.errors import AudioError, OssicleError
from ossicle.separators.any_rate import BANDS, separate_stretch
from ossicle.separators.base import Separator
from ossicle.separators.fourier import Fourier
from ossicle.separators.in_order import in_order
from ossicle.separators.matching import Matcher
from ossicle.separators.overlap import Block, Join, cut, plan_blocks
from ossicle.writer import JointWriter, subtype_like

# What is decoded at once.
_PIECE_S = 5.0


@dataclass
class FileResult:
    """What became of a recording.

    Attributes:
        path: of the recording.
        outputs: the files that were written.
        sources: their names; numbers from 1 where sources have none.
        frames: samples in each, as many as in the recording.
        sample_rate: Hz, of the recording and its sources.
        channels: of the same.
        subtype: how samples were written.
        gain_db: that all written sources were turned down by, so that none clips; 0: none was.
        energy_shares: of each written source, its energy over that of all sources.
        damage: why the recording ends before its end; "" where it is whole.
        notes: for the user.
    """

    path: str
    outputs: list[Path]
    sources: list[str]
    frames: int
    sample_rate: int
    channels: int
    subtype: str
    gain_db: float
    energy_shares: list[float]
    damage: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate


def separate_stream(
    separator: Separator,
    pieces: Iterable[np.ndarray],
    sample_rate: int,
    n_sources: int | None = None,
    *,
    band: str = "all",
    workers: int = 1,
) -> Iterator[np.ndarray]:
    """Take a stream apart, in constant memory.

    Args:
        separator: it is put into evaluation.
        pieces: (C, n) float32 each, of any lengths.
        sample_rate: Hz, of the pieces.
        n_sources: S, where the separator's sources have no names.
        band: "all": what lies above the model's band is dealt out to the sources; "model": it is
            dropped.
        workers: threads, a block each; no number changes the result.

    Yields:
        (S, C, n): stretches that, joined, are as long as the stream.

    Raises:
        OssicleError: an argument makes no sense, or the separator's answer none.
    """
    count = separator.count(n_sources)
    if band not in BANDS:
        raise OssicleError(f"no band {band!r}: choose from {', '.join(BANDS)}")
    if workers < 1:
        raise OssicleError(f"workers must be at least 1, got {workers}")
    separator.eval()
    fourier = getattr(separator, "fourier", None)
    plan = plan_blocks(
        separator.block_s,
        separator.overlap_s,
        sample_rate,
        separator.sample_rate,
        fourier.hop_length if isinstance(fourier, Fourier) else 1,
    )
    join = Join(plan)
    matcher = None if separator.sources else Matcher(count, sample_rate)

    def separate(block: Block) -> tuple[Block, np.ndarray]:
        found = separate_stretch(separator, block.samples, sample_rate, n_sources, band)
        return block._replace(samples=block.samples[:, :0]), found

    for block, sources in in_order(separate, cut(pieces, plan), workers):
        if matcher is not None:
            if join.tail is not None:
                shared = join.shared(block.start, sources)
                sources = sources[matcher.order(join.tail, shared, sources)]
            if not block.last:
                matcher.remember(sources)
        yield join.push(block.start, sources, block.last)


def separate_array(
    separator: Separator,
    audio: Audio,
    n_sources: int | None = None,
    *,
    band: str = "all",
    workers: int = 1,
) -> np.ndarray:
    """Take sound in memory apart: what `separate_file` writes, before it is coded.

    Args:
        separator: it is put into evaluation.
        audio: samples (C, N) or (N,) and their rate.
        n_sources, band, workers: as in `separate_stream`.

    Returns:
        (S, C, N) float32, at the rate of the audio.

    Raises:
        OssicleError: as in `separate_stream`, or there are no samples, or some are not finite.
    """
    samples = np.atleast_2d(np.asarray(audio.samples, np.float32))
    if samples.ndim != 2 or not samples.size or not np.isfinite(samples).all():
        raise OssicleError(f"samples must be (C, N), some, and finite: got shape {samples.shape}")
    pieces = separate_stream(
        separator, [samples], audio.sample_rate, n_sources, band=band, workers=workers
    )
    return np.concatenate(list(pieces), -1)


def source_names(separator: Separator, n_sources: int | None = None) -> list[str]:
    """Names of what comes out; "1", "2", ... where sources have none.

    Raises:
        OssicleError: as `Separator.count`.
    """
    count = separator.count(n_sources)
    return list(separator.sources) or [str(i + 1) for i in range(count)]


def separate_file(
    separator: Separator,
    path: str | os.PathLike[str],
    outputs: Sequence[str | os.PathLike[str]],
    *,
    n_sources: int | None = None,
    keep: Sequence[int] | None = None,
    subtype: str | None = None,
    band: str = "all",
    workers: int = 1,
    work: Path | None = None,
    progress: Callable[[float], None] | None = None,
) -> FileResult:
    """Take a file apart; each source has its length, rate and channels, and none clips.

    A file that cannot be read to its end is taken apart up to there. The outputs appear together
    when all is done.

    Args:
        separator: it is put into evaluation.
        path: the recording.
        outputs: a .wav or .flac file for each source that is written.
        n_sources: S, where the separator's sources have no names; default 2.
        keep: numbers of the sources to write, from 0; None: all.
        subtype: soundfile's name of the coding; None: like the recording's.
        band, workers: as in `separate_stream`.
        work: folder for temporary files (4 bytes a sample and channel), on the outputs' disk; None:
            beside them.
        progress: called after every block with the seconds that are done.

    Raises:
        AudioError: the recording cannot be read, or the outputs' format cannot hold it.
        DataError: the outputs cannot be written.
        OssicleError: an argument makes no sense.
    """
    names = source_names(separator, n_sources)
    kept = list(range(len(names))) if keep is None else list(keep)
    if not kept or len(set(kept)) != len(kept) or not set(kept) <= set(range(len(names))):
        raise OssicleError(f"keep must name some of the sources 0 to {len(names) - 1}, got {keep}")
    if len(outputs) != len(kept):
        raise OssicleError(f"{len(kept)} sources for {len(outputs)} files")
    targets = [Path(output) for output in outputs]
    if len({target.resolve() for target in [*targets, Path(path)]}) != len(targets) + 1:
        raise OssicleError(f"{path}: outputs must differ from the recording and from each other")
    with open_decoder(path, truncated=True) as decoder:
        rate, channels, coding = decoder.sample_rate, decoder.channels, decoder.format
    if subtype is None:
        subtype = subtype_like(coding, targets[0].suffix.lower().removeprefix("."))
    damage: list[str] = []
    energy = np.zeros(len(names))
    done = 0
    with JointWriter(targets, rate, channels, subtype, work=work) as writer:
        for sources in separate_stream(
            separator, _read(path, damage), rate, n_sources, band=band, workers=workers
        ):
            energy += np.einsum("scn,scn->s", sources, sources, dtype=np.float64)
            writer.write(sources[kept])
            done += sources.shape[-1]
            if progress is not None:
                progress(done / rate)
        written = writer.finish()
    total = energy.sum()
    notes = []
    if written.gain_db < 0:
        notes.append(f"turned down by {-written.gain_db:.2f} dB so that nothing clips")
    if band == "all" and separator.sample_rate < rate:
        notes.append(
            f"the model hears up to {separator.sample_rate / 2000:g} kHz: above, sound is dealt out"
        )
    return FileResult(
        path=os.fspath(path),
        outputs=targets,
        sources=[names[i] for i in kept],
        frames=written.frames,
        sample_rate=rate,
        channels=channels,
        subtype=subtype,
        gain_db=written.gain_db,
        energy_shares=[float(energy[i] / total) if total > 0 else math.nan for i in kept],
        damage=damage[0] if damage else "",
        notes=notes,
    )


def _read(path: str | os.PathLike[str], damage: list[str]) -> Iterator[np.ndarray]:
    """The recording's pieces; what keeps its end from being read goes to ``damage``."""
    came = False
    pieces = stream(path, mono=False, block_s=_PIECE_S, truncated=True)
    while True:
        try:
            piece = next(pieces, None)
        except AudioError as error:
            if not came:
                raise
            damage.append(error.reason)
            return
        if piece is None:
            return
        came = True
        yield piece.samples
