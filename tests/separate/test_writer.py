"""Files written as their samples come: whole or not at all, never clipped, one gain for all."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import soundfile

from ossicle import writer
from ossicle.audio import load
from ossicle.errors import AudioError, DataError
from ossicle.writer import JointWriter, check_writable, subtype_like


def tone(n: int, channels: int, peak: float, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).uniform(-1, 1, (channels, n))
    return (peak * x / np.abs(x).max()).astype(np.float32)


def write(paths, sources, rate=16000, subtype="PCM_16", step=1000, **keywords):
    with JointWriter(paths, rate, sources.shape[1], subtype, **keywords) as file:
        for at in range(0, sources.shape[-1], step):
            file.write(sources[..., at : at + step])
        return file.finish()


@pytest.mark.parametrize("ending", ["wav", "flac"])
@pytest.mark.parametrize(("subtype", "bits"), [("PCM_16", 16), ("PCM_24", 24), ("PCM_32", 32)])
def test_integers_come_back_as_they_were(tmp_path, ending, subtype, bits):
    if (ending, bits) == ("flac", 32):
        pytest.skip("FLAC has no 32 bits")
    # Every value that float32 holds exactly, the least and the greatest among them.
    top = 2 ** (bits - 1)
    values = np.random.default_rng(1).integers(-top, top, (2, 70_000))
    if bits == 32:
        values = values // 256 * 256
    values[0, :2] = -top, top - (256 if bits == 32 else 1)
    path = tmp_path / f"x.{ending}"
    done = write([path], (values / top).astype(np.float32)[None], subtype=subtype)
    assert (done.gain_db, done.frames) == (0.0, 70_000)
    read, _ = soundfile.read(path, dtype="int32")
    np.testing.assert_array_equal(read.T.astype(np.int64), values * 2 ** (32 - bits))
    assert soundfile.info(path).subtype == subtype


def test_values_are_rounded_to_the_nearest(tmp_path):
    x = tone(50_000, 1, 0.9)
    write([tmp_path / "x.wav"], x[None])
    read, _ = soundfile.read(tmp_path / "x.wav", dtype="int16")
    np.testing.assert_array_equal(read, [round(float(v) * 32768) for v in x[0]])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_all_files_are_turned_down_alike_by_no_more_than_needed(tmp_path, sign, subtype):
    sources = np.stack([tone(5000, 2, 0.4, 1), tone(5000, 2, 0.5, 2)])
    sources[1, 1, 4321] = sign * 1.7
    paths = [tmp_path / "a.wav", tmp_path / "b.flac"]
    done = write(paths, sources, subtype=subtype)
    assert done.gain_db == pytest.approx(-20 * np.log10(1.7), abs=1e-3)
    assert done.peak == pytest.approx(1.7)
    read = np.stack([load(path, mono=False).samples for path in paths])
    step = 2.0 ** (1 - int(subtype[-2:]))
    np.testing.assert_allclose(read, sources / 1.7, atol=1.6 * step)
    assert read[1, 1, 4321] == pytest.approx(sign, abs=1.1 * step)
    np.testing.assert_allclose(read.sum(0), sources.sum(0) / 1.7, atol=2.6 * step)


def test_full_scale_itself(tmp_path):
    """1.0 is no 16-bit value; what rounds to the greatest one is left alone."""
    sources = np.array([[[32767.4 / 32768, -1.0]]], np.float32)
    assert write([tmp_path / "a.wav"], sources).gain_db == 0
    assert soundfile.read(tmp_path / "a.wav", dtype="int16")[0].tolist() == [32767, -32768]
    assert -0.001 < write([tmp_path / "b.wav"], np.ones((1, 1, 2), np.float32)).gain_db < 0
    assert soundfile.read(tmp_path / "b.wav", dtype="int16")[0].tolist() == [32767, 32767]


def test_float_files_hold_what_is_beyond(tmp_path):
    sources = tone(3000, 1, 2.5)[None]
    assert write([tmp_path / "a.wav"], sources, subtype="FLOAT").gain_db == 0
    np.testing.assert_array_equal(load(tmp_path / "a.wav").samples, sources[0])


def test_subtype_follows_the_input():
    cases = {
        "WAV/PCM_16": ("PCM_16", "PCM_16"),
        "WAVEX/PCM_24": ("PCM_24", "PCM_24"),
        "FLAC/PCM_24": ("PCM_24", "PCM_24"),
        "WAV/PCM_32": ("PCM_32", "PCM_24"),
        "WAV/FLOAT": ("FLOAT", "PCM_24"),
        "W64/DOUBLE": ("FLOAT", "PCM_24"),
        "WAV/PCM_U8": ("PCM_16", "PCM_16"),
        "MP3/MPEG_LAYER_III": ("PCM_16", "PCM_16"),
        "MOV/AAC": ("PCM_16", "PCM_16"),
    }
    for coding, wanted in cases.items():
        assert (subtype_like(coding, "wav"), subtype_like(coding, "flac")) == wanted
        for kind, subtype in zip(("wav", "flac"), wanted, strict=True):
            assert soundfile.check_format(kind.upper(), subtype)


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype", "says"),
    [
        ("x.flac", 48000, 9, "PCM_16", "8 channels"),
        ("x.flac", 700_000, 1, "PCM_16", "655350 Hz"),
        ("x.flac", 48000, 1, "FLOAT", "FLOAT"),
        ("x.flac", 48000, 1, "PCM_32", "24 bits"),
        ("x.mp3", 48000, 1, "PCM_16", r"\.wav or \.flac"),
        ("x.wav", 48000, 1, "ULAW", "ULAW"),
    ],
)
def test_what_a_format_cannot_hold_is_told_at_once(tmp_path, name, rate, channels, subtype, says):
    with pytest.raises(AudioError, match=says):
        JointWriter([tmp_path / name], rate, channels, subtype)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rate", [8000, 44100, 655_350])
def test_what_flac_is_said_to_hold_it_holds(tmp_path, rate):
    assert check_writable("x.flac", rate, 8, "PCM_24") == "FLAC"
    sources = tone(4000, 8, 0.5)[None]
    write([tmp_path / "x.flac"], sources, rate, "PCM_24")
    about = soundfile.info(tmp_path / "x.flac")
    assert (about.samplerate, about.channels, about.frames) == (rate, 8, 4000)


def test_beyond_32_bits_of_bytes_wav_becomes_rf64(tmp_path, monkeypatch):
    sources = tone(10_000, 2, 0.5)[None]
    write([tmp_path / "small.wav"], sources)
    monkeypatch.setattr(writer, "_WAV_BYTES", 40_000 - 1)
    write([tmp_path / "large.wav"], sources)
    heads = [(tmp_path / f"{name}.wav").read_bytes()[:4] for name in ("small", "large")]
    assert heads == [b"RIFF", b"RF64"]
    one, other = (load(tmp_path / f"{n}.wav", mono=False).samples for n in ("small", "large"))
    np.testing.assert_array_equal(one, other)


def test_what_is_not_finished_leaves_nothing_and_the_old_file_stays(tmp_path):
    path = tmp_path / "deep" / "x.wav"
    write([path], tone(100, 1, 0.5)[None])
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), JointWriter([path], 8000, 1) as file:
        file.write(np.zeros((1, 1, 500), np.float32))
        assert len(list(path.parent.iterdir())) == 2
        raise KeyboardInterrupt
    with JointWriter([path], 8000, 1) as file, pytest.raises(DataError, match="no samples"):
        file.finish()
    with JointWriter([path], 8000, 1) as file, pytest.raises(AudioError, match="NaN"):
        file.write(np.full((1, 1, 5), np.nan, np.float32))
    assert [p.name for p in path.parent.iterdir()] == ["x.wav"]
    assert path.read_bytes() == before


def test_temporary_files_lie_where_they_are_wanted(tmp_path):
    work = tmp_path / "work"
    with JointWriter([tmp_path / "a.wav", tmp_path / "b.wav"], 8000, 1, work=work) as file:
        file.write(np.zeros((2, 1, 500), np.float32))
        assert [p.name for p in tmp_path.iterdir()] == ["work"]
        assert len(list(work.iterdir())) == 2
        file.finish()
    assert not list(work.iterdir())


FULL = """
import resource, signal, sys
import numpy as np
from ossicle.errors import DataError
from ossicle.writer import JointWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit, ending, n = int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
x = np.random.default_rng(0).uniform(-0.9, 0.9, (1, 1, n)).astype("f4")
try:
    with JointWriter([sys.argv[1] + "/x." + ending], 8000, 1, sys.argv[5]) as file:
        file.write(x)
        if sys.argv[6] == "finish":
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit // 4, limit))
        file.finish()
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("when", ["write", "finish"])
@pytest.mark.parametrize(("ending", "subtype"), [("wav", "PCM_24"), ("flac", "PCM_24")])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, when, ending, subtype):
    """A limit on a file's size is what a full disk is to who writes."""
    limit = 300_000 if when == "write" else 600_000
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(limit), ending, "100000", subtype, when],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"{tmp_path}/x.{ending}: cannot be written (")
    assert done.stdout.count("\n") == 1
    assert not done.stderr
    assert not list(tmp_path.iterdir())
