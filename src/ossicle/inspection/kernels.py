"""Exhibits of convolution kernels on pictures of sound, and their modulation spectra."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from ossicle.frontend import FrontEnd
from ossicle.inspection import drawings
from ossicle.inspection.convolutions import Convolution
from ossicle.inspection.exhibit import Exhibit
from ossicle.inspection.filters import power_responses, relative_db
from ossicle.inspection.pictures import frequency_rows
from ossicle.inspection.spectra import largest, modulation_spectra

# Where the bands' spacing is told: near the middle of what matters for most sounds.
AT_HZ = 1000.0


class Steps(NamedTuple):
    """What one step of a kernel is; None: unknown."""

    octaves: float | None
    hz: float | None
    seconds: float | None


def steps_of(conv: Convolution, front: FrontEnd) -> Steps:
    """Octaves and Hz from one row to the next at 1 kHz, and seconds from column to column."""
    frequencies = getattr(front, "frequencies", None)
    if frequencies is None or conv.band_step is None:
        return Steps(None, None, conv.frame_s)
    at = float(np.interp(AT_HZ, frequencies, np.arange(len(frequencies))))
    ends = np.interp(
        [at - conv.band_step / 2, at + conv.band_step / 2],
        np.arange(len(frequencies)),
        frequencies,
    )
    return Steps(float(np.log2(ends[1] / ends[0])), float(ends[1] - ends[0]), conv.frame_s)


def kernel_exhibits(conv: Convolution, front: FrontEnd, section: str, most: int) -> list[Exhibit]:
    """The largest kernels of a convolution, and what modulations each looks for.

    Args:
        conv: not on a waveform.
        front: of the network.
        section: heading.
        most: how many kernels are shown.
    """
    pictures = conv.pictures
    if pictures.ndim == 2:  # over time alone, a row each
        pictures = pictures[:, None, :]
    steps = steps_of(conv, front)
    kept = largest(pictures, most)
    shown = pictures[kept]
    norms = np.linalg.norm(pictures.reshape(len(pictures), -1), axis=1)
    share = float((norms[kept] ** 2).sum() / max((norms**2).sum(), 1e-300))
    scales, rates, spectra = modulation_spectra(pictures)
    table = _table(conv, norms, scales, rates, spectra, steps)
    number = "all" if len(kept) == len(pictures) else f"the {len(kept)} of largest norm of"
    size = " x ".join(map(str, pictures.shape[1:]))
    energy = "" if len(kept) == len(pictures) else f", {share:.0%} of their energy"
    name = conv.name.replace(".", "_")
    titles = [str(i) for i in kept]
    told = f"{number} {len(pictures)} kernels of {conv.name} ({conv.kind})"
    exhibits = [
        Exhibit(
            f"{name}_kernels",
            section,
            f"Kernels of {conv.name}",
            f"{told[0].upper()}{told[1:]}, {size} (bands x frames){energy}. "
            f"{_step_text(conv, steps)} Upwards is higher; blue adds, orange takes away.",
            f"{len(kept)} tiles of {size} weights each, in blue for positive and orange for "
            "negative.",
            lambda: drawings.tiles(
                shown, titles, signed=True, ticks=_kernel_ticks(conv, front, steps), label="weight"
            ),
            table,
        )
    ]
    if min(pictures.shape[1:]) == 1 < max(pictures.shape[1:]):
        exhibits.append(_lines(conv, pictures, steps, name, section))
    elif conv.hears != "bands":
        exhibits.append(
            Exhibit(
                f"{name}_modulations",
                section,
                f"What modulations {conv.name} looks for",
                f"Magnitude of the two-dimensional transform of the same kernels, each in its own "
                f"range. To the right, ripples that sink over time; to the left, ripples that "
                f"rise; upwards, finer ones over frequency. {_peaks(table)}",
                f"{len(kept)} tiles of modulation spectra.",
                lambda: drawings.tiles(
                    spectra[kept],
                    titles,
                    signed=False,
                    ticks=_spectrum_ticks(scales, rates, steps),
                    common=False,
                ),
            )
        )
    return exhibits


def _lines(
    conv: Convolution, pictures: np.ndarray, steps: Steps, name: str, section: str
) -> Exhibit:
    """The spectra of kernels along the one axis that they have, by rising centre."""
    over_time = pictures.shape[1] == 1
    lines = pictures.reshape(len(pictures), -1)
    frequencies, power = power_responses(lines, 1.0)
    step, unit = (steps.seconds, "Hz") if over_time else (steps.octaves, "cycles per octave")
    if not step:
        step, unit = 1.0, "cycles per column" if over_time else "cycles per row"
    weight = np.maximum(power.sum(axis=1), 1e-300)
    order = np.argsort(power @ frequencies / weight, kind="stable")
    points = np.linspace(0, len(frequencies) - 1, 129).round().astype(int)
    shown = relative_db(power[order])[:, points]
    labels = [f"{frequencies[i] / step:.3g}" if n % 16 == 0 else "" for n, i in enumerate(points)]
    over = "time" if over_time else "frequency"
    return Exhibit(
        f"{name}_modulations",
        section,
        f"What modulations {conv.name} looks for",
        f"Magnitude of the transform over {over} of all {len(lines)} kernels, a row each, from "
        "those of slow and wide patterns at the top to those of fast and narrow ones.",
        f"Heat map of {len(lines)} kernels by modulation frequency over {over}.",
        lambda: drawings.heat_map(
            shown,
            rows=[str(i) for i in order],
            columns=labels,
            label="dB below each kernel's greatest",
            limits=(-40.0, 0.0),
            xlabel=f"modulation over {over} ({unit})",
        ),
    )


def _table(
    conv: Convolution,
    norms: np.ndarray,
    scales: np.ndarray,
    rates: np.ndarray,
    spectra: np.ndarray,
    steps: Steps,
) -> pd.DataFrame:
    """A row for each kernel: its norm, and the modulation at which its spectrum is greatest."""
    flat = spectra.reshape(len(spectra), -1).argmax(axis=1)
    high, wide = np.unravel_index(flat, spectra.shape[1:])
    table = pd.DataFrame({"kernel": np.arange(len(norms)), "norm": norms})
    if conv.hears != "bands":
        inputs = conv.kernels.shape[1]
        table.insert(1, "output", np.arange(len(norms)) // inputs)
        table.insert(2, "input", np.arange(len(norms)) % inputs)
    table["scale_cycles_per_row"] = scales[high]
    table["rate_cycles_per_column"] = rates[wide]
    if steps.octaves:
        table["scale_cycles_per_octave_at_1_khz"] = scales[high] / steps.octaves
    if steps.seconds:
        table["rate_hz"] = rates[wide] / steps.seconds
    return table


def _peaks(table: pd.DataFrame) -> str:
    scale, rate = table["scale_cycles_per_row"] > 0, table["rate_cycles_per_column"] != 0
    counts = [
        (int((~scale & ~rate).sum()), "smooth"),
        (int((scale & ~rate).sum()), "look for patterns over frequency alone"),
        (int((~scale & rate).sum()), "for patterns over time alone"),
        (int((scale & rate).sum()), "for both"),
    ]
    return (
        "Of all kernels, by where they are greatest: "
        + ", ".join(f"{count} {what}" for count, what in counts)
        + "."
    )


def _step_text(conv: Convolution, steps: Steps) -> str:
    parts = []
    if conv.hears == "bands":
        parts.append("rows are the front end's bands")
    elif steps.octaves is not None:
        parts.append(
            f"a row is {conv.band_step:g} {'band' if conv.band_step == 1 else 'bands'} of the "
            f"front end, {steps.octaves:.2g} octaves "
            f"({steps.hz:.3g} Hz) at 1 kHz"
        )
    if steps.seconds is not None:
        parts.append(f"a column is {1000 * steps.seconds:.3g} ms")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else "What a step stands for is not known."


def _kernel_ticks(conv: Convolution, front: FrontEnd, steps: Steps) -> drawings.Ticks:
    rows, columns = (1, *conv.size)[-2:]
    if conv.hears == "bands":
        rows = conv.kernels.shape[1]
    ends = sorted({0, columns - 1})
    names, label = [str(i) for i in ends], "column"
    if steps.seconds is not None:
        names, label = [f"{1000 * steps.seconds * x:.3g}" for x in ends], "ms"
    frequencies = getattr(front, "frequencies", None)
    if frequencies is not None and (conv.hears == "bands" or rows == len(frequencies)):
        return drawings.Ticks(ends, names, label, *frequency_rows(np.asarray(frequencies)), "Hz")
    if frequencies is not None and conv.band_step is not None and 1 < rows <= 9:
        at = np.interp(AT_HZ, frequencies, np.arange(len(frequencies)))
        places = sorted({0, (rows - 1) // 2, rows - 1})
        bands = at + (np.array(places) - (rows - 1) / 2) * conv.band_step
        found = np.interp(bands, np.arange(len(frequencies)), frequencies)
        hertz = [f"{f:.0f}" for f in found]
        return drawings.Ticks(ends, names, label, places, hertz, "Hz, around 1 kHz")
    last = sorted({0, rows - 1})
    return drawings.Ticks(ends, names, label, last, [str(i) for i in last], "row")


def _spectrum_ticks(scales: np.ndarray, rates: np.ndarray, steps: Steps) -> drawings.Ticks:
    rows, columns = [0, len(scales) - 1], [0, len(rates) // 2, len(rates) - 1]
    high, upright = [f"{scales[i]:g}" for i in rows], "cycles/row"
    if steps.octaves:
        high, upright = [f"{scales[i] / steps.octaves:.2g}" for i in rows], "cycles/octave"
    wide, across = [f"{rates[i]:g}" for i in columns], "cycles/column"
    if steps.seconds:
        wide, across = [f"{rates[i] / steps.seconds:.2g}" for i in columns], "Hz"
    return drawings.Ticks(columns, wide, across, rows, high, upright)
