"""Exhibits of the partitioned autoencoder: what latents decode to, and which carry foreground."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from ossicle.datasets.clips import Clips
from ossicle.datasets.mixtures import Mixtures
from ossicle.errors import AudioError, OssicleError
from ossicle.features import Progress, ProgressCallback, as_clips, read_clip
from ossicle.inspection import drawings
from ossicle.inspection.decoders import SECTION, frequencies_hz
from ossicle.inspection.exhibit import Exhibit, Inspection
from ossicle.inspection.latents import latent_table
from ossicle.inspection.pictures import colour, frequency_rows, new_figure, soft
from ossicle.separators.partitioned_autoencoder import POOL, PartitionedAutoencoder

CARRY = "Which latents carry foreground"
# Of a frame of the foreground's stem, below the stem's loudest: heard, and not heard.
HEARD_DB, SILENT_DB = -30.0, -60.0
# Of each kind from one mixture, so that long ones do not outweigh the rest.
FRAMES = 100
SPAN = 16  # frames on either side of the latent that is decoded
STRONG = 3.0


def band_centres(separator: PartitionedAutoencoder) -> np.ndarray:
    """(B,) mean frequency of each band, Hz."""
    hats = separator.hats.double().cpu().numpy()
    return np.asarray((hats @ frequencies_hz(separator)) / hats.sum(1))


def latent_names(separator: PartitionedAutoencoder) -> list[str]:
    """Of the foreground's, then of the background's."""
    first, second = separator.sources
    return [
        *(f"{first} {i + 1}" for i in range(separator.n_foreground)),
        *(f"{second} {i + 1}" for i in range(separator.n_background)),
    ]


@torch.inference_mode()
def decoded(separator: PartitionedAutoencoder) -> np.ndarray:
    """(K, B, T): what each latent alone decodes to, less what no latent does, T = 2 `SPAN` + 1.

    The latent is `STRONG` at the middle frame: input is normalised to deviations of its bands.
    """
    count = separator.n_foreground + separator.n_background
    frames = 2 * (SPAN + 1)
    # Latent i is the only one of item i, where its pair of frames has its maximum.
    latents = torch.zeros(count, count, frames // POOL)
    latents[range(count), range(count), SPAN // POOL] = STRONG
    places = torch.arange(0, frames, POOL).expand(count, count, -1).contiguous()
    shown = separator.decode(latents, places, frames)
    nothing = separator.decode(torch.zeros_like(latents), places, frames)
    return (shown - nothing)[..., : 2 * SPAN + 1].double().numpy()


def partition_exhibits(separator: PartitionedAutoencoder) -> list[Exhibit]:
    """The decoder's pictures of all latents."""
    pictures, names = decoded(separator), latent_names(separator)
    hop_ms = 1000 * separator.fourier.hop_length / separator.sample_rate
    dead = [name for name, p in zip(names, pictures, strict=True) if not np.abs(p).max() > 0]
    told = f" Of {', '.join(dead)} nothing is heard." if dead else ""
    centres = band_centres(separator)
    table = pd.DataFrame(
        {
            "latent": names,
            "largest": np.abs(pictures).max((1, 2)),
            "peak_hz": centres[np.abs(pictures).max(2).argmax(1)],
        }
    )

    ticks = drawings.Ticks(
        [0, SPAN, 2 * SPAN],
        [f"{-SPAN * hop_ms:.0f}", "0", f"{SPAN * hop_ms:.0f}"],
        "ms",
        *frequency_rows(centres),
        "Hz",
    )
    return [
        Exhibit(
            "latents",
            SECTION,
            "What each latent decodes to",
            f"The output of the decoder for one latent at {STRONG:g} in one frame, less that for "
            f"none, in bands over time; each in its own range, blue adds and orange takes away."
            f"{told}",
            f"{len(pictures)} tiles, {separator.n_foreground} of the foreground's latents and "
            f"{separator.n_background} of the background's.",
            lambda: drawings.tiles(pictures, names, signed=True, ticks=ticks, common=False),
            table,
        )
    ]


@torch.inference_mode()
def activations(separator: PartitionedAutoencoder, samples: np.ndarray) -> np.ndarray:
    """(N,) at its rate -> |Z| (K, P), one for each two frames."""
    spectrum = separator.fourier.analyse(torch.from_numpy(np.ascontiguousarray(samples)))
    latents, _ = separator.encode(separator.bands(spectrum)[None])
    return latents[0].abs().double().cpu().numpy()


@torch.inference_mode()
def heard(separator: PartitionedAutoencoder, stem: np.ndarray) -> np.ndarray:
    """(N,) foreground alone -> (P,): 1 where it is heard, 0 where it is not, -1 in between."""
    power = separator.fourier.analyse(torch.from_numpy(stem)).abs().square().sum(0)
    level = 10 * (power / power.max().clamp(min=1e-20)).clamp(min=1e-12).log10()
    level = torch.nn.functional.pad(level, (0, len(level) % POOL), value=float("-inf"))
    pairs = level.reshape(-1, POOL).amax(1).numpy()
    return np.where(pairs > HEARD_DB, 1, np.where(pairs < SILENT_DB, 0, -1))


