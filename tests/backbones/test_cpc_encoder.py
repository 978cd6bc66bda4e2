"""The CPC encoder: published sizes, its equations in NumPy, and what each frame may hear."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ossicle.backbones.cpc_encoder import CPCEncoder
from ossicle.backbones.folding import folded
from ossicle.errors import OssicleError
from ossicle.heads import count_parameters
from ossicle.model import create_model

SMALL = 1 / 64


def waveform(n_samples: int, items: int = 1, seed: int = 1) -> torch.Tensor:
    shape = (items, 1, n_samples)
    return 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def lively(**config) -> CPCEncoder:
    """Random weights everywhere, in the biases too."""
    network = CPCEncoder(**config).eval()
    generator = torch.Generator().manual_seed(0)
    network.draw_weights(generator)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(-0.3, 0.3, generator=generator)
    return network


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def slow_gru(x: np.ndarray, state: dict[str, np.ndarray], suffix: str) -> np.ndarray:
    """(T, C) -> (T, H), by the equations of Cho et al. 2014 as torch orders the gates."""
    w_in, w_state, b_in, b_state = (
        state[f"context.{part}_l0{suffix}"]
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    hidden, outputs = np.zeros(w_state.shape[1]), []
    for frame in x:
        r_in, z_in, n_in = np.split(w_in @ frame + b_in, 3)
        r_state, z_state, n_state = np.split(w_state @ hidden + b_state, 3)
        reset, keep = sigmoid(r_in + r_state), sigmoid(z_in + z_state)
        hidden = (1 - keep) * np.tanh(n_in + reset * n_state) + keep * hidden
        outputs.append(hidden)
    return np.array(outputs)


def slow_maps(network: CPCEncoder, x: torch.Tensor) -> dict[str, np.ndarray]:
    """One item's maps from the weights alone, in float64, with the paper's strides and sizes."""
    state = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    y, maps = x[0].double().numpy(), {}
    sizes = zip((5, 4, 2, 2, 2), (10, 8, 4, 4, 4), (3, 2, 1, 1, 1), strict=True)
    for number, (stride, length, zeros) in enumerate(sizes, start=1):
        weight = state[f"convolutions.conv{number}.weight"]
        assert weight.shape[2] == length
        padded = np.pad(y, ((0, 0), (zeros, zeros)))
        starts = range(0, padded.shape[1] - length + 1, stride)
        sums = [(weight * padded[:, a : a + length]).sum((1, 2)) for a in starts]
        bias = state[f"convolutions.conv{number}.bias"]
        y = maps[f"conv{number}"] = np.maximum(np.stack(sums, 1) + bias[:, None], 0)
    contexts = [slow_gru(y.T, state, "").T]
    if network.bidirectional:
        contexts.append(slow_gru(y.T[::-1], state, "_reverse")[::-1].T)
    return {**maps, "context": np.concatenate(contexts)}


@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_map_is_the_equations(bidirectional):
    network = lively(width=SMALL, bidirectional=bidirectional)
    x = waveform(2003)
    want = slow_maps(network, x)
    with torch.inference_mode():
        for ours in (network(x), folded(network, None).network(x)):
            assert list(ours) == list(want) == list(network.layers)
            for name, map_ in ours.items():
                assert map_.shape[1:] == want[name].shape
                error = np.abs(map_[0].numpy() - want[name]).max()
                assert error <= 1e-5 * np.abs(want[name]).max(), name


def test_the_published_window_is_128_frames_of_10_ms():
    """20480 samples, 160 a frame, 512 channels, a context of 256 (section 3.1)."""
    with torch.inference_mode():
        maps = create_model("cpc_encoder").backbone(waveform(20_480))
    assert maps["conv5"].shape == (1, 512, 128)
    assert maps["context"].shape == (1, 256, 128)


def test_parameters_by_hand():
    convolutions = 512 * 10 + 512 * 512 * (8 + 4 + 4 + 4) + 5 * 512
    gru = 3 * (256 * 512 + 256 * 256 + 2 * 256)
    assert count_parameters(CPCEncoder()) == convolutions + gru
    assert count_parameters(CPCEncoder(bidirectional=True)) == convolutions + 2 * gru


@pytest.mark.parametrize("n_samples", [1, 7, 158, 159, 160, 318, 319, 480, 1600, 4801])
def test_frames_of_any_length(n_samples):
    network = CPCEncoder(width=SMALL)
    with torch.inference_mode():
        maps = network(waveform(n_samples))
    assert {maps[name].shape[-1] for name in ("conv5", "context")} == {
        max(1, (n_samples + 1) // 160)
    }


def heard(network: CPCEncoder, layer: str, channels: slice, frame: int) -> tuple[int, int]:
    """First and last sample that moves a frame, by the gradient."""
    x = waveform(3200).requires_grad_()
    network(x)[layer][0, channels, frame].abs().sum().backward()
    samples = x.grad[0, 0].nonzero()[:, 0]
    return int(samples.min()), int(samples.max())


def test_a_frame_hears_465_samples():
    network = lively(width=SMALL)
    with torch.no_grad():
        for convolution in network.convolutions.values():
            convolution.bias.fill_(3.0)  # no ReLU cuts a path off
    everything = slice(None)
    first, last = heard(network, "conv5", everything, 10)
    assert last - first + 1 == 465 < network.clip["min_s"] * 16_000
    assert first <= 1600 + 80 <= last
    assert heard(network, "conv5", everything, 11) == (first + 160, last + 160)


def test_contexts_hear_one_side_only():
    network = lively(width=SMALL, bidirectional=True)
    with torch.no_grad():
        for convolution in network.convolutions.values():
            convolution.bias.fill_(3.0)
    start, end = heard(network, "conv5", slice(None), 10)
    assert heard(network, "context", slice(0, 4), 10) == (0, end)
    assert heard(network, "context", slice(4, 8), 10) == (start, 3199)


def test_gradients_reach_every_parameter():
    network = CPCEncoder(width=SMALL, bidirectional=True).train()
    network.draw_weights(torch.Generator().manual_seed(0))
    network(waveform(4800, items=2))["context"].square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_a_width_without_channels_is_refused():
    for width in (0.0, -1.0, 0.001):
        with pytest.raises(OssicleError, match="width"):
            create_model("cpc_encoder", width=width)
