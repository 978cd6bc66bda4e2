"""The CLDNN: gammatones against scipy's, its equations in NumPy, and two microphones."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.signal import gammatone, lfilter
from sklearn.metrics import roc_auc_score
from torch import nn

from ossicle.backbones.cldnn import CLDNN, TimeConvolution
from ossicle.backbones.folding import folded
from ossicle.backbones.gammatone import erb_centres_hz, erb_hz, gammatone_filters
from ossicle.errors import OssicleError
from ossicle.heads import count_parameters
from ossicle.model import create_model

RATE = 16_000


def waveform(n_samples: int, channels: int = 1, items: int = 1, seed: int = 1) -> torch.Tensor:
    shape = (items, channels, n_samples)
    return 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def lively(**config) -> CLDNN:
    """Random weights everywhere: in the filters and the biases too."""
    network = CLDNN(**config).eval()
    generator = torch.Generator().manual_seed(0)
    network.draw_weights(generator)
    with torch.no_grad():
        network.tconv.conv.weight.normal_(0, 0.05, generator=generator)
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(-0.3, 0.3, generator=generator)
    return network


# --- the filters to begin with ---------------------------------------------------------------


def test_bandwidths_are_glasberg_and_moores():
    """The values that are quoted everywhere, and scipy's form of the same, f / 9.26449 + 24.7."""
    assert erb_hz(1000.0) == pytest.approx(132.6, abs=0.05)
    f = np.linspace(0, 8000, 50)
    assert np.allclose(erb_hz(f), f / 9.26449 + 24.7, rtol=1e-4)


@pytest.mark.parametrize(("low", "high", "n"), [(125.0, 7500.0, 40), (0.0, 4000.0, 7)])
def test_between_neighbours_lie_equally_many_erbs(low, high, n):
    centres = erb_centres_hz(n, low, high)
    assert centres[0] == pytest.approx(low)
    assert centres[-1] == pytest.approx(high)
    erbs = [
        quad(lambda f: 1 / (24.7 * (4.37 * f / 1000 + 1)), a, b)[0]
        for a, b in zip(centres[:-1], centres[1:], strict=True)
    ]
    assert np.allclose(erbs, erbs[0], rtol=1e-6)


def test_first_filters_are_scipys_gammatones():
    network = create_model("cldnn", seed=3).backbone
    weights = network.tconv.conv.weight.double().numpy()
    assert weights.shape == (40, 1, 400)
    centres = erb_centres_hz(40, 125, 7500)
    for weight, centre in zip(weights[:, 0, ::-1], centres, strict=True):
        fir, _ = gammatone(centre, "fir", order=4, numtaps=400, fs=RATE)
        assert np.corrcoef(weight, fir)[0, 1] > 0.9999
        spectrum = np.abs(np.fft.rfft(weight, 2**16))
        assert spectrum.argmax() * RATE / 2**16 == pytest.approx(centre, rel=0.02)
        if centre < 3000:  # Slaney's recursion departs from the definition near half the rate
            recursion = lfilter(*gammatone(centre, "iir", fs=RATE), np.eye(1, 400)[0])
            assert np.corrcoef(weight, recursion)[0, 1] > 0.99


def test_gammatones_have_the_bandwidth_of_the_ear_and_energy_1():
    centres = np.array([700.0, 1500.0, 4000.0])
    for h, centre in zip(gammatone_filters(centres, RATE, 2000), centres, strict=True):
        assert (h**2).sum() == pytest.approx(1)
        power = np.abs(np.fft.rfft(h, 2**16)) ** 2
        rectangle_hz = power.sum() / power.max() * RATE / 2**16
        assert rectangle_hz == pytest.approx(24.7 * (4.37 * centre / 1000 + 1), rel=0.01)


def test_filters_out_of_range_are_refused():
    for args in ((1, 100, 200), (4, 200, 100), (4, -1, 100)):
        with pytest.raises(OssicleError, match="Hz"):
            erb_centres_hz(*args)
    with pytest.raises(OssicleError, match="8000 Hz"):
        gammatone_filters(np.array([100.0, 8000.0]), RATE, 400)


def test_random_weights_leave_the_gammatones():
    network = CLDNN(channels=2)
    before = network.tconv.conv.weight.clone()
    nn.init.ones_(network.tconv.conv.weight)  # as if it had been trained
    network.draw_weights(torch.Generator().manual_seed(1))
    assert torch.equal(network.tconv.conv.weight, before)
    fresh = CLDNN(channels=2)
    fresh.draw_weights(torch.Generator().manual_seed(2))
    for name, tensor in network.state_dict().items():
        same = torch.equal(tensor, fresh.state_dict()[name])
        assert same == (name.startswith("tconv") or "bias" in name), name
    assert network.seedless_layers == ("tconv",)
    forget = network.lstms["lstm1"].lstm.bias_ih_l0[256:512]
    assert (forget == 1).all()


