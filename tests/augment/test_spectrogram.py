"""Augmentations of log-mels against their definitions, written out item by item."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ossicle.augment import BandMask, Gain, LinearFader, LogMixup, ResizeCrop, TimeMask


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def log_mels(n: int, bands: int = 40, frames: int = 61, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 1, bands, frames, generator=seeded(seed)) - 3


def runs(hidden: np.ndarray) -> list[int]:
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], hidden.astype(int), [0]])))
    return (edges[1::2] - edges[::2]).tolist()


@pytest.mark.parametrize(("kind", "axis"), [(BandMask, 2), (TimeMask, 3)])
@pytest.mark.parametrize("n_masks", [1, 2, 4])
def test_masks_are_runs_of_the_stated_number_and_width(kind, axis, n_masks):
    x = log_mels(600)
    y = kind(max_fraction=0.25, n_masks=n_masks, value=9.0)(x, seeded(1))
    hidden = (y == 9.0)[:, 0].transpose(1, 2) if axis == 3 else (y == 9.0)[:, 0]
    assert torch.equal(hidden.any(2), hidden.all(2))  # whole bands, or whole frames
    assert torch.equal(y[y != 9.0], x[y != 9.0])
    widest = x.shape[axis] // 4
    found = [runs(line.numpy()) for line in hidden.all(2)]
    assert max(len(item) for item in found) == n_masks
    assert max(sum(item) for item in found) <= n_masks * widest
    if n_masks == 1:
        widths = np.array([sum(item) for item in found])
        # Every width from none to the widest, equally often: 600 / (widest + 1) each.
        counts = np.bincount(widths, minlength=widest + 1)
        expected = 600 / (widest + 1)
        assert len(counts) == widest + 1
        assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))
        places = hidden.all(2).float().mean(0)
        assert places[0] > 0 and places[-1] > 0  # both ends can be reached


@pytest.mark.parametrize("kind", [BandMask, TimeMask])
def test_masks_are_filled_with_the_items_mean(kind):
    x = log_mels(20)
    y = kind(n_masks=1)(x, seeded(0))
    changed = y != x
    means = np.array([item.mean() for item in x.double().numpy()])
    for item, where, mean in zip(y, changed, means, strict=True):
        assert np.allclose(item[where].numpy(), mean, atol=1e-5)
    assert changed.flatten(1).any(1).sum() >= 15


def slow_resize_crop(a: ResizeCrop, item: torch.Tensor, drawn: dict, fill: float) -> torch.Tensor:
    """BYOL-A's own steps for one item (F, T): canvas, rectangle, F.interpolate."""
    bands, frames = item.shape
    rows, columns = int(bands * a.canvas[0]), int(frames * a.canvas[1])
    canvas = torch.full((rows, columns), fill)
    top, left = (rows - bands) // 2, (columns - frames) // 2
    canvas[top : top + bands, left : left + frames] = item
    height = min(max(int(drawn["height"] * bands), 1), rows)
    length = min(max(int(drawn["length"] * frames), 1), columns)
    i = int(drawn["place"][0] * (rows - height + 1))
    j = int(drawn["place"][1] * (columns - length + 1))
    cut = canvas[i : i + height, j : j + length]
    size = (bands, frames)
    return F.interpolate(cut[None, None], size=size, mode="bicubic", align_corners=True)[0, 0]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"value": 0.0},
        {"canvas": (1.3, 1.0)},
        {"canvas": (2.0, 2.0), "frequency_scale": (0.01, 2.5), "time_scale": (0.01, 2.5)},
    ],
)
@pytest.mark.parametrize("size", [(40, 61), (64, 96), (7, 5), (1, 9)])
def test_resize_crop_is_interpolation_of_a_canvas(settings, size):
    a = ResizeCrop(**settings)
    x = log_mels(40, *size)
    drawn = a.draw(40, seeded(2))
    y = a.apply(x, drawn)
    for number in range(40):
        own = {name: value[number] for name, value in drawn.items()}
        fill = x[number].mean().item() if a.value is None else a.value
        want = slow_resize_crop(a, x[number, 0], own, fill)
        torch.testing.assert_close(y[number, 0], want, rtol=0, atol=2e-5)


def test_resize_crop_of_the_same_size_and_place_is_the_item():
    a = ResizeCrop(canvas=(1, 1), frequency_scale=(1, 1), time_scale=(1, 1))
    x = log_mels(5)
    torch.testing.assert_close(a(x, seeded(0)), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("unit", [1.0, 10 / np.log(10), 0.3])
def test_log_mixup_adds_energies(unit):
    x, z = log_mels(30), log_mels(30, seed=1)
    a = LogMixup(ratio=0.4, unit=unit)
    drawn = a.draw(30, seeded(0))
    share = drawn["share"].double().numpy()[:, None, None, None]
    assert share.min() >= 0
    assert 0.3 < share.max() <= 0.4
    energy = (1 - share) * np.exp(x.double().numpy() / unit)
    energy += share * np.exp(z.double().numpy() / unit)
    got = a.apply(x, drawn, z).double().numpy()
    assert np.allclose(got, unit * np.log(energy), atol=2e-5, rtol=0)


def test_log_mixup_does_not_overflow():
    """e^200 is beyond float32; the louder sound is what remains."""
    x, z = log_mels(4), log_mels(4, seed=1) + 200
    a = LogMixup()
    drawn = a.draw(4, seeded(0))
    want = z + torch.log(drawn["share"]).view(-1, 1, 1, 1)
    torch.testing.assert_close(a.apply(x, drawn, z), want, rtol=1e-6, atol=1e-4)


def test_linear_fader_adds_a_line():
    x = log_mels(50)
    a = LinearFader(gain=1.5)
    drawn = a.draw(50, seeded(0))
    line = (a.apply(x, drawn) - x).double().numpy()
    ends = np.stack([drawn["first"].numpy(), drawn["last"].numpy()])
    assert ends.min() >= -1.5
    assert ends.max() <= 1.5
    assert ends.min() < -1.2
    assert ends.max() > 1.2
    for item, first, last in zip(line, *ends, strict=True):
        want = np.interp(np.arange(61), [0, 60], [first, last])
        assert np.allclose(item[0], want[None], atol=2e-6)


def test_gain_adds_one_number():
    x = log_mels(200)
    change = (Gain(gain=2.0)(x, seeded(0)) - x)[:, 0].double().numpy()
    levels = change.mean((1, 2))
    assert np.allclose(change, levels[:, None, None], atol=2e-6)
    assert np.all(np.abs(levels) <= 2 + 1e-6)
    assert levels.min() < -1.8
    assert levels.max() > 1.8
    assert abs(levels.mean()) < 5 * (4 / np.sqrt(12)) / np.sqrt(200)
