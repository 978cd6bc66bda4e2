"""What every front end promises.

Symbols, here and in the siblings: B batch, N samples, C channels, F bands, T frames, K bins of
the Fourier transform; time is always the last axis.

* ``forward`` maps (B, N) float samples to (B, 1, F, T), or to (B, 1, N) for the raw waveform.
* An item's output depends on that item only: no statistic crosses the batch.
* There is nothing to train and nothing in the state dict: ``config()`` rebuilds the whole.
* T >= 1 for every N, also for an empty clip.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ossicle.errors import OssicleError


class FrontEnd(nn.Module):
    """Base of all front ends.

    Args:
        arguments: the arguments of the subclass's constructor by name; ``locals()`` on its first
            line is that, and other names in it are passed over. Each becomes an attribute.

    Attributes:
        sample_rate: of the waveforms it takes, in Hz.
        hop_s: seconds from one output frame to the next.
        n_bands: F, the height of the output; 1 for the raw waveform.
    """

    sample_rate: int
    hop_s: float
    n_bands: int

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self._config: dict[str, Any] = {}
        for name in inspect.signature(type(self)).parameters:
            value = arguments[name]
            # NumPy's numbers are not JSON's.
            self._config[name] = value.item() if isinstance(value, np.generic) else value
            setattr(self, name, self._config[name])
        require_positive(sample_rate=self.sample_rate)

    def num_frames(self, n_samples: int) -> int:
        """T, the number of output frames for a waveform of ``n_samples`` samples."""
        raise NotImplementedError

    def transform(self, waveform: Tensor) -> Tensor:
        """(B, N) float32 -> (B, F, T); what a subclass defines."""
        raise NotImplementedError

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, N) -> (B, 1, F, T), or (B, 1, N) for the raw waveform; always float32.

        Raises:
            ValueError: another shape, or integers (PCM codes are not in [-1, 1]).
        """
        waveform = as_batch(waveform)
        kind = waveform.device.type
        if torch.is_autocast_enabled(kind):
            # Half precision would round away, or overflow, what the logarithm is to show.
            with torch.autocast(kind, enabled=False):
                return self.transform(waveform).unsqueeze(1)
        return self.transform(waveform).unsqueeze(1)

    def config(self) -> dict[str, Any]:
        """The constructor's keywords as JSON values: ``type(self)(**config)`` is the same."""
        return dict(self._config)

    def extra_repr(self) -> str:
        """The configuration, for ``print(model)``."""
        return ", ".join(f"{name}={value!r}" for name, value in self.config().items())


def as_batch(waveform: Tensor) -> Tensor:
    """Check that ``waveform`` is (B, N) floating point, and return it as float32.

    Raises:
        ValueError: another shape, or integers (PCM codes are not in [-1, 1]).
    """
    if waveform.ndim != 2:
        raise ValueError(f"expected a waveform of shape (B, N), got {tuple(waveform.shape)}")
    if not waveform.is_floating_point():
        raise ValueError(f"expected floating-point samples in [-1, 1], got {waveform.dtype}")
    return waveform.to(torch.float32)


def require_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Raise OssicleError unless ``value`` is one of ``choices``."""
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise OssicleError(f"{name} is {value!r}: choose one of {listed}")


def require_positive(**values: float) -> None:
    """Raise OssicleError naming the first of ``values`` that is not above zero."""
    for name, value in values.items():
        if not value > 0:
            raise OssicleError(f"{name} is {value!r}: it must be above 0")
