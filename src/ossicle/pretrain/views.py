"""From crops to what a network is shown: front end, then augmentation on the log-mels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ossicle.augment import (
    Augmentation,
    BandMask,
    Compose,
    LinearFader,
    LogMixup,
    Mix,
    RandomGain,
    ResizeCrop,
    Shift,
    TimeMask,
    rows,
)
from ossicle.frontend import FrontEnd, LogMel
from ossicle.train import Batch, Step

# Rises of a log-mel when the energy grows e-fold.
UNITS = {"log": 1.0, "db": 10 / math.log(10)}
MIX_SNR_DB = (5.0, 20.0)
MILD_SCALE = (0.8, 1.25)
CHANGED = 0.7  # probability of a change that is not always made
BYOL_SHARE = 0.2  # largest share of a past picture's energy, as published


class Queue(nn.Module):
    """The last pictures that were shown, to mix into new ones (BYOL-A's memory bank).

    Args:
        size: pictures kept.
        shape: (1, F, T) of a picture.
    """

    pictures: Tensor
    filled: Tensor

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        # Part of the state: a resumed run mixes with what the stopped one would have.
        self.register_buffer("pictures", torch.zeros(size, *shape))
        self.register_buffer("filled", torch.zeros((), dtype=torch.long))

    def partners(self, x: Tensor, step: Step) -> Tensor:
        """A past picture for each of (b, 1, F, T); before there are any, another of its batch."""
        place = torch.rand(step.size, generator=step.generator)[step.rows]
        past = int(self.filled.clamp(max=len(self.pictures)))
        source = self.pictures[:past] if past else step.gather(x)
        return source[(place * len(source)).long().to(x.device)]

    def push(self, x: Tensor) -> None:
        """Keep (b, 1, F, T) in place of the oldest."""
        size = len(self.pictures)
        x = x[-size:]
        slots = (int(self.filled) + torch.arange(len(x), device=x.device)) % size
        self.pictures[slots] = x
        self.filled += len(x)


class Views(nn.Module):
    """(b, V, N) crops -> V pictures (b, 1, F, T) or (b, 1, N), each augmented by itself.

    Args:
        frontend: the network's own.
        waveform: changes of the crops (B, N).
        spectrogram: changes of the pictures (B, 1, F, T).
        queue: where mixing partners come from; None: other recordings beside the batch.
    """

    def __init__(
        self,
        frontend: FrontEnd,
        waveform: Augmentation | None = None,
        spectrogram: Augmentation | None = None,
        queue: Queue | None = None,
    ) -> None:
        super().__init__()
        self.frontend, self.waveform, self.spectrogram = frontend, waveform, spectrogram
        self.queue = queue

    @property
    def needs_partners(self) -> bool:
        """Whether batches must bring other recordings to mix with."""
        steps = [self.waveform, None if self.queue is not None else self.spectrogram]
        return any(step is not None and step.needs_partners for step in steps)

    @torch.no_grad()
    def forward(self, batch: Batch, step: Step) -> list[Tensor]:
        """V pictures (b, 1, F, T), in the memory format in which convolutions are fastest."""
        with torch.autocast(batch.waveforms.device.type, enabled=False):
            return self._pictures(batch, step)

    def _pictures(self, batch: Batch, step: Step) -> list[Tensor]:
        pictures, plain = [], []
        for view in range(batch.waveforms.shape[1]):
            crops = batch.waveforms[:, view]
            others = None if batch.partners is None else batch.partners[:, view]
            picture = self.frontend(_changed(self.waveform, crops, step, others))
            plain.append(picture)
            if self.spectrogram is not None:
                partners = None
                if self.queue is not None:
                    partners = self.queue.partners(picture, step)
                elif self.spectrogram.needs_partners and others is not None:
                    partners = self.frontend(others)
                picture = _changed(self.spectrogram, picture, step, partners)
            if picture.dim() == 4:
                picture = picture.contiguous(memory_format=torch.channels_last)
            pictures.append(picture)
        if self.queue is not None and self.training:
            for picture in plain:
                # Of all processes, so that each has the queue that one would have.
                self.queue.push(step.gather(picture))
        return pictures


def _changed(
    augmentation: Augmentation | None, x: Tensor, step: Step, partners: Tensor | None
) -> Tensor:
    if augmentation is None:
        return x
    # Drawn for the joint batch, so that several processes draw what one would.
    drawn = augmentation.draw(step.size, step.generator)
    return augmentation.apply(x, rows(drawn, step.rows), partners)


def mixing_unit(frontend: FrontEnd) -> float | None:
    """How much a log-mel rises when the energy grows e-fold; None where it is no such thing."""
    if not isinstance(frontend, LogMel):
        return None
    settings = frontend.config()
    if settings["standardise_per_frequency"] or settings["standardise_per_sample"]:
        return None
    if settings["scaling"] not in UNITS:
        return None
    decibels = settings["scaling"] == "db"
    if decibels and settings["reference"] == "max":  # levels of two recordings do not compare
        return None
    power = 1.0 if decibels else settings["power"] / 2
    return UNITS[settings["scaling"]] * power * settings["scale"]


def create_views(frontend: FrontEnd, n_samples: int, recipe: str, queue: int = 0) -> Views:
    """The changes that go with an objective.

    Args:
        frontend: the network's own.
        n_samples: N of a crop.
        recipe: "contrast" (mixing, a mild resize-crop, masks), "byol" (mixing with past pictures,
            resize-crop, fader: BYOL-A, arXiv 2204.07402, section III-B), "mask" (band and time
            masks), "mix" (mixing, then masks) or "plain".
        queue: past pictures that "byol" mixes with; 0: other recordings beside the batch.
    """
    if recipe == "plain":
        return Views(frontend)
    # Mixed by level, not by share of energy: what is soft would drown in what is loud.
    mix = Mix(MIX_SNR_DB, p=CHANGED)
    if frontend.n_bands == 1:
        # What can be done to a waveform as it is: levels, places, other sounds.
        changes: list[Augmentation] = [] if recipe == "mask" else [mix, Shift()]
        return Views(frontend, Compose([*changes, RandomGain()]))
    if recipe == "mask":
        return Views(frontend, None, Compose([BandMask(0.2, 1), TimeMask(0.2, 1)]))
    if recipe == "mix":
        return Views(frontend, mix, Compose([BandMask(0.2, 1), TimeMask(0.2, 1)]))
    if recipe == "contrast":
        crop = ResizeCrop(frequency_scale=MILD_SCALE, time_scale=MILD_SCALE, p=CHANGED)
        return Views(frontend, mix, Compose([crop, BandMask(0.2, 1), TimeMask(0.2, 1)]))
    unit = mixing_unit(frontend)
    if unit is None:
        return Views(frontend, mix, Compose([ResizeCrop(), LinearFader(1.0)]))
    past = Queue(queue, (1, frontend.n_bands, frontend.num_frames(n_samples))) if queue else None
    changes = [LogMixup(BYOL_SHARE, unit=unit), ResizeCrop(), LinearFader(1.0)]
    return Views(frontend, None, Compose(changes), past)