# --- the equations ---------------------------------------------------------------------------


def slow_tconv(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(C, N) -> (F, T): each place of each filter in each window of 35 ms, one by one."""
    frames = max(1, x.shape[1] // 160)
    padded = np.pad(x, ((0, 0), (200, 1000)))  # 12.5 ms before the first frame's 10 ms
    result = np.zeros((len(weight), frames))
    for t in range(frames):
        window = padded[:, 160 * t : 160 * t + 560]
        outputs = [(weight * window[:, i : i + 400]).sum((1, 2)) for i in range(560 - 400 + 1)]
        result[:, t] = np.log(np.maximum(np.max(outputs, 0), 0) + 0.01)
    return result


@pytest.mark.parametrize("n_samples", [1, 100, 319, 560, 1600, 4801])
@pytest.mark.parametrize("channels", [1, 3])
def test_time_convolution_is_the_definition(n_samples, channels):
    x = waveform(n_samples, channels, items=2)
    layer = lively(channels=channels).tconv
    with torch.inference_mode():
        got = layer(x).numpy()
    for item in range(2):
        want = slow_tconv(x[item].double().numpy(), layer.conv.weight.detach().double().numpy())
        assert got[item].shape == want.shape
        assert np.allclose(got[item], want, atol=2e-5)


@pytest.mark.parametrize("seconds", [0.05, 1.0])
def test_exported_and_half_precision_filters_are_the_same(seconds):
    """They run as a plain convolution, and not by Fourier transforms."""
    layer = lively(channels=2).tconv
    x = waveform(round(seconds * RATE), 2)
    with torch.no_grad():
        want = layer(x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the trace: sizes become constants
            traced = torch.jit.trace(layer, x)
        assert "fft" not in str(traced.inlined_graph)
        assert torch.allclose(traced(x), want, atol=1e-4)
        assert torch.allclose(layer.bfloat16()(x.bfloat16()).float(), want, atol=0.1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def slow_maps(network: CLDNN, x: torch.Tensor) -> dict[str, np.ndarray]:
    """One item's maps from the weights alone, in float64."""
    state = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    bands = slow_tconv(x[0].double().numpy(), state["tconv.conv.weight"])
    maps = {"tconv": bands[None]}
    kernels = state["fconv.0.weight"][:, 0, :, 0]
    y = np.stack([kernels @ bands[f : f + 8] for f in range(40 - 8 + 1)], 1)
    y = np.maximum(y + state["fconv.0.bias"][:, None, None], 0)
    maps["fconv"] = np.stack([y[:, f : f + 3].max(1) for f in range(0, 33, 3)], 1)
    flat = np.stack([maps["fconv"][..., t].reshape(-1) for t in range(bands.shape[1])])
    x_t = flat @ state["linear.weight"].T + state["linear.bias"]
    maps["linear"] = x_t.T
    for name in network.lstms:
        w_in, w_state, b_in, b_state = (
            state[f"lstms.{name}.lstm.{part}_l0"]
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        hidden = cell = np.zeros(w_state.shape[1])
        outputs = []
        for frame in x_t:
            gates = np.split(w_in @ frame + b_in + w_state @ hidden + b_state, 4)
            enter, forget, new, leave = gates
            cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(new)
            hidden = sigmoid(leave) * np.tanh(cell)
            outputs.append(hidden)
        x_t = np.array(outputs)
        maps[name] = x_t.T
    maps["dnn"] = np.maximum(x_t @ state["dnn.0.weight"].T + state["dnn.0.bias"], 0).T
    return maps


@pytest.mark.parametrize("channels", [1, 2])
def test_every_map_is_the_equations(channels):
    network = lively(channels=channels, fconv=16, linear=24, lstm=12, lstm_layers=3, dnn=20)
    x = waveform(2000, channels)
    want = slow_maps(network, x)
    copy = folded(network, None).network
    with torch.inference_mode():
        for ours in (network(x), copy(x)):
            assert list(ours) == list(want) == list(network.layers)
            for name, map_ in ours.items():
                assert map_.shape[1:] == want[name].shape
                error = np.abs(map_[0].numpy() - want[name]).max()
                assert error <= 5e-5 * np.abs(want[name]).max(), name


def test_parameters_by_hand():
    lstm = 4 * (256 * 256 + 256 * 256 + 2 * 256)
    total = 40 * 400 + (128 * 8 + 128) + (128 * 11 * 256 + 256) + 2 * lstm + (256 * 256 + 256)
    assert count_parameters(CLDNN()) == total
    assert count_parameters(CLDNN(channels=3)) == total + 2 * 40 * 400


def test_gradients_reach_every_parameter():
    network = CLDNN(channels=2).train()
    network.draw_weights(torch.Generator().manual_seed(0))
    network(waveform(4800, 2, items=2))["dnn"].square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_phase_of_a_tone_does_not_matter():
    """What the maximum over a window is there for: of a filter itself the output swings to 0."""
    layer, t = TimeConvolution(), np.arange(8000) / RATE
    phases = np.linspace(0, 2 * np.pi, 9)[:-1]
    tones = np.stack([0.5 * np.sin(2 * np.pi * 1000 * t + phase) for phase in phases])
    with torch.no_grad():
        maps = layer(torch.from_numpy(tones[:, None]).float())[..., 5:-5].exp().numpy()
    loudest = maps.mean((0, 2)).argmax()
    assert erb_centres_hz(40, 125, 7500)[loudest] == pytest.approx(1000, rel=0.05)
    values = maps[:, loudest]
    assert values.max() < 1.02 * values.min()


# --- several microphones ---------------------------------------------------------------------


def test_one_sound_on_all_microphones_is_the_sound():
    x = waveform(4000)
    alone, three = CLDNN(), CLDNN(channels=3)
    for network in (alone, three):
        network.draw_weights(torch.Generator().manual_seed(0))
    with torch.inference_mode():
        want, got = alone(x), three(x.expand(-1, 3, -1))
    for name, map_ in want.items():
        assert (got[name] - map_).abs().max() <= 1e-5 * map_.abs().max(), name


def test_the_wrong_number_of_microphones_is_named():
    with pytest.raises(OssicleError, match=r"2 channels, the waveform has 1.*channels=1"):
        CLDNN(channels=2)(waveform(4000))
    with pytest.raises(OssicleError, match="2 channels"):
        create_model("cldnn", channels=2).forward_layers(torch.zeros(1, 4000))


def simulated_array(
    items: int, delay: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """(items, 2, 1600) and whether a source is there, as in every other item.

    The source is noise that reaches the second microphone ``delay`` samples after the first; each
    microphone has three times as loud a noise of its own.
    """
    n, most = 1600, 32
    present = torch.arange(items) % 2
    source = torch.randn(items, n + 2 * most, generator=generator) * present[:, None]
    first, second = source[:, most : most + n], source[:, most - delay : most - delay + n]
    own = torch.randn(items, 2, n, generator=generator)
    return own + 0.3 * torch.stack([first, second], 1), present


class Detector(nn.Module):
    """A short first layer on the chosen microphones and a score from the mean of its bands."""

    def __init__(self, microphones: list[int]) -> None:
        super().__init__()
        self.microphones = microphones
        self.first = TimeConvolution(len(microphones), filters=8, length=64, window=224, hop=160)
        self.score = nn.Linear(8, 1)
        nn.init.ones_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(self.first(x[:, self.microphones]).mean(-1))[:, 0]


@pytest.mark.parametrize("delay", [9, -5])
def test_a_two_microphone_delay_is_found(delay):
    """The learned first layer beats either microphone alone, and its delay is the array's."""
    held_out, present = simulated_array(1000, delay, torch.Generator().manual_seed(99))
    scores = {}
    for microphones in ([0], [1], [0, 1]):
        generator = torch.Generator().manual_seed(0)
        detector = Detector(microphones)
        optimizer = torch.optim.Adam(detector.parameters(), 0.02)
        for _ in range(100):
            x, target = simulated_array(32, delay, generator)
            loss = nn.functional.binary_cross_entropy_with_logits(detector(x), target.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            scores[tuple(microphones)] = roc_auc_score(present, detector(held_out))
    assert scores[0, 1] > max(scores[0,], scores[1,]) + 0.04, scores
    # Filters that line the source up are those of one microphone on the other, moved.
    filters = detector.first.conv.weight.detach().double().numpy()
    likeness = sum(np.correlate(second, first, "full") for first, second in filters)
    assert likeness.argmax() - 63 == delay
    assert likeness.max() > 2 * np.sort(likeness)[-2]
