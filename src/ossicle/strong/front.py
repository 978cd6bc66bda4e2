"""A detector in two: a front that training does not change, and what learns.

B windows, N samples, M values that the front makes of a window, T frames.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor

from ossicle.backbones.frame_crnn import FrameCRNN
from ossicle.detector import Detector

PICTURE = "mel"


class Front:
    """The front of a detector on windows of one length; its values can be kept as one row each.

    Args:
        detector: its front end and, of ``FrameCRNN``, its frozen base are the front.
        n_samples: N.

    Attributes:
        shapes: part -> its shape without the batch, in the order of the row.
        size: M.
        frames: of the picture.
    """

    def __init__(self, detector: Detector, n_samples: int) -> None:
        self.detector = detector
        # A network that reads the base alone needs of the picture nothing but its length.
        network = detector.backbone
        self._pictured = not isinstance(network, FrameCRNN) or network.mel
        parts = self.parts(torch.zeros(1, n_samples))
        self.frames = parts[PICTURE].shape[-1]
        self.shapes = OrderedDict(
            (name, tuple(x.shape[1:]))
            for name, x in parts.items()
            if name != PICTURE or self._pictured
        )
        self.size = sum(math.prod(shape) for shape in self.shapes.values())

    def parts(self, waveform: Tensor) -> OrderedDict[str, Tensor]:
        """(B, N) -> the picture (B, 1, F, T) and what the frozen base makes of it."""
        # Copies, as gradients do not pass by tensors that were made for inference alone.
        return OrderedDict((k, x.clone()) for k, x in self.detector.front(waveform).items())

    def flat(self, waveform: Tensor) -> Tensor:
        """(B, N) -> (B, M): what is worth keeping of ``parts``, side by side."""
        parts = self.detector.front(waveform)
        return torch.cat([parts[name].flatten(1) for name in self.shapes], 1)

    def unflat(self, rows: Tensor) -> OrderedDict[str, Tensor]:
        """(B, M) -> parts, as ``learned`` takes them."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        parts = OrderedDict(
            (name, piece.reshape(len(rows), *shape))
            for (name, shape), piece in zip(self.shapes.items(), rows.split(sizes, 1), strict=True)
        )
        if not self._pictured:
            parts[PICTURE] = rows.new_zeros(1, 1, 1, 1).expand(len(rows), 1, 1, self.frames)
        return parts
