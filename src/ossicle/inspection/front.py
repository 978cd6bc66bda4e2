"""What a network hears: the bands of its front end, beside the ear's."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ossicle.backbones.gammatone import erb_hz
from ossicle.frontend import MFCC, FrontEnd, LogMel
from ossicle.frontend.mel import mel_filters
from ossicle.inspection import drawings
from ossicle.inspection.exhibit import Exhibit
from ossicle.inspection.filters import bandwidths_hz, centres_hz, relative_db

SECTION = "What it hears"
_MEL = ("sample_rate", "n_fft", "n_mels", "fmin", "fmax", "mel_scale", "norm", "triangles")
# So many points between two bins of the transform, along the filters' straight sides.
FINE = 16


def band_filters(front: LogMel | MFCC) -> tuple[np.ndarray, np.ndarray]:
    """The front end's mel filters as drawn over frequency, not as sampled by its transform.

    Returns:
        Frequencies (M,) in Hz, and weights (bands, M).
    """
    settings = {name: value for name, value in front.config().items() if name in _MEL}
    settings["n_fft"] = FINE * settings["n_fft"]
    filters = mel_filters(**settings)
    return np.arange(filters.shape[1]) * (front.sample_rate / settings["n_fft"]), filters


def front_exhibits(front: FrontEnd) -> list[Exhibit]:
    """The filter bank's responses and bandwidths; nothing for waveforms and plain spectra."""
    if not isinstance(front, LogMel | MFCC):
        return []
    frequencies, filters = band_filters(front)
    power = filters ** (
        2 / float(front.config()["power"])
    )  # bands of magnitudes weigh |X|, those of powers |X|^2
    centre, width = centres_hz(frequencies, power), bandwidths_hz(frequencies, power)
    table = pd.DataFrame(
        {
            "band": np.arange(len(filters)),
            "centre_hz": centre,
            "bandwidth_hz": width,
            "ear_hz": erb_hz(centre),
        }
    )
    line = np.geomspace(40.0, front.sample_rate / 2, 200)
    narrow = int((width < table["ear_hz"]).sum())
    count = len(filters)
    return [
        Exhibit(
            "front_end",
            SECTION,
            "The front end's bands",
            f"{count} mel bands from {centre[0]:.0f} to {centre[-1]:.0f} Hz (centres), one row "
            "each. What the transform's window adds to their width is not in the picture.",
            f"Heat map of {count} band responses: a ridge that rises from {centre[0]:.0f} Hz in "
            f"the first band to {centre[-1]:.0f} Hz in the last.",
            lambda: drawings.responses(frequencies, relative_db(power), "band"),
            table,
        ),
        Exhibit(
            "front_end_widths",
            SECTION,
            "Bandwidths beside the ear's",
            f"Equivalent rectangular bandwidth of each band against its centre. {narrow} of "
            f"{count} are narrower than the ear's filter there; each step between bins of the "
            f"transform is {front.sample_rate / front.config()['n_fft']:.3g} Hz.",
            f"Scatter of {count} bandwidths over centre frequency, with the ear's bandwidth as a "
            "line.",
            lambda: drawings.widths([("bands", centre, width)], (line, erb_hz(line))),
        ),
    ]
