"""The foreground of noisy recordings as a denoiser hears it: what the next one learns from.

Nobody has heard the foreground alone. But what one denoiser makes of a recording, mixed with noise
that is known, is a recording whose foreground is known, if not a perfect one; what it got wrong is
another thing each time, and what it got right is not (E. Tzinis, Y. Adi, V. K. Ithapu, B. Xu,
P. Smaragdis, A. Kumar, "RemixIT: Continual self-training of speech enhancement models via
bootstrapped remixing", IEEE JSTSP 16(6), 2022, arXiv 2202.08862).
"""

from __future__ import annotations

import tempfile

import numpy as np

from ossicle.audio import Audio
from ossicle.features import one_thread
from ossicle.pretrain.waveforms import FULL_SCALE, Waveforms
from ossicle.separators.base import Separator
from ossicle.separators.long_files import separate_array


def foregrounds(teacher: Separator, recordings: Waveforms) -> Waveforms:
    """What a denoiser takes for the foreground of each recording, sample by sample.

    Args:
        teacher: whose first source is the foreground, at the recordings' rate.
        recordings: decoded.

    Returns:
        As many, as long and called the same; the samples lie in a file that is gone with them.
    """
    total = int(recordings.lengths.sum())
    with tempfile.TemporaryFile() as file:  # the mapping keeps it
        samples: np.ndarray = np.memmap(file, "<i2", "w+", shape=(max(total, 1),))
    starts = np.concatenate([[0], np.cumsum(recordings.lengths)[:-1]]).astype(np.int64)
    with one_thread():
        for item, (start, length) in enumerate(zip(starts, recordings.lengths, strict=True)):
            heard = recordings.read(item, 0, int(length))
            found = separate_array(teacher, Audio(heard[None], recordings.sample_rate))[0, 0]
            codes = np.clip(found * FULL_SCALE, -FULL_SCALE, FULL_SCALE).round()
            samples[start : start + length] = codes
    about = recordings.rows, starts, recordings.lengths, recordings.names, recordings.skipped
    return Waveforms(samples, *about, recordings.sample_rate)
