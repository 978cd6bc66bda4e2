"""Reading and writing audio: every format, every kind of broken file, blocks against whole."""

from __future__ import annotations

import builtins
import math
import pickle
import shutil
import struct
import tracemalloc
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ossicle import audio, decode
from ossicle.audio import Audio
from ossicle.errors import AudioError, OssicleError

RATE = 44100
# suffix: libsndfile's container, coding, rate, how far decoding may be from the original
FORMATS = {
    ".wav": ("WAV", "PCM_16", RATE, 2e-4),
    ".WAV": ("WAV", "FLOAT", RATE, 0.0),
    ".flac": ("FLAC", "PCM_24", RATE, 2e-6),
    ".aiff": ("AIFF", "PCM_16", RATE, 2e-4),
    ".au": ("AU", "PCM_16", RATE, 2e-4),
    ".caf": ("CAF", "PCM_16", RATE, 2e-4),
    ".w64": ("W64", "PCM_16", RATE, 2e-4),
    ".rf64": ("RF64", "PCM_16", RATE, 2e-4),
    ".Ogg": ("OGG", "VORBIS", RATE, 0.05),
    ".opus": ("OGG", "OPUS", 48000, 0.05),
    ".mp3": ("MP3", "MPEG_LAYER_III", RATE, 0.05),
}


def tones(rate: int = RATE, duration_s: float = 1.5, channels: int = 2) -> np.ndarray:
    """(C, N): a swept tone a channel, each of its own loudness."""
    t = np.arange(round(rate * duration_s)) / rate
    sweeps = [
        (0.5 - 0.2 * c) * np.sin(2 * np.pi * (300 + 400 * c) * t * (1 + t)) for c in range(channels)
    ]
    return np.asarray(sweeps, dtype=np.float32)


def noise(seed: int, shape: int | tuple[int, ...]) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * 0.1).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int, kind: str, subtype: str) -> Path:
    # libsndfile's Vorbis encoder crashes on long blocks.
    with soundfile.SoundFile(path, "w", rate, len(samples), subtype, format=kind) as file:
        for at in range(0, samples.shape[1], 8192):
            file.write(samples[:, at : at + 8192].T)
    return path


