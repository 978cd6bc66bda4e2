"""The CRNN: its equations written out in NumPy, its size by hand, and what a frame depends on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ossicle.backbones.crnn import CRNN
from ossicle.backbones.folding import folded
from ossicle.backbones.layers import draw_recurrent_weights
from ossicle.heads import Head, count_parameters
from ossicle.model import create_model

POOLS = {"conv1": 5, "conv2": 2, "conv3": 2}  # SEDnet's


def lively(**config) -> CRNN:
    """Random weights, and batch norms and biases that do something."""
    network = CRNN(**config).eval()
    generator = torch.Generator().manual_seed(0)
    network.draw_weights(generator)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
            torch.nn.init.uniform_(tensor, 0.5, 1.5, generator=generator)
        elif tensor.dim() == 1 and tensor.is_floating_point():
            torch.nn.init.uniform_(tensor, -0.3, 0.3, generator=generator)
    return network


def picture(frames: int, seed: int = 1, items: int = 1) -> torch.Tensor:
    return torch.randn(items, 1, 40, frames, generator=torch.Generator().manual_seed(seed))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def slow_gru(x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """(T, C) -> (T, H), the equations of Cho et al. 2014 with the reset gate on the product."""
    w_in, w_state, b_in, b_state = weights
    state, states = np.zeros(w_state.shape[1]), []
    for frame in x:
        r_in, z_in, n_in = np.split(w_in @ frame + b_in, 3)
        r_state, z_state, n_state = np.split(w_state @ state + b_state, 3)
        reset, update = sigmoid(r_in + r_state), sigmoid(z_in + z_state)
        new = np.tanh(n_in + reset * n_state)
        state = (1 - update) * new + update * state
        states.append(state)
    return np.array(states)


def slow_maps(network: CRNN, sound: torch.Tensor, causal: bool) -> dict[str, np.ndarray]:
    """One item's maps from the weights alone, in float64."""
    state = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    x, maps = sound[0].double().numpy(), {}
    for name, pool in POOLS.items():
        keys = [key for key in state if key.startswith(f"convolutions.{name}.")]
        weight = next(state[key] for key in keys if state[key].ndim == 4)
        bias, gain, shift, mean, var = (state[key] for key in keys if state[key].ndim == 1)
        _, bands, frames = x.shape
        padded = np.pad(x, ((0, 0), (1, 1), (2, 0) if causal else (1, 1)))
        y = np.zeros((len(weight), bands, frames))
        for i in range(3):
            for j in range(3):
                part = padded[:, i : i + bands, j : j + frames]
                y += np.einsum("oc,cft->oft", weight[:, :, i, j], part)
        y = y + bias[:, None, None]
        y = (y - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None]
        y = np.maximum(y * gain[:, None, None] + shift[:, None, None], 0)
        x = np.stack([y[:, f : f + pool].max(1) for f in range(0, bands, pool)], 1)
        maps[name] = x
    x = np.stack([x[..., t].reshape(-1) for t in range(x.shape[-1])])  # (T, C F)
    for name in ("gru1", "gru2"):
        keys = [f"recurrent.{name}.gru.{part}_l0" for part in ("weight_ih", "weight_hh")]
        keys += [f"recurrent.{name}.gru.{part}_l0" for part in ("bias_ih", "bias_hh")]
        y = slow_gru(x, [state[key] for key in keys])
        if not causal:
            backwards = slow_gru(x[::-1], [state[f"{key}_reverse"] for key in keys])[::-1]
            y = y * backwards
        maps[name], x = y.T, y
    maps["dense"] = state["dense.weight"] @ x.T + state["dense.bias"][:, None]
    return maps


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("frames", [1, 7])
def test_every_map_is_the_equations(causal, frames):
    network = lively(causal=causal, channels=16)
    x = picture(frames)
    want = slow_maps(network, x, causal)
    with torch.inference_mode():
        ours = network(x)
    assert list(ours) == list(want) == list(network.layers)
    for name, map_ in ours.items():
        assert map_.shape[1:] == want[name].shape
        error = np.abs(map_[0].numpy() - want[name]).max()
        assert error <= 1e-5 * np.abs(want[name]).max(), name


@pytest.mark.parametrize("causal", [False, True])
def test_parameters_by_hand(causal):
    directions = 1 if causal else 2
    convolutions = (9 * 128 + 128) + 2 * (9 * 128 * 128 + 128) + 3 * 2 * 128
    gates = [3 * (32 * inputs + 32 * 32 + 2 * 32) for inputs in (128 * 2, 32)]
    total = convolutions + directions * sum(gates) + 32 * 32 + 32
    assert count_parameters(CRNN(causal=causal)) == total


@pytest.mark.parametrize("causal", [False, True])
def test_no_frame_of_a_causal_network_hears_the_future(causal):
    network = lively(causal=causal)
    before, after = picture(40), picture(40)
    change = 25
    after[..., change:] = picture(15, seed=2)
    with torch.inference_mode():
        maps, others = network(before), network(after)
    for name in network.layers:
        same = (maps[name] == others[name]).flatten(0, -2).all(0)
        assert not same[change:].any(), name
        if causal:
            assert same[:change].all(), name
        else:
            # A convolution looks one frame ahead, three in a row three; a recurrent layer, all.
            ahead = int(name[-1]) if name.startswith("conv") else change
            assert not same[change - ahead : change].any(), name
            assert same[: change - ahead].all(), name


