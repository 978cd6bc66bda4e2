"""`ossicle denoise train|run|score` from recordings to files, and what training finds."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import soundfile

from ossicle import bundle
from ossicle.denoise.data import read_recordings
from ossicle.denoise.fit import fit_partitioned_autoencoder, fit_spectral_gate
from ossicle.denoise.settings import PAPER, AutoencoderSettings, GateSettings
from ossicle.errors import OssicleError
from ossicle.metrics.separation import si_sdr

RATE = 8000
QUICK = AutoencoderSettings(
    sample_rate=RATE, steps=60, batch_size=8, crop_s=1.0, depth=1, width=16, n_bands=24,
    judge_every=30, n_valid=4, valid_s=2.0,
)  # fmt: skip
GATES = GateSettings(
    sample_rate=RATE, kinds=("stationary",), thresholds=(1.0, 2.0), slopes_db=(2.0,),
    smooth_hz=(0.0,), smooth_ms=(50.0,), release_ms=(50.0,), floors_db=(-40.0, -3.0), n_valid=4,
    valid_s=2.0,
)  # fmt: skip


def _chirps(rng, seconds=2.0):
    """Short tones that rise, with silence between."""
    t = np.arange(round(seconds * RATE)) / RATE
    out = np.zeros(len(t))
    for start in np.arange(rng.uniform(0, 0.3), seconds - 0.3, 0.5):
        at = (t >= start) & (t < start + 0.2)
        f = rng.uniform(1500, 2500)
        out[at] += (
            0.3 * np.sin(2 * np.pi * (f + 800 * (t[at] - start)) * t[at]) * np.hanning(at.sum())
        )
    return out


def _hum(rng, seconds=2.0):
    noise = np.cumsum(rng.standard_normal(round(seconds * RATE)))
    noise -= np.convolve(noise, np.ones(50) / 50, "same")
    return 0.05 * noise / noise.std()


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """Noisy recordings, noise alone, and noisy recordings whose clean parts are known."""
    root = tmp_path_factory.mktemp("field")
    rng = np.random.default_rng(0)
    for name in ("noisy", "noise", "test/mix", "test/s1", "test/s2"):
        (root / name).mkdir(parents=True)
    for i in range(8):
        soundfile.write(root / "noisy" / f"n{i}x.wav", _chirps(rng) + _hum(rng), RATE)
        soundfile.write(root / "noise" / f"m{i}x.wav", _hum(rng), RATE)
        clean, noise = _chirps(rng), _hum(rng)
        soundfile.write(root / "test" / "mix" / f"{i}.wav", clean + noise, RATE, "FLOAT")
        soundfile.write(root / "test" / "s1" / f"{i}.wav", clean, RATE, "FLOAT")
        soundfile.write(root / "test" / "s2" / f"{i}.wav", noise, RATE, "FLOAT")
    return root


def _gained(separator, field):
    import torch

    gains = []
    for i in range(8):
        mixture = soundfile.read(field / "test" / "mix" / f"{i}.wav", dtype="float32")[0]
        clean = soundfile.read(field / "test" / "s1" / f"{i}.wav")[0]
        found = separator.separate(torch.from_numpy(mixture)[None])[0, 0].numpy()
        gains.append(float(si_sdr(found, clean) - si_sdr(mixture, clean)))
    return float(np.mean(gains))


@pytest.fixture(scope="module")
def trained(field):
    recordings = read_recordings(field / "noisy", noise=field / "noise", groups="none")
    return fit_partitioned_autoencoder(recordings, QUICK)


def test_training_without_clean_recordings_takes_noise_out(trained, field):
    assert _gained(trained, field) > 3.0
    about = trained.info["trained_on"]
    assert (about["noisy_recordings"], about["noise_recordings"]) == (6, 6)
    assert trained.info["chosen"]["output"] in ("mask", "decoded")


def test_a_gate_is_chosen_and_takes_noise_out(field):
    recordings = read_recordings(field / "noisy", noise=field / "noise", groups="none")
    gate = fit_spectral_gate(recordings, GATES)
    assert gate.floor_db == -40.0  # 3 dB less noise is not what foregrounds align with
    assert _gained(gate, field) > 3.0
    tried = gate.info["tried"]
    assert gate.info["chosen"]["alignment"] == max(one["alignment"] for one in tried)


def test_a_stopped_run_is_the_run_that_was_not(field, tmp_path):
    from dataclasses import replace

    import torch

    recordings = read_recordings(field / "noisy", noise=field / "noise", groups="none")
    short = replace(QUICK, steps=8, judge_every=4)
    whole = fit_partitioned_autoencoder(recordings, short)

    def stop(done, total, seconds):
        if done == 5:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit_partitioned_autoencoder(recordings, short, folder=tmp_path, progress=stop)
    again = fit_partitioned_autoencoder(recordings, short, folder=tmp_path)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_the_papers_form_is_trained_by_the_papers_loss(field):
    from dataclasses import replace

    recordings = read_recordings(field / "noisy", noise=field / "noise", groups="none")
    paper = replace(PAPER, sample_rate=RATE, steps=10, batch_size=4, crop_s=0.5, n_valid=2)
    net = fit_partitioned_autoencoder(recordings, paper)
    assert (net.n_foreground, net.n_background, len(net.band_mean)) == (3, 3, 32)


def test_from_the_command_line(ossicle, field, tmp_path):
    out = tmp_path / "net.ossicle"
    code, _, err = ossicle(
        "denoise", "train", field / "noisy", "--noise", field / "noise", "-o", out,
        "--sample-rate", RATE, "--steps", 2, "--groups", "none", "--workers", 1, "--json",
    )  # fmt: skip
    assert code == 0, err
    assert bundle.load_separator(out).sources == ("foreground", "background")
    for name in (out, "gate"):
        folder = tmp_path / f"out_{name == 'gate'}"
        code, told, err = ossicle(
            "denoise", "run", name, field / "noisy" / "n0x.wav", "-o", folder, "--floor-db", -20,
            "--keep-background", "--no-report", "--workers", 1, "--json",
        )  # fmt: skip
        assert code == 0, err
        read = [
            soundfile.read(folder / f"n0x_{which}.wav")[0] for which in ("denoised", "background")
        ]
        whole = soundfile.read(field / "noisy" / "n0x.wav")[0]
        np.testing.assert_allclose(sum(read), whole, atol=1e-4)  # 16-bit steps
        assert np.abs(read[1]).max() <= np.abs(whole).max()
    code, told, err = ossicle(
        "denoise", "score", out, field, "--workers", 1, "--json", "-o", tmp_path / "s.csv"
    )
    assert code == 0, err
    told = json.loads(told.splitlines()[-1])
    rows = {row["system"]: row for row in told["rows"]}
    assert set(rows) == {
        "mixture", "ideal ratio mask", "gate, stationary", "gate, running", "net.ossicle",
    }  # fmt: skip
    assert rows["mixture"]["si_sdr_improvement"]["value"] == pytest.approx(0, abs=1e-9)
    ideal = rows["ideal ratio mask"]["si_sdr"]["value"]
    assert ideal > rows["gate, stationary"]["si_sdr"]["value"] > 0
    assert len(pd.read_csv(tmp_path / "s.csv")) == 8 * 5 * 2


def test_mistakes_on_the_command_line(ossicle, field, tmp_path):
    code, _, err = ossicle("denoise", "train", field / "noisy", "-o", tmp_path / "x")
    assert code == 2
    assert "--noise" in err
    code, _, err = ossicle(
        "denoise", "run", "gate", field / "noisy", "-o", tmp_path / "y", "--strength", 0.5,
        "--floor-db", -10,
    )  # fmt: skip
    assert code == 2
    assert "one of them" in err
    with pytest.raises(OssicleError, match="form"):
        AutoencoderSettings(form="wide").check()