def joined(blocks: list[Audio]) -> np.ndarray:
    return np.concatenate([block.samples for block in blocks], axis=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("formats")
    return {
        suffix: write(folder / f"{kind}{suffix}", tones(rate), rate, kind, subtype)
        for suffix, (kind, subtype, rate, _) in FORMATS.items()
    }


# Formats


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_its_samples(files: dict[str, Path], suffix: str) -> None:
    kind, subtype, rate, tolerance = FORMATS[suffix]
    loaded = audio.load(files[suffix], mono=False)
    assert loaded.sample_rate == rate
    assert loaded.samples.dtype == np.float32
    assert loaded.samples.flags.c_contiguous
    assert loaded.samples.shape == tones(rate).shape
    # The codecs' edges ring; the middle is theirs to keep.
    middle = slice(rate // 4, -rate // 4)
    assert np.abs(loaded.samples - tones(rate))[:, middle].max() <= tolerance
    found = audio.info(files[suffix])
    assert found == (1.5, rate, 2, f"{kind}/{subtype}")
    assert audio.is_audio(files[suffix])


@pytest.mark.parametrize(
    ("subtype", "step"), [("PCM_U8", 2**-7), ("PCM_24", 2**-23), ("PCM_32", 2**-24)]
)
def test_integers_fill_minus_one_to_one(tmp_path: Path, subtype: str, step: float) -> None:
    ramp = np.linspace(-1, 1, 500, dtype=np.float32)[np.newaxis]
    path = write(tmp_path / "ramp.wav", ramp, 8000, "WAV", subtype)
    assert np.abs(audio.load(path).samples - ramp).max() <= 1.001 * step


def test_float_files_keep_values_beyond_one(tmp_path: Path) -> None:
    loud = 3 * tones(channels=1)
    path = write(tmp_path / "loud.wav", loud, RATE, "WAV", "FLOAT")
    np.testing.assert_array_equal(audio.load(path).samples, loud)


def test_content_counts_not_the_name(tmp_path: Path, files: dict[str, Path]) -> None:
    path = tmp_path / "a:b é.mp3"
    shutil.copy(files[".flac"], path)
    assert audio.info(path).format == "FLAC/PCM_24"


def test_suffixes() -> None:
    assert audio.is_audio("x/Y.FlAc")
    assert not audio.is_audio("flac")
    assert not audio.is_audio("a.txt")
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in audio.EXTENSIONS)


# Channels and rates


def test_mono_is_the_mean_before_resampling(tmp_path: Path) -> None:
    samples = noise(0, (3, 20000))
    path = write(tmp_path / "three.wav", samples, RATE, "WAV", "FLOAT")
    mean = samples.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(audio.load(path).samples[0], mean, atol=1e-7)
    expected = librosa.resample(
        mean.astype(np.float32), orig_sr=RATE, target_sr=16000, res_type="soxr_hq"
    )
    got = audio.load(path, sample_rate=16000)
    assert got.sample_rate == 16000
    assert got.samples.shape == (1, round(20000 * 16000 / RATE))
    # librosa rounds the length up.
    np.testing.assert_allclose(got.samples[0], expected[: got.samples.shape[1]], atol=1e-6)


def test_stereo_of_one_sound_is_as_loud_as_mono(tmp_path: Path) -> None:
    one = noise(1, (1, 5000))
    mono = write(tmp_path / "mono.wav", one, 8000, "WAV", "FLOAT")
    both = write(tmp_path / "both.wav", np.repeat(one, 2, axis=0), 8000, "WAV", "FLOAT")
    np.testing.assert_array_equal(audio.load(mono).samples, audio.load(both).samples)


@pytest.mark.parametrize("from_rate", [8000, 16000, 22050, 44100, 48000])
def test_a_tone_keeps_its_frequency_and_height(tmp_path: Path, from_rate: int) -> None:
    t = np.arange(from_rate) / from_rate
    tone = (0.5 * np.sin(2 * np.pi * 1000 * t)).astype(np.float32)[np.newaxis]
    path = write(tmp_path / "tone.wav", tone, from_rate, "WAV", "FLOAT")
    got = audio.load(path, sample_rate=32000).samples[0]
    ideal = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(32000) / 32000)
    assert got.shape == (32000,)
    assert np.abs(got - ideal)[1000:-1000].max() < 1e-4


@given(
    n=st.integers(1, 30000),
    from_rate=st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000, 96000]),
    to_rate=st.sampled_from([8000, 16000, 22050, 32000, 44100, 48000]),
)
@settings(max_examples=60, deadline=None)
def test_resampled_length_is_the_rounded_ratio(n: int, from_rate: int, to_rate: int) -> None:
    got = audio.resample(np.zeros((2, n), np.float32), from_rate, to_rate)
    assert got.shape[0] == 2
    # In integers: the length is at most half a sample off the exact ratio.
    assert abs(2 * got.shape[1] * from_rate - 2 * n * to_rate) <= from_rate
    assert got.dtype == np.float32


def test_channels_are_resampled_apart() -> None:
    samples = noise(2, (2, 9000))
    both = audio.resample(samples, 44100, 16000)
    for channel in range(2):
        alone = audio.resample(samples[channel], 44100, 16000)
        np.testing.assert_allclose(both[channel], alone, atol=1e-7)


@pytest.mark.parametrize("rate", [0, -1])
def test_rates_must_be_positive(files: dict[str, Path], rate: int) -> None:
    with pytest.raises(OssicleError, match="sample rate"):
        audio.load(files[".wav"], sample_rate=rate)
    with pytest.raises(OssicleError, match="sample rate"):
        audio.resample(np.zeros(5), 8000, rate)
    with pytest.raises(OssicleError, match="shape"):
        audio.resample(np.zeros((1, 2, 3)), 8000, 16000)


