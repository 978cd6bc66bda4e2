"""The multiscale input of McMahan & Rao, AAAI 2018 (arXiv 1710.08377): one picture, four scales.

Parallel convolutions whose taps lie 1, 2, 3 and 4 apart look at squares of 3, 5, 7 and 9 bands and
frames with nine weights each. Their maps are stacked as channels, and the network that follows is
the usual one with four input channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# The paper draws 1, 2, 3 and names four; the fourth is the next.
DILATIONS = (1, 2, 3, 4)


class MultiscaleInput(nn.Module):
    """concat_i Conv2d(1, 1, 3, dilation=d_i, padding=d_i): (B, 1, F, T) -> (B, 4, F, T)."""

    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            nn.Conv2d(1, 1, 3, dilation=dilation, padding=dilation) for dilation in DILATIONS
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, F, T) -> (B, 4, F, T), from the finest scale to the coarsest."""
        return torch.cat([scale(x) for scale in self.scales], 1)
