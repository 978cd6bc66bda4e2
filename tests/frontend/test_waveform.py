"""The raw waveform: nothing but its shape changes, unless it is standardised."""

from __future__ import annotations

import numpy as np
import torch

from ossicle.frontend import Waveform


def test_samples_pass_unchanged(tones) -> None:
    samples = np.stack([tones(8000, 1000, seed) for seed in (0, 1)])
    output = Waveform(8000)(torch.from_numpy(samples))
    np.testing.assert_array_equal(output.numpy(), samples[:, None])
    assert Waveform(8000).hop_s == 1 / 8000


def test_each_clip_is_standardised_on_its_own(tones) -> None:
    samples = np.stack([0.3 + 0.01 * tones(8000, 1000), tones(8000, 1000, 1)])
    output = Waveform(8000, standardise_per_sample=True)(torch.from_numpy(samples)).numpy()
    expected = (samples - samples.mean(1, keepdims=True)) / samples.std(1, keepdims=True)
    np.testing.assert_allclose(output[:, 0], expected, atol=1e-4)