# Blocks and segments


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("mono", [True, False])
def test_blocks_joined_are_the_whole(
    files: dict[str, Path], suffix: str, mono: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = audio.load(files[suffix], sample_rate=16000, mono=mono)
    for size in (1000, 20011):  # decoder blocks that divide nothing evenly
        monkeypatch.setattr(audio, "_BLOCK_FRAMES", size)
        blocks = list(audio.stream(files[suffix], sample_rate=16000, mono=mono, block_s=0.4))
        assert {block.sample_rate for block in blocks} == {16000}
        assert [block.samples.shape[1] for block in blocks] == [6400, 6400, 6400, 4800]
        assert joined(blocks).shape == whole.samples.shape
        assert np.abs(joined(blocks) - whole.samples).max() < 1e-6


@given(
    n=st.integers(1, 20000),
    size=st.integers(1, 7000),
    block_s=st.floats(0.001, 2.0),
    rates=st.sampled_from([(44100, 16000), (8000, 8000), (16000, 44100), (48000, 44100)]),
)
@example(n=240, size=7, block_s=1.0, rates=(48000, 44100))  # 220.5 samples
@settings(max_examples=60, deadline=None)
def test_blocks_of_any_size_are_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    n: int,
    size: int,
    block_s: float,
    rates: tuple[int, int],
) -> None:
    samples = noise(n, (1, n))
    path = write(tmp_path_factory.getbasetemp() / "any.wav", samples, rates[0], "WAV", "FLOAT")
    expected = audio.resample(samples, *rates)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audio, "_BLOCK_FRAMES", size)
        if expected.size == 0:
            with pytest.raises(AudioError, match="too short"):
                list(audio.stream(path, sample_rate=rates[1]))
            return
        blocks = list(audio.stream(path, sample_rate=rates[1], block_s=block_s))
    lengths = [block.samples.shape[1] for block in blocks]
    assert set(lengths[:-1]) <= {round(block_s * rates[1])}
    assert joined(blocks).shape == expected.shape
    assert np.abs(joined(blocks) - expected).max() < 1e-6


def test_a_block_outlives_the_next(files: dict[str, Path]) -> None:
    blocks = audio.stream(files[".wav"], block_s=0.1)
    first = next(blocks).samples
    kept = first.copy()
    list(blocks)
    np.testing.assert_array_equal(first, kept)


def test_memory_is_flat_with_length(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 16000, 2, "PCM_16") as file:
        for _ in range(20):
            file.write(noise(0, (16000 * 30, 2)))  # ten minutes
    peaks = []
    for minutes in (2, 10):
        tracemalloc.start()
        seconds = 0.0
        for block in audio.stream(path, sample_rate=8000, block_s=5):
            seconds += block.samples.shape[1] / 8000
            if seconds >= 60 * minutes:
                break
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert seconds == 60 * minutes
    assert peaks[1] < 8e6  # the whole as float32: 77 MB
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_segment_is_that_part_of_the_whole(files: dict[str, Path], suffix: str) -> None:
    whole = audio.load(files[suffix], mono=False)
    rate = whole.sample_rate
    for onset, offset in [(0.0, 0.3), (0.123, 0.456), (0.777, 1.5), (1.2, None), (None, 0.2)]:
        got = audio.load(files[suffix], mono=False, onset=onset, offset=offset).samples
        begin = round((onset or 0) * rate)
        end = whole.samples.shape[1] if offset is None else round(offset * rate)
        assert got.shape == (2, end - begin)
        # After a seek, Opus' and Vorbis' overlap starts afresh: equal up to their rounding.
        np.testing.assert_allclose(got, whole.samples[:, begin:end], atol=1e-3)


def test_segment_bounds(files: dict[str, Path]) -> None:
    path = files[".wav"]
    whole = audio.load(path).samples
    np.testing.assert_array_equal(audio.load(path, onset=math.nan, offset=math.nan).samples, whole)
    np.testing.assert_array_equal(audio.load(path, offset=99.0).samples, whole)
    for onset, offset in [(-0.1, None), (0.5, 0.5), (0.6, 0.5), (math.inf, None), (0, -1)]:
        with pytest.raises(AudioError, match="segment"):
            audio.load(path, onset=onset, offset=offset)
    for suffix in (".wav", ".mp3", ".flac", ".Ogg"):
        with pytest.raises(AudioError, match=r"at or after its onset of 1\.6 s"):
            audio.load(files[suffix], onset=1.6)