def mixture_exhibits(
    separator: PartitionedAutoencoder,
    mixtures: Mixtures,
    found: Inspection,
    *,
    most: int,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> list[Exhibit]:
    """AUC of each latent between frames with and without foreground, and between whole mixtures
    and their backgrounds alone. The first source is the foreground."""
    generator = np.random.default_rng(seed)
    count = min(most, len(mixtures))
    frames: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    whole: list[tuple[np.ndarray, bool, str]] = []
    groups, seconds = mixtures.groups(), 0.0
    for number in range(count):
        item = mixtures.load(number)
        values = activations(separator, item.mixture)
        told = heard(separator, item.sources[0])
        for kind in (0, 1):
            mine = np.flatnonzero(told == kind)
            mine = mine[generator.permutation(len(mine))[:FRAMES]]
            group = np.full(len(mine), groups[number], object)
            frames.append((values[:, mine].T, np.full(len(mine), bool(kind)), group))
        alone = activations(separator, item.sources[1:].sum(0))
        whole += [(values.mean(1), True, groups[number]), (alone.mean(1), False, groups[number])]
        seconds += len(item.mixture) / item.sample_rate
        if progress is not None:
            progress(Progress(number + 1, count, seconds))
    name = separator.sources[0]
    exhibits = []
    active = np.concatenate([part[1] for part in frames])
    if active.any() and not active.all():
        table = latent_table(
            active,
            np.concatenate([part[0] for part in frames]),
            np.concatenate([part[2] for part in frames]),
            random_state=seed,
        )
        what = (
            f"{int(active.sum())} frames of {count} mixtures in which {name} is heard (within "
            f"{-HEARD_DB:g} dB of its loudest) and {int((~active).sum())} in which it is not "
            f"(below {-SILENT_DB:g} dB)"
        )
        exhibits.append(_areas(separator, table, "foreground_frames", "By frames", what))
    else:
        found.notes.append(f"{name} is heard throughout, or nowhere: frames tell nothing of it")
    values, kinds, names = zip(*whole, strict=True)
    table = latent_table(np.array(kinds), np.stack(values), np.array(names), random_state=seed)
    what = f"{count} mixtures and the same {count} without {name}, by mean |latent|"
    exhibits.append(_areas(separator, table, "foreground_mixtures", "By mixtures", what))
    found.numbers["latents"] = {e.name: e.table.to_dict("records") for e in exhibits}  # type: ignore[union-attr]
    return exhibits


def look_at_labelled(
    separator: PartitionedAutoencoder,
    found: Inspection,
    clips: Clips,
    without: str | None,
    *,
    most: int = 300,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> None:
    """Add the AUC of each latent between clips of noise alone and all others.

    Args:
        separator: whose latents they are.
        found: what is added to.
        clips: labelled by classes.
        without: the label of clips of noise alone.
        most: clips at most, drawn at random.
        seed: of the draw and the intervals.
        progress: called after every clip.

    Raises:
        OssicleError: the label is none of the clips', or not named.
    """
    if clips.task != "classes" or without not in clips.classes:
        raise OssicleError(
            f"name the label of clips of noise alone by --without: one of "
            f"{', '.join(clips.classes) or 'none'}"
        )
    kept = np.sort(np.random.default_rng(seed).permutation(len(clips))[:most])
    clips = clips.subset(kept)
    rows, used = [], []
    for number, clip in enumerate(as_clips(clips)):
        try:
            samples = read_clip(clip, separator.sample_rate)
        except AudioError as error:
            found.notes.append(f"{error.path}: {error.reason}")
            continue
        rows.append(activations(separator, samples).mean(1))
        used.append(number)
        if progress is not None:
            progress(Progress(number + 1, len(clips), 0.0))
    if not rows:
        raise OssicleError("none of the clips could be used")
    kinds = clips.table["label"].to_numpy()[used] != without
    table = latent_table(kinds, np.stack(rows), clips.groups()[used], random_state=seed)
    what = (
        f"{int(kinds.sum())} clips with foreground and {int((~kinds).sum())} labelled {without}, "
        "by mean |latent|"
    )
    found.exhibits.append(_areas(separator, table, "foreground_clips", "By clips", what))
    found.numbers["latents_by_clips"] = table.to_dict("records")


def _areas(
    separator: PartitionedAutoencoder, table: pd.DataFrame, name: str, title: str, what: str
) -> Exhibit:
    names = latent_names(separator)
    table.insert(1, "name", names)
    mine = table["latent"] < separator.n_foreground
    first, second = separator.sources
    means = table["auc"][mine].mean(), table["auc"][~mine].mean()
    carrying = [names[i] for i in table.index[table["low"] > 0.5]]
    told = ", ".join(carrying[:6]) + (" and others" if len(carrying) > 6 else "")

    def draw():  # type: ignore[no-untyped-def]
        figure, axes = new_figure(7.5, 1.2 + 0.22 * len(table))
        axis = axes[0, 0]
        axis.grid(axis="x")
        axis.axvline(0.5, color=soft(), linewidth=1)
        for row in table.itertuples():
            shade = colour(0 if row.latent < separator.n_foreground else 1)
            axis.plot([row.low, row.high], [row.latent] * 2, color=shade, linewidth=2, alpha=0.5)
            axis.plot(row.auc, row.latent, "o", color=shade, markersize=5)
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.set_xlim(0, 1)
        axis.set_xlabel("AUC (0.5: tells nothing)")
        return figure

    return Exhibit(
        name,
        CARRY,
        title,
        f"How well each latent's |value| tells {what}, with 95 % intervals (bootstrap over "
        f"groups). Mean AUC of the latents of {first} {means[0]:.2f}, of {second} {means[1]:.2f}. "
        f"Above one half with all of the interval: {told or 'none'}.",
        f"Dots with intervals for {len(table)} latents, from 0 to 1.",
        draw,
        table,
        True,
    )
