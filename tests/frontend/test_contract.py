"""One battery over every front end and its main variants."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.errors import OssicleError
from ossicle.frontend import FRONTENDS, FrontEnd, create_frontend

YAMNET = {
    "sample_rate": 16000,
    "n_fft": 512,
    "win_length": 400,
    "hop_length": 160,
    "n_mels": 64,
    "fmin": 125,
    "fmax": 7500,
    "mel_scale": "htk",
    "triangles": "mel",
    "norm": None,
    "power": 1.0,
    "scaling": "log",
    "offset": 0.001,
    "center": False,
    "window_align": "left",
}
EFFICIENTAT = {
    "sample_rate": 32000,
    "n_fft": 1024,
    "win_length": 800,
    "hop_length": 320,
    "n_mels": 128,
    "fmax": 15000,
    "mel_scale": "htk",
    "triangles": "mel",
    "norm": None,
    "scaling": "log",
    "offset": 1e-5,
    "shift": 4.5,
    "scale": 0.2,
    "pad_mode": "reflect",
    "window": "hann_symmetric",
    "preemphasis": 0.97,
}
STUDY = {
    "sample_rate": 12000,
    "n_mels": 40,
    "a_weighting": True,
    "standardise_per_frequency": True,
    "standardise_per_sample": True,
    "scale": 10.0,
}
VARIANTS = {
    "waveform": ("waveform", {"sample_rate": 8000}),
    "waveform standardised": ("waveform", {"sample_rate": 8000, "standardise_per_sample": True}),
    "stft": ("stft", {"sample_rate": 8000, "n_fft": 64, "hop_length": 17}),
    "stft odd": (
        "stft",
        {"sample_rate": 8000, "n_fft": 63, "win_length": 31, "hop_length": 70, "center": False},
    ),
    "stft left": (
        "stft",
        {"sample_rate": 8000, "n_fft": 64, "win_length": 41, "window_align": "left"},
    ),
    "stft reflect": ("stft", {"sample_rate": 8000, "pad_mode": "reflect", "scaling": "linear"}),
    "log mel": ("log_mel", {"sample_rate": 12000}),
    "log mel fixed": ("log_mel", {"sample_rate": 12000, "reference": 0.5, "top_db": None}),
    "log mel yamnet": ("log_mel", YAMNET),
    "log mel efficientat": ("log_mel", EFFICIENTAT),
    "log mel study db": ("log_mel", STUDY),
    "log mel study log": ("log_mel", STUDY | {"scaling": "log", "offset": 1e-7}),
    "log mel study linear": ("log_mel", STUDY | {"scaling": "linear", "power": 1.0}),
    "mfcc": ("mfcc", {"sample_rate": 12000, "n_fft": 512, "n_mels": 40}),
    "mfcc difference": (
        "mfcc",
        {"sample_rate": 12000, "n_fft": 512, "n_mels": 40, "n_mfcc": 13, "deltas": 2},
    ),
    "mfcc savgol": (
        "mfcc",
        {"sample_rate": 12000, "n_fft": 512, "n_mels": 40, "deltas": 2, "delta": "savgol"},
    ),
}


@pytest.fixture(params=VARIANTS, scope="module")
def frontend(request: pytest.FixtureRequest) -> FrontEnd:
    name, config = VARIANTS[request.param]
    return create_frontend(name, **config)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_front_end_is_in_the_battery() -> None:
    assert {name for name, _ in VARIANTS.values()} == set(FRONTENDS)


@settings(max_examples=60, deadline=None)
@given(n_samples=st.integers(0, 3000))
def test_num_frames_is_the_length_of_the_output(frontend: FrontEnd, n_samples: int) -> None:
    output = frontend(noise(1, n_samples))
    expected = (1, 1, frontend.n_bands, frontend.num_frames(n_samples))
    if isinstance(frontend, FRONTENDS["waveform"]):
        expected = (1, 1, frontend.num_frames(n_samples))
    assert output.shape == expected
    assert frontend.num_frames(n_samples) >= 1
    assert output.dtype == torch.float32
    assert torch.isfinite(output).all()


def test_frames_are_hop_s_apart(frontend: FrontEnd) -> None:
    seconds = 50
    frames = frontend.num_frames(seconds * frontend.sample_rate)
    assert frames * frontend.hop_s == pytest.approx(seconds, abs=3 * frontend.hop_s)


def test_an_item_does_not_depend_on_its_neighbours(frontend: FrontEnd) -> None:
    # Neighbours of very different levels: a shared maximum or mean would show.
    levels = torch.tensor([1e-3, 1.0, 0.0, 0.1])
    waveform = noise(4, 30001) * levels[:, None]
    together = frontend(waveform)
    alone = torch.cat([frontend(item) for item in waveform.split(1)])
    assert torch.equal(together, alone)


@pytest.mark.filterwarnings("ignore:std_mean")
def test_an_empty_batch_stays_empty(frontend: FrontEnd) -> None:
    output = frontend(noise(0, 2000))
    assert output.shape == (0, *frontend(noise(1, 2000)).shape[1:])


@settings(max_examples=10, deadline=None)
@given(n_samples=st.integers(0, 3000))
def test_silence_gives_a_finite_constant(frontend: FrontEnd, n_samples: int) -> None:
    output = frontend(torch.zeros(2, n_samples))
    assert torch.isfinite(output).all()
    # Constant over time and items; A-weighting and the DCT tell bands apart. The rounding is
    # that of a sum of decibels.
    rounding = 2e-6 * float(output.abs().amax())
    assert torch.allclose(output, output[:1, ..., :1].expand_as(output), rtol=0, atol=rounding)


def test_config_rebuilds_it_exactly(frontend: FrontEnd) -> None:
    config = json.loads(json.dumps(frontend.config()))
    name = next(name for name, kind in FRONTENDS.items() if type(frontend) is kind)
    rebuilt = FRONTENDS[name](**config)
    waveform = noise(2, 5000)
    assert rebuilt.config() == frontend.config()
    assert torch.equal(rebuilt(waveform), frontend(waveform))
    assert (rebuilt.sample_rate, rebuilt.hop_s) == (frontend.sample_rate, frontend.hop_s)


def test_config_takes_numbers_from_numpy() -> None:
    frontend = create_frontend("log_mel", sample_rate=np.int64(12000), fmin=np.float32(50))
    assert json.loads(json.dumps(frontend.config()))["sample_rate"] == 12000


def test_config_is_a_copy(frontend: FrontEnd) -> None:
    frontend.config().clear()
    assert frontend.config()


def test_copies_are_equal(frontend: FrontEnd) -> None:
    waveform = noise(1, 5000)
    expected = frontend(waveform)
    assert torch.equal(copy.deepcopy(frontend)(waveform), expected)
    assert torch.equal(pickle.loads(pickle.dumps(frontend))(waveform), expected)


def test_nothing_to_train_or_to_store(frontend: FrontEnd) -> None:
    assert not list(frontend.parameters())
    assert not frontend.state_dict()


def test_training_mode_changes_nothing(frontend: FrontEnd) -> None:
    waveform = noise(1, 5000)
    assert torch.equal(frontend.train()(waveform), frontend.eval()(waveform))


def test_gradients_are_finite_even_for_silence(frontend: FrontEnd) -> None:
    for waveform in (noise(1, 3000), torch.zeros(1, 3000)):
        waveform.requires_grad_()
        frontend(waveform).sum().backward()
        assert waveform.grad is not None
        assert torch.isfinite(waveform.grad).all()


def test_gradient_mode_changes_no_value(frontend: FrontEnd) -> None:
    waveform = noise(1, 3000)
    with torch.inference_mode():
        expected = frontend(waveform)
    assert torch.allclose(frontend(waveform.requires_grad_()), expected, rtol=0, atol=1e-6)


def test_autocast_does_not_lower_the_precision(frontend: FrontEnd) -> None:
    waveform = noise(1, 3000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = frontend(waveform)
    assert torch.equal(output, frontend(waveform))


def test_float64_samples_are_taken(frontend: FrontEnd) -> None:
    waveform = noise(1, 3000)
    assert torch.equal(frontend(waveform.double()), frontend(waveform))


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (torch.zeros(3000), r"shape \(B, N\), got \(3000,\)"),
        (torch.zeros(2, 1, 3000), r"got \(2, 1, 3000\)"),
        (torch.zeros(2, 3000, dtype=torch.int16), "int16"),
    ],
)
def test_a_wrong_waveform_is_refused(
    frontend: FrontEnd, waveform: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        frontend(waveform)


def test_exported_graph_takes_other_lengths(frontend: FrontEnd) -> None:
    waveform = noise(1, 9000)
    dynamic = {"waveform": {1: torch.export.Dim.DYNAMIC}}
    exported = torch.export.export(frontend, (waveform,), dynamic_shapes=dynamic).module()
    longer = noise(1, 12345, seed=1)
    assert torch.allclose(exported(longer), frontend(longer), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("log_mels", {}, "unknown front end 'log_mels': choose one of log_mel"),
        ("log_mel", {}, "sample_rate"),
        ("log_mel", {"sample_rate": 8000, "hop": 5}, "hop"),
        ("waveform", {"sample_rate": 0}, "sample_rate is 0"),
        ("stft", {"sample_rate": 8000, "win_length": 600}, "win_length 600 is longer"),
        ("stft", {"sample_rate": 8000, "hop_length": 0}, "hop_length is 0"),
        ("stft", {"sample_rate": 8000, "window": "kaiser"}, "'hann', 'hamming'"),
        ("stft", {"sample_rate": 8000, "power": 3.0}, "power is 3.0"),
        ("stft", {"sample_rate": 8000, "pad_mode": "wrap"}, "pad_mode"),
        ("stft", {"sample_rate": 8000, "window_align": "right"}, "window_align"),
        ("stft", {"sample_rate": 8000, "scaling": "dB"}, "scaling is 'dB'"),
        ("stft", {"sample_rate": 8000, "offset": 0.0}, "offset is 0.0"),
        ("stft", {"sample_rate": 8000, "reference": "min"}, "reference is 'min'"),
        ("stft", {"sample_rate": 8000, "reference": 0.0}, "reference is 0.0"),
        ("stft", {"sample_rate": 8000, "top_db": -80.0}, "top_db is -80.0"),
        ("stft", {"sample_rate": 8000, "scale": float("nan")}, "scale is nan"),
        ("log_mel", {"sample_rate": 8000, "shift": float("inf")}, "shift is inf"),
        ("log_mel", {"sample_rate": 8000, "preemphasis": 1.5}, "preemphasis is 1.5"),
        ("log_mel", {"sample_rate": 8000, "fmax": 4001}, "half the sample rate, 4000 Hz"),
        ("log_mel", {"sample_rate": 8000, "fmin": 3000, "fmax": 2000}, "fmin 3000 Hz"),
        ("log_mel", {"sample_rate": 8000, "n_mels": 0}, "n_mels is 0"),
        ("log_mel", {"sample_rate": 8000, "mel_scale": "bark"}, "mel_scale is 'bark'"),
        ("log_mel", {"sample_rate": 8000, "norm": "area"}, "norm is 'area'"),
        ("log_mel", {"sample_rate": 8000, "triangles": "bark"}, "triangles is 'bark'"),
        ("mfcc", {"sample_rate": 8000, "n_mfcc": 129}, "n_mfcc is 129"),
        ("mfcc", {"sample_rate": 8000, "deltas": 3}, "deltas is 3"),
        ("mfcc", {"sample_rate": 8000, "delta": "slope"}, "delta is 'slope'"),
        (
            "mfcc",
            {"sample_rate": 8000, "deltas": 1, "delta": "savgol", "delta_width": 8},
            "delta_width is 8",
        ),
    ],
)
def test_a_wrong_configuration_is_one_clear_line(name: str, config: dict, message: str) -> None:
    with pytest.raises(OssicleError, match=message) as caught:
        create_frontend(name, **config)
    assert "\n" not in str(caught.value)