def test_block_length_must_be_positive(files: dict[str, Path]) -> None:
    for block_s in (0, -1, math.nan, math.inf):
        with pytest.raises(OssicleError, match="block_s"):
            next(audio.stream(files[".wav"], block_s=block_s))


# Broken files


def broken(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def fails(path: Path, reason: str, **options: object) -> AudioError:
    """Every way of reading names the file and the reason in one line."""
    with pytest.raises(AudioError, match=reason) as caught:
        audio.load(path, **options)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def test_what_is_not_audio(tmp_path: Path) -> None:
    for call in (audio.load, audio.info, lambda path: next(audio.stream(path))):
        with pytest.raises(AudioError, match="does not exist"):
            call(tmp_path / "absent.wav")
    fails(tmp_path, "is a folder")
    fails(broken(tmp_path, "empty.wav", b""), "is empty")
    text = b"path,label\nhello world,this is text\n" * 200
    for suffix in (".wav", ".mp3", ".au", ".vox", ".raw", ".ogg", ".flac", ".m4a", ".txt"):
        fails(broken(tmp_path, f"text{suffix}", text), "not an audio file")
    fails(broken(tmp_path, "random.wav", np.random.default_rng(0).bytes(9999)), "not an audio file")
    error = fails(broken(tmp_path, "short.wav", b"RIFF"), "not an audio file")
    assert isinstance(error, OssicleError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_names_that_no_file_can_have() -> None:
    with pytest.raises(AudioError, match="cannot be opened"):
        audio.load("nul\0.wav")


@pytest.mark.parametrize(
    "suffix", [".wav", ".WAV", ".flac", ".aiff", ".au", ".w64", ".rf64", ".Ogg", ".opus"]
)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_truncated_files_are_errors(
    tmp_path: Path, files: dict[str, Path], suffix: str, share: float
) -> None:
    content = files[suffix].read_bytes()
    path = broken(tmp_path, f"cut{suffix}", content[: int(share * len(content))])
    fails(path, "truncated")
    with pytest.raises(AudioError, match="truncated"):
        list(audio.stream(path, sample_rate=8000))


def test_ogg_without_its_end_flag_but_whole_pages(tmp_path: Path, files: dict[str, Path]) -> None:
    content = files[".Ogg"].read_bytes()
    last = content.rindex(b"OggS")
    path = broken(tmp_path, "ripped.ogg", content[:last])
    assert 0.5 < audio.info(path).duration_s < 1.5
    for at in (last + 4, last + 26, last + 27, len(content) - 1):
        fails(broken(tmp_path, "cut.ogg", content[:at]), "Ogg page is unfinished")
    tagged = broken(tmp_path, "tagged.ogg", content + b"TAG" + bytes(125))
    assert audio.load(tagged).samples.shape == (1, 66150)


def test_flac_cut_between_two_frames(tmp_path: Path, files: dict[str, Path]) -> None:
    content = files[".flac"].read_bytes()
    starts = [i for i in range(4096, len(content)) if content[i : i + 2] == b"\xff\xf8"]
    for at in starts[1:6]:
        fails(broken(tmp_path, "cut.flac", content[:at]), "truncated or damaged")


def test_damage_in_the_middle_is_an_error(tmp_path: Path) -> None:
    for suffix in (".flac", ".Ogg", ".opus"):
        kind, subtype, rate, _ = FORMATS[suffix]
        whole = write(tmp_path / f"whole{suffix}", tones(rate, 5.0), rate, kind, subtype)
        content = bytearray(whole.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 200] = bytes(200)
        fails(broken(tmp_path, f"hole{suffix}", bytes(content)), "damaged")


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_wav_of_open_length_is_read_to_its_end(
    tmp_path: Path, files: dict[str, Path], size: int
) -> None:
    content = bytearray(files[".wav"].read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    path = broken(tmp_path, "piped.wav", bytes(content))
    np.testing.assert_array_equal(audio.load(path).samples, audio.load(files[".wav"]).samples)


def test_flac_of_open_length_is_read_to_its_end(tmp_path: Path, files: dict[str, Path]) -> None:
    content = bytearray(files[".flac"].read_bytes())
    content[21] &= 0xF0  # STREAMINFO's 36 bits of total samples
    content[22:26] = bytes(4)
    path = broken(tmp_path, "piped.flac", bytes(content))
    whole = audio.load(files[".flac"]).samples
    np.testing.assert_array_equal(audio.load(path).samples, whole)
    assert audio.info(path).duration_s == 1.5
    segment = audio.load(path, onset=0.5, offset=1.0).samples
    np.testing.assert_array_equal(segment, whole[:, RATE // 2 : RATE])
    with pytest.raises(AudioError, match="onset"):
        audio.load(path, onset=2.0)


def test_wav_whose_size_counts_the_pad_byte(tmp_path: Path) -> None:
    path = write(tmp_path / "odd.wav", noise(0, (1, 999)), 8000, "WAV", "PCM_U8")
    content = bytearray(path.read_bytes())[: 44 + 999]
    content[40:44] = struct.pack("<I", 1000)
    assert audio.load(broken(tmp_path, "slip.wav", bytes(content))).samples.shape == (1, 999)


@pytest.mark.parametrize("rate", [1, 2**31 - 1])
def test_rates_that_no_sound_has(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "odd.wav", tones(), rate, "WAV", "PCM_16")
    fails(path, f"has a rate of {rate} Hz", sample_rate=16000)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("suffix", [".wav", ".aiff", ".au", ".w64", ".rf64", ".Ogg", ".mp3"])
def test_damaged_headers_raise_no_other_error(
    tmp_path: Path, files: dict[str, Path], suffix: str
) -> None:
    content = files[suffix].read_bytes()
    random = np.random.default_rng(0)
    outcomes = set()
    for _ in range(60):
        changed = bytearray(content[: 20000 + len(content) // 8])
        for at in random.integers(0, 120, size=4):
            changed[at] = random.integers(256)
        try:
            audio.info(broken(tmp_path, f"a{suffix}", bytes(changed)))
            outcomes.add("read")
        except AudioError:
            outcomes.add("refused")
    assert "refused" in outcomes or suffix == ".mp3"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite(tmp_path: Path, value: float) -> None:
    samples = tones()
    samples[1, 30000] = value
    path = write(tmp_path / "nan.wav", samples, RATE, "WAV", "FLOAT")
    fails(path, "NaN or infinite")
    fails(path, "NaN or infinite", mono=False)
    with pytest.raises(AudioError, match="NaN or infinite"):
        list(audio.stream(path, sample_rate=16000))


def test_no_samples(tmp_path: Path) -> None:
    for suffix in (".wav", ".aiff", ".Ogg"):
        kind, subtype, rate, _ = FORMATS[suffix]
        path = write(tmp_path / f"zero{suffix}", np.zeros((1, 0), np.float32), rate, kind, subtype)
        fails(path, "holds no samples")
        with pytest.raises(AudioError, match="holds no samples"):
            list(audio.stream(path))


def test_too_short(tmp_path: Path, files: dict[str, Path]) -> None:
    fails(files[".wav"], r"lasts 1.5 s, less than the 1.6 s needed", min_duration_s=1.6)
    assert audio.load(files[".wav"], min_duration_s=1.5).samples.shape == (1, 66150)
    fails(files[".wav"], "lasts 0.5 s", onset=1.0, min_duration_s=0.6)
    one = write(tmp_path / "one.wav", np.ones((1, 1), np.float32), 48000, "WAV", "FLOAT")
    fails(one, "leave none at 8000 Hz", sample_rate=8000)


def test_silence_is_allowed_unless_asked(tmp_path: Path) -> None:
    still = np.zeros((2, 4000), np.float32)
    faint = 5e-8 * noise(0, (2, 4000)) / 0.5
    opposed = np.array([[1], [-1]], np.float32) * noise(1, (1, 4000))
    for i, samples in enumerate((still, still + 0.25, faint, opposed)):
        path = write(tmp_path / f"{i}.wav", samples, 8000, "WAV", "FLOAT")
        assert audio.load(path, sample_rate=16000).samples.shape == (1, 8000)
        fails(path, "is silent", allow_silent=False, sample_rate=16000)
    assert audio.load(path, mono=False, allow_silent=False).samples.shape == (2, 4000)
    half = still.copy()
    half[1] = noise(2, 4000)
    path = write(tmp_path / "half.wav", half, 8000, "WAV", "FLOAT")
    assert audio.load(path, mono=False, allow_silent=False).samples.shape == (2, 4000)


# MP3, whose headers lie


def mp3(path: Path, samples: np.ndarray) -> bytes:
    return write(path, samples, RATE, "MP3", "MPEG_LAYER_III").read_bytes()


def quiet_then_loud() -> np.ndarray:
    samples = noise(3, (1, 4 * RATE)) * 3
    samples[:, : 2 * RATE] *= 1e-3
    return samples.clip(-1, 1)


def without_xing(content: bytes) -> bytes:
    return content[content.index(content[:2], 4) :]


def test_mp3_header_that_promises_too_much(tmp_path: Path) -> None:
    content = bytearray(mp3(tmp_path / "true.mp3", tones(duration_s=4.0)))
    at = content.index(b"Xing") if b"Xing" in content[:200] else content.index(b"Info")
    content[at + 8 : at + 12] = struct.pack(">I", 10**9)
    path = broken(tmp_path, "lie.mp3", bytes(content))
    length = audio.load(path).samples.shape[1]
    assert 4 * RATE <= length <= 4 * RATE + 2304  # the encoder's padding is two frames at most
    assert audio.info(path).duration_s == length / RATE


def test_mp3_that_goes_on_past_its_header(tmp_path: Path) -> None:
    first = mp3(tmp_path / "a.mp3", quiet_then_loud())
    second = mp3(tmp_path / "b.mp3", tones(duration_s=3.0, channels=1))
    alone = audio.load(tmp_path / "a.mp3").samples
    path = broken(tmp_path, "joined.mp3", first + second)
    whole = audio.load(path).samples
    # libsndfile by itself stops after the first; seams and padding add a few frames.
    assert soundfile.info(path).frames == 4 * RATE
    assert 7 * RATE <= whole.shape[1] <= 7 * RATE + 5 * 1152
    np.testing.assert_allclose(whole[:, : 4 * RATE], alone, atol=1e-4)
    assert audio.info(path).duration_s == whole.shape[1] / RATE
    blocks = list(audio.stream(path, block_s=0.5))
    np.testing.assert_array_equal(joined(blocks), whole)
    segment = audio.load(path, onset=5.0, offset=6.0).samples
    np.testing.assert_allclose(segment, whole[:, 5 * RATE : 6 * RATE], atol=1e-5)
    across = audio.load(path, onset=3.5, offset=4.5).samples
    np.testing.assert_allclose(across, whole[:, 7 * RATE // 2 : 9 * RATE // 2], atol=1e-4)
    with pytest.raises(AudioError, match="onset"):
        audio.load(path, onset=9.0)


@pytest.mark.parametrize("turned", [False, True])
def test_mp3_without_a_header_is_read_to_its_end(tmp_path: Path, turned: bool) -> None:
    samples = quiet_then_loud()[:, :: -1 if turned else 1]
    with soundfile.SoundFile(
        tmp_path / "v.mp3", "w", RATE, 1, bitrate_mode="VARIABLE", compression_level=0.5
    ) as file:
        file.write(samples.T)
    bare = broken(tmp_path, "bare.mp3", without_xing((tmp_path / "v.mp3").read_bytes()))
    length = audio.load(bare).samples.shape[1]
    assert 4 * RATE <= length <= 4 * RATE + 2 * 1152
    assert audio.info(bare).duration_s == length / RATE


def test_mp3_tags_and_rubbish_are_not_sound(tmp_path: Path) -> None:
    content = mp3(tmp_path / "plain.mp3", tones(duration_s=2.0))
    whole = audio.load(tmp_path / "plain.mp3").samples
    front = b"ID3\x04\0\0\0\0\x4e\x10" + bytes(0x2710)
    back = b"APETAGEX" + np.random.default_rng(0).bytes(30000) + b"TAG" + bytes(125)
    for name, changed in {
        "front": front + content,
        "back": content + back,
        "both": front + content + back,
        "rubbish": bytes(500) + content,
    }.items():
        path = broken(tmp_path, f"{name}.mp3", changed)
        np.testing.assert_array_equal(audio.load(path).samples, whole)


def test_truncated_mp3_is_what_is_decoded(tmp_path: Path) -> None:
    content = mp3(tmp_path / "a.mp3", tones(duration_s=4.0))
    path = broken(tmp_path, "cut.mp3", content[: len(content) // 2])
    length = audio.load(path).samples.shape[1]
    assert 1.5 * RATE < length < 3 * RATE
    assert audio.info(path).duration_s == length / RATE


# FFmpeg


def write_av(path: Path, samples: np.ndarray, rate: int, codec: str, layout: str) -> Path:
    av = pytest.importorskip("av", reason="needs PyAV (the extra ossicle[av])")
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = layout
        stream.bit_rate = 128000
        kind = {"libopus": "flt", "alac": "s16p"}.get(codec, "fltp")
        stream.format = kind
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), format="fltp", layout=layout
        )
        frame.sample_rate = rate
        shaped = av.AudioResampler(kind, layout, rate, frame_size=1024)
        for piece in [*shaped.resample(frame), *shaped.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec", "rate", "tolerance"),
    [("a.M4A", "alac", RATE, 1e-4), ("a.mka", "flac", RATE, 1e-4), ("a.webm", "libopus", 48000, 0)],
)
def test_ffmpeg_formats_give_their_samples(
    tmp_path: Path, name: str, codec: str, rate: int, tolerance: float
) -> None:
    if codec == "flac":
        pytest.importorskip("av")
        path = _remux_flac(tmp_path, rate)
    else:
        path = write_av(tmp_path / name, tones(rate), rate, codec, "stereo")
    got = audio.load(path, mono=False)
    assert got.sample_rate == rate
    assert got.samples.shape == tones(rate).shape
    middle = slice(rate // 4, -rate // 4)
    assert np.abs(got.samples - tones(rate))[:, middle].max() <= (tolerance or 0.05)
    assert audio.info(path)[:3] == (1.5, rate, 2)
    segment = audio.load(path, mono=False, onset=0.3, offset=1.1).samples
    expected = got.samples[:, round(0.3 * rate) : round(1.1 * rate)]
    np.testing.assert_array_equal(segment, expected)
    whole = audio.load(path, sample_rate=16000).samples
    blocks = list(audio.stream(path, sample_rate=16000, block_s=0.1))
    np.testing.assert_allclose(joined(blocks), whole, atol=1e-6)


def _remux_flac(folder: Path, rate: int) -> Path:
    import av

    source = write(folder / "a.flac", tones(rate), rate, "FLAC", "PCM_16")
    target = folder / "a.mka"
    with av.open(str(source)) as read, av.open(str(target), "w") as made:
        stream = made.add_stream_from_template(read.streams.audio[0])
        for packet in read.demux(read.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    return target


@pytest.mark.parametrize(
    ("name", "codec"), [("a.aac", "aac"), ("a.mp4", "aac"), ("a.wma", "wmav2")]
)
def test_lossy_ffmpeg_formats_sound_the_same(tmp_path: Path, name: str, codec: str) -> None:
    path = write_av(tmp_path / name, tones(channels=1), RATE, codec, "mono")
    got = audio.load(path).samples[0]
    # Encoders shift by their delay, which the file may not tell; the best lag recovers the tone.
    spectrum = np.fft.rfft(got, 2**18) * np.conj(np.fft.rfft(tones(channels=1)[0], 2**18))
    lag = (int(np.argmax(np.fft.irfft(spectrum))) + 4096) % 2**18 - 4096
    assert lag < 4096
    part = got[lag + 8000 : lag + 50000]
    assert np.corrcoef(part, tones(channels=1)[0, 8000:50000])[0, 1] > 0.99


def test_truncated_m4a(tmp_path: Path) -> None:
    path = write_av(tmp_path / "a.m4a", tones(duration_s=4.0), RATE, "alac", "stereo")
    content = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        fails(
            broken(tmp_path, "cut.m4a", content[: int(share * len(content))]), "damaged|truncated"
        )


def test_without_pyav_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without_av(name: str, *rest: object, **options: object) -> object:
        if name == "av":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without_av)
    path = broken(tmp_path, "phone.m4a", b"\0\0\0\x1cftypM4A \0\0\x02\0" + bytes(100))
    fails(path, r"pip install 'ossicle\[av\]'")


def test_a_decoder_closes_its_file(files: dict[str, Path]) -> None:
    with decode.open_decoder(files[".wav"]) as decoder:
        handle = decoder._handle
    assert handle.closed


# Saving


@pytest.mark.parametrize("name", ["a.wav", "a.FLAC"])
def test_saved_is_loaded(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    audio.save(path, Audio(tones(), RATE))
    read, rate = soundfile.read(path, dtype="float32")
    assert rate == RATE
    assert np.abs(read.T - tones()).max() <= 2**-15
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_saved_float_is_exact_beyond_one(tmp_path: Path) -> None:
    samples = 2 * tones()
    audio.save(tmp_path / "a.wav", Audio(samples, RATE), subtype="float")
    np.testing.assert_array_equal(audio.load(tmp_path / "a.wav", mono=False).samples, samples)


def test_nothing_is_clipped_or_half_written(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    audio.save(path, Audio(tones(), RATE))
    before = path.read_bytes()
    bad = tones()
    bad[0, 5] = math.nan
    for samples, reason in [
        (1.01 * tones() / 0.5, "reach 1.0"),
        (bad, "NaN"),
        (np.zeros((1, 0), np.float32), "empty"),
        (np.zeros((1, 1, 5), np.float32), "C, N"),
    ]:
        with pytest.raises(AudioError, match=reason):
            audio.save(path, Audio(samples, RATE))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.wav"]
    audio.save(path, Audio(tones() / 0.5, RATE))  # 1.0 itself is fine


def test_where_saving_cannot_work(tmp_path: Path) -> None:
    sound = Audio(tones(), RATE)
    with pytest.raises(AudioError, match="only"):
        audio.save(tmp_path / "a.mp3", sound)
    with pytest.raises(AudioError, match="subtype FLOAT; use one of"):
        audio.save(tmp_path / "a.flac", sound, subtype="FLOAT")
    with pytest.raises(AudioError, match="cannot be written"):
        audio.save(tmp_path / "absent" / "a.wav", sound)
    with pytest.raises(AudioError, match="cannot be written"):
        audio.save(tmp_path / "many.flac", Audio(np.zeros((9, 10), np.float32), RATE))
    assert list(tmp_path.iterdir()) == []


# Windows


@given(n=st.integers(0, 3000), window=st.integers(1, 400), hop=st.integers(1, 500))
def test_windows_cover_all_and_begin_inside(n: int, window: int, hop: int) -> None:
    onsets = audio.window_onsets(n, window, hop)
    assert onsets.dtype == np.int64
    assert list(onsets) == [i * hop for i in range(len(onsets))]
    assert all(onset < n for onset in onsets)
    # The last is needed: without it the end is bare.
    if len(onsets) > 1:
        assert onsets[-2] + window < n
    if n and hop <= window:
        covered = np.zeros(n, dtype=bool)
        for onset in onsets:
            covered[onset : onset + window] = True
        assert covered.all()
        assert len(onsets) == 1 + math.ceil(max(0, n - window) / hop)
    # With gaps no further window could begin inside.
    if n and onsets[-1] + window < n:
        assert onsets[-1] + hop >= n
    assert (len(onsets) == 0) == (n == 0)


def test_window_arguments() -> None:
    for arguments in [(10, 0, 1), (10, 1, 0), (-1, 1, 1)]:
        with pytest.raises(OssicleError, match="at least"):
            audio.window_onsets(*arguments)
    with pytest.raises(TypeError):
        audio.window_onsets(10, 2.5, 1)
    assert audio.window_onsets(10**12, 10**9, 10**9)[-1] == 999 * 10**9


def test_real_recordings_are_read_whole(shared_data: Path) -> None:
    clips = sorted((shared_data / "esc10").glob("*/*.ogg"))[::20]
    assert clips
    for clip in clips:
        expected, rate = soundfile.read(clip, dtype="float32", always_2d=True)
        got = audio.load(clip)
        assert got.sample_rate == rate
        np.testing.assert_allclose(got.samples[0], expected.mean(axis=1), atol=1e-7)
