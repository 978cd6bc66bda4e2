"""From a power or magnitude spectrogram to a network's input.

The order is that of the preprocessing study (Choi, Fazekas, Cho, Sandler 2017,
arXiv 1709.01922; thesis 5.2.3): compression, weighting over frequency (A-weighting or
standardisation of each band), standardisation of the whole excerpt, a constant factor.
All maxima, means and deviations are over one item, never over the batch.

Shapes: X is (..., F, T).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ossicle.errors import OssicleError
from ossicle.frontend.base import require_choice, require_positive

Reference = float | Literal["max"]

# Corner frequencies of the A curve, Hz (IEC 61672-1, annex E). The study rounds them to 12200,
# 20.6, 107.7 and 737.9, which moves the curve by less than 0.01 dB.
A_CORNERS_HZ = (20.598997, 107.65265, 737.86223, 12194.217)

# A deviation below this fraction of the largest absolute value is the rounding of a constant in
# float32: dividing by it would turn silence into noise of unit variance.
CONSTANT = 1e-5


def decibel(
    x: Tensor,
    *,
    power: float = 2.0,
    floor: float = 1e-10,
    reference: Reference = "max",
    top_db: float | None = 80.0,
) -> Tensor:
    """Decibels of a spectrogram, (..., F, T) -> (..., F, T).

    ``20 / power * log10(max(x, floor) / max(reference, floor))``, then raised to at least
    ``top_db`` below the item's maximum; with ``power`` 2 this is librosa.power_to_db.

    Args:
        x: spectrogram of magnitudes to the ``power``.
        power: 1.0 for magnitudes, 2.0 for powers.
        floor: the least value of ``x`` told from silence.
        reference: the value of ``x`` that is 0 dB; "max" is the maximum of each item, over its
            last two axes.
        top_db: range kept below the item's maximum; None keeps all.
    """
    factor_db = 20 / power
    level_db = x.clamp(min=floor).log10_().mul_(factor_db)
    peak_db = level_db.amax(dim=(-2, -1), keepdim=True)
    if top_db is not None:
        level_db = torch.maximum(level_db, peak_db - top_db)
    if reference == "max":
        return level_db - peak_db
    return level_db - factor_db * math.log10(max(reference, floor))


def log_offset(x: Tensor, offset: float) -> Tensor:
    """``ln(x + offset)``, of the shape of ``x``."""
    return (x + offset).log_()


def a_weighting_db(frequencies: np.ndarray) -> np.ndarray:
    """The A curve at ``frequencies`` (Hz), in dB, not below -80 (which stands for 0 Hz).

    A(f) = 2.0 + 20 log10(f4^2 f^4 / ((f^2 + f1^2)(f^2 + f4^2) sqrt((f^2 + f2^2)(f^2 + f3^2))))
    with f1 to f4 = ``A_CORNERS_HZ`` (IEC 61672-1).
    """
    f1, f2, f3, f4 = A_CORNERS_HZ
    f = np.asarray(frequencies, dtype=np.float64)
    below = (f**2 + f1**2) * (f**2 + f4**2) * np.sqrt((f**2 + f2**2) * (f**2 + f3**2))
    ratio = f4**2 * f**4 / below
    return np.maximum(2.0 + 20 * np.log10(np.maximum(ratio, 1e-30)), -80.0)


def standardise(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """``(x - mean) / std`` over the axes ``dims``, of the shape of ``x``.

    The deviation is the population's (divisor n). Where ``x`` is constant over ``dims`` the
    result is 0.
    """
    deviation, mean = torch.std_mean(x, dim=dims, correction=0, keepdim=True)
    varies = deviation > CONSTANT * x.abs().amax(dim=dims, keepdim=True)
    # The inner `where` keeps the gradient finite on the constant ones.
    return (x - mean) / torch.where(varies, deviation, torch.ones_like(deviation)) * varies


class Scaling(nn.Module):
    """Compression, weighting and standardisation of (..., F, T), in the order of the study.

    Args:
        frequencies: (F,) centre of each band, Hz.
        power: 1.0 if the input is magnitudes, 2.0 if it is powers.
        scaling: "db" (decibels), "log" (natural logarithm after adding ``offset``) or "linear".
        offset: for "db" the floor of the input, for "log" what is added to it.
        reference: for "db", the input value that is 0 dB, or "max" for the item's maximum.
        top_db: for "db", the range kept below the item's maximum, or None.
        a_weighting: apply the A curve: added in the logarithmic domains, a factor on "linear".
        standardise_per_frequency: ``(X[f, t] - mean_t X[f, :]) / std_t X[f, :]``.
        standardise_per_sample: ``(X - mean_ft X) / std_ft X``, after the above.
        scale: a factor on the result (the study's "x10").
        shift: added before that factor.

    Raises:
        OssicleError: an argument is out of its range.
    """

    weights: Tensor

    def __init__(
        self,
        frequencies: np.ndarray,
        *,
        power: float,
        scaling: str,
        offset: float,
        reference: Reference,
        top_db: float | None,
        a_weighting: bool,
        standardise_per_frequency: bool,
        standardise_per_sample: bool,
        scale: float,
        shift: float = 0.0,
    ) -> None:
        super().__init__()
        require_choice("scaling", scaling, ("db", "log", "linear"))
        require_choice("power", power, (1.0, 2.0))
        if scaling != "linear":
            require_positive(offset=offset)
        if isinstance(reference, str):
            require_choice("reference", reference, ("max",))
        else:
            require_positive(reference=reference)
        if top_db is not None:
            require_positive(top_db=top_db)
        if not math.isfinite(scale):
            raise OssicleError(f"scale is {scale!r}: it must be finite")
        if not math.isfinite(shift):
            raise OssicleError(f"shift is {shift!r}: it must be finite")
        self.power = power
        self.scaling = scaling
        self.offset = offset
        self.reference: Reference = reference
        self.top_db = top_db
        self.a_weighting = a_weighting
        self.standardise_per_frequency = standardise_per_frequency
        self.standardise_per_sample = standardise_per_sample
        self.scale = scale
        self.shift = shift
        # A acts on 20 log10 of a magnitude, hence on ln(magnitude ** power) by ln(10) power / 20.
        weights = a_weighting_db(frequencies)
        if scaling != "db":
            weights = weights * (math.log(10) * power / 20)
        if scaling == "linear":
            weights = np.exp(weights)
        self.register_buffer(
            "weights", torch.from_numpy(weights).float()[:, None], persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., F, T) -> (..., F, T)."""
        if self.scaling == "db":
            x = decibel(
                x,
                power=self.power,
                floor=self.offset,
                reference=self.reference,
                top_db=self.top_db,
            )
        elif self.scaling == "log":
            x = log_offset(x, self.offset)
        if self.a_weighting:
            x = x * self.weights if self.scaling == "linear" else x + self.weights
        if self.standardise_per_frequency:
            x = standardise(x, dims=(-1,))
        if self.standardise_per_sample:
            x = standardise(x, dims=(-2, -1))
        x = x if self.shift == 0.0 else x + self.shift
        return x if self.scale == 1.0 else x * self.scale