def test_a_causal_network_gives_the_same_for_the_beginning_alone():
    network = lively(causal=True)
    x = picture(60)
    with torch.inference_mode():
        whole, part = network(x), network(x[..., :35])
    for name, map_ in part.items():
        error = (whole[name][..., :35] - map_).abs().max()
        assert error <= 1e-5 * map_.abs().max(), name


@pytest.mark.parametrize("causal", [False, True])
def test_the_inference_copy_has_no_batch_norm_and_the_same_maps(causal):
    network = lively(causal=causal)
    copy = folded(network, None).network
    assert not any(isinstance(module, nn.BatchNorm2d) for module in copy.modules())
    x = picture(33)
    with torch.inference_mode():
        want = network(x)
        got = copy(x.contiguous(memory_format=torch.channels_last))
    for name, map_ in want.items():
        assert (got[name] - map_).abs().max() <= 1e-4 * map_.abs().max(), name


def test_recurrent_weights_are_drawn_from_the_generator():
    """By their definitions, gate by gate, for both kinds of layer."""
    torch.manual_seed(5)
    layers = nn.ModuleList([nn.GRU(400, 64, bidirectional=True), nn.LSTM(400, 64, num_layers=2)])
    draw_recurrent_weights(layers, torch.Generator().manual_seed(1))
    first = {name: tensor.clone() for name, tensor in layers.state_dict().items()}
    torch.manual_seed(6)
    draw_recurrent_weights(layers, torch.Generator().manual_seed(1))
    drawn = set()
    for name, tensor in layers.state_dict().items():
        assert torch.equal(tensor, first[name]), name
        gates = tensor.double().numpy().reshape(-1, 64, *tensor.shape[1:])
        assert len(gates) == (3 if name.startswith("0.") else 4)
        for number, gate in enumerate(gates):
            if "weight_hh" in name:
                assert np.allclose(gate @ gate.T, np.eye(64), atol=1e-5)
                drawn.add(gate.tobytes())
            elif "weight_ih" in name:
                assert gate.std() * gate.shape[1] ** 0.5 == pytest.approx(1, abs=0.05)
                drawn.add(gate.tobytes())
            else:
                # torch's documentation: an LSTM's gates are input, forget, cell, output.
                forget = name.startswith("1.") and number == 1 and "bias_ih" in name
                assert (gate == (1 if forget else 0)).all(), name
    assert len(drawn) == 2 * 2 * 3 + 2 * 2 * 4  # no gate twice
    draw_recurrent_weights(layers, torch.Generator().manual_seed(2))
    assert not torch.equal(layers.state_dict()["0.weight_hh_l0"], first["0.weight_hh_l0"])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_values_are_dropped_in_training_alone(dropout):
    """At the entrance of every layer but the first; the maps that come out are whole."""
    network = lively(dropout=dropout)
    entered: dict[str, torch.Tensor] = {}
    entries = {name: block[1] for name, block in network.convolutions.items()}
    entries |= {**network.recurrent, "dense": network.dense}
    for name, module in entries.items():
        module.register_forward_pre_hook(lambda _, x, name=name: entered.update({name: x[0]}))
    torch.manual_seed(0)
    for training in (False, True):
        with torch.no_grad():
            maps = network.train(training)(picture(100))
        share = {name: (x == 0).float().mean().item() for name, x in entered.items()}
        assert list(share) == list(network.layers)
        assert share["conv1"] == 0
        for before, name in zip(network.layers[:-1], network.layers[1:], strict=True):
            alive = (maps[before] != 0).float().mean().item()
            left = alive * (1 - dropout) if training else alive
            assert share[name] == pytest.approx(1 - left, abs=0.03), name


def test_gradients_reach_every_parameter():
    network = CRNN().train()
    network.draw_weights(torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    network(picture(20, items=2))["dense"].square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_scores_for_every_frame():
    """A frame each 20 ms from 40 ms of sound; over a linear head, their mean is the clip's."""
    model = create_model("crnn")
    seconds = 1.3
    waveform = torch.randn(2, round(seconds * 16_000), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    weight, bias = (torch.randn(*n, generator=generator) for n in ((3, 32), (3,)))
    head = Head.from_layers([(weight, bias)])
    with torch.inference_mode():
        maps = model.forward_layers(waveform)["dense"]
        scores = head.frames(maps)
        assert scores.shape == (2, 3, 1 + int((seconds - 0.04) / 0.02 + 1e-9))
        assert torch.allclose(scores.mean(-1), head(maps.mean(-1)), atol=1e-5)


def test_no_sound_after_a_frame_reaches_a_causal_model():
    """Through the front end too: frame t is known after 20 t + 40 ms."""
    model = create_model("crnn", causal=True)
    waveform = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    changed = waveform.clone()
    changed[:, 320 * 20 + 640 :] = 0.5
    with torch.inference_mode():
        before, after = model.forward_layers(waveform), model.forward_layers(changed)
    for name, map_ in before.items():
        same = (map_ == after[name]).flatten(0, -2).all(0)
        assert same[:21].all(), name
        assert not same[21:].all(), name
