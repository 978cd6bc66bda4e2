"""`separate.score`: rows, pairing, intervals, what is left out; the same however it is run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from scipy import stats
from torch import Tensor
from typer.testing import CliRunner

from ossicle import audio, bundle, cli_separate_score
from ossicle.audio import Audio
from ossicle.datasets.mixtures import Mixtures
from ossicle.errors import DataError, OssicleError
from ossicle.metrics import paired_difference
from ossicle.metrics.crossed_groups import crossed_interval
from ossicle.metrics.separation import separation_scores
from ossicle.separate.score import score
from ossicle.separate.score_table import SCORES, joined
from ossicle.separators.base import MaskSeparator, Separator
from ossicle.separators.ideal import IdealMask
from ossicle.separators.spectral_gate import SpectralGate

RATE = 8000
N = 4000


class Bands(MaskSeparator):
    """Below 1 kHz is one source, above it the other."""

    def __init__(
        self, sources: tuple[str, ...] = (), rate: int = RATE, turn: bool = False, n_fft: int = 256
    ) -> None:
        super().__init__(rate, list(sources), n_fft, n_fft // 4)
        self.turn = turn

    def masks(self, spectrum: Tensor, n_sources: int) -> Tensor:
        hertz = torch.arange(spectrum.shape[0]) * self.sample_rate / self.fourier.n_fft
        low = (hertz < 1000).float()[:, None].expand(spectrum.shape)
        masks = torch.stack([low, 1 - low])
        return masks.flip(0) if self.turn else masks


class Share(Separator):
    """Every source is a share of the recording."""

    def __init__(self, shares: tuple[float, ...] = (0.5, 0.5)) -> None:
        super().__init__(RATE, [])
        self.shares = shares

    def separate(self, samples: Tensor, n_sources: int | None = None) -> Tensor:
        return torch.tensor(self.shares)[:, None, None] * samples


class Moody(Bands):
    """Fails where the recording is loud."""

    def separate(self, samples: Tensor, n_sources: int | None = None) -> Tensor:
        if samples.abs().max() > 1.5:
            raise OssicleError("too loud for me")
        return super().separate(samples, n_sources)


def _tones(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    time = np.arange(N) / RATE
    return sum(
        rng.uniform(0.05, 0.2) * np.sin(2 * np.pi * (f * time + rng.random()))
        for f in rng.uniform(low, high, 3)
    )


def _mixtures(
    folder: Path, count: int = 8, roles: tuple[str, ...] = ("low", "high"), change=None
) -> Mixtures:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        hiss = 0.02 * rng.standard_normal((2, N))
        sources = np.stack([_tones(rng, 100, 900), _tones(rng, 1200, 3500)]) + hiss
        sources = sources.astype(np.float32)
        if change is not None:
            sources = change(i, sources)
        row = {"group": f"g{i // 2}", "split": "test" if i % 2 else "unseen"}
        for name, samples in (
            ("mixture", sources.sum(0)),
            *((f"source{j + 1}", s) for j, s in enumerate(sources)),
        ):
            path = folder / name / f"{i:03d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            audio.save(path, Audio(samples, RATE), "FLOAT")
            row[name] = str(path)
        row |= {f"name{j + 1}": (roles or ("a", "b"))[j] for j in range(2)}
        rows.append(row)
    return Mixtures(pd.DataFrame(rows), roles, 2, RATE, folder)


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory) -> Mixtures:
    return _mixtures(tmp_path_factory.mktemp("mixtures"))


@pytest.fixture(scope="module")
def scored(mixtures):
    return score({"bands": Bands(("low", "high")), "share": Share()}, mixtures)


def test_every_row_is_there_and_is_what_the_metrics_say(mixtures, scored):
    assert scored.systems == ("mixture", "ideal binary mask", "ideal ratio mask", "bands", "share")
    assert len(scored.per_source) == 5 * 8 * 2
    for i in range(8):
        loaded = mixtures.load(i)
        of = scored.per_source[scored.per_source["mixture"] == f"mixture/{i:03d}.wav"]
        given = torch.from_numpy(loaded.mixture), torch.from_numpy(loaded.sources)
        expected = {
            "mixture": np.stack([loaded.mixture] * 2),
            "ideal binary mask": IdealMask("binary", 256, 64).separate(*given).numpy(),
            "ideal ratio mask": IdealMask("ratio", 256, 64).separate(*given).numpy(),
            "bands": Bands().separate(given[0][None])[:, 0].numpy(),
        }
        for name, estimates in expected.items():
            wanted = separation_scores(
                estimates, loaded.mixture, loaded.sources, ordered=True, n_fft=256, hop_length=64
            )
            rows = of[of["system"] == name].sort_values("source")
            for column in SCORES:
                np.testing.assert_allclose(rows[column], wanted[column], rtol=0, atol=1e-6)


def test_bounds_are_bounds(scored):
    value = {row["system"]: row["si_sdr_improvement"]["value"] for row in scored.summary()}
    assert value["mixture"] == 0
    assert value["share"] == pytest.approx(0, abs=1e-4)  # a scaled mixture is the mixture
    assert 5 < value["bands"] < value["ideal binary mask"]


def test_means_and_intervals_are_those_of_the_bootstrap_over_groups(scored):
    table = scored.per_source[scored.per_source["system"] == "bands"]
    means = table.groupby("mixture")["sir"].mean()
    groups = table.groupby("mixture")["group"].first()
    row = scored.summary()[3]
    assert (row["system"], row["mixtures"], row["groups"]) == ("bands", 8, 4)
    assert row["sir"]["value"] == pytest.approx(means.mean(), abs=1e-12)
    low, high = crossed_interval(means, [(group,) for group in groups])
    assert (row["sir"]["low"], row["sir"]["high"]) == pytest.approx((low, high), abs=1e-12)
    # As wide as a t interval of the four groups' means, nearly: a witness that knows no bootstrap.
    of_groups = means.groupby(groups).mean()
    half = stats.t.ppf(0.975, 3) * of_groups.std(ddof=1) / 2
    assert (high - low) / 2 == pytest.approx(half, rel=0.35)
    first = scored.summary(1)[3]["sir"]["value"]
    second = scored.summary(2)[3]["sir"]["value"]
    assert row["sir"]["value"] == pytest.approx((first + second) / 2, abs=1e-9)
    with pytest.raises(DataError, match="no source 3"):
        scored.summary(3)


def test_differences_are_paired_by_mixture_and_resampled_by_group(scored):
    found = scored.difference("bands", "mixture")
    table = scored.per_mixture()
    one = table[table["system"] == "bands"]
    expected = paired_difference(
        one["si_sdr_improvement"], np.zeros(8), groups=one["group"].tolist()
    )
    assert found["mixtures"] == 8
    own = [(group,) for group in one["group"]]
    expected["low"], expected["high"] = crossed_interval(one["si_sdr_improvement"], own)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9)
    back = scored.difference("mixture", "bands")
    assert back["difference"] == pytest.approx(-found["difference"], abs=1e-12)
    with pytest.raises(DataError, match="no system 'band': there are mixture"):
        scored.difference("band", "mixture")
    with pytest.raises(DataError, match="no score 'pesq'"):
        scored.difference("bands", "mixture", "pesq")


def test_named_sources_are_paired_by_name(tmp_path):
    mixtures = _mixtures(tmp_path, 2)
    turned = score({"x": Bands(("high", "low"), turn=True)}, mixtures, ideal=())
    straight = score({"x": Bands(("low", "high"))}, mixtures, ideal=())
    np.testing.assert_array_equal(
        turned.per_source[list(SCORES)], straight.per_source[list(SCORES)]
    )
    ours = turned.per_source[turned.per_source["system"] == "x"]
    assert ours["estimate"].tolist() == [2, 1, 2, 1] and not turned.notes
    # Names that are there and wrong are not forgiven, as a permutation would be.
    wrong = score({"x": Bands(("high", "low"))}, mixtures, ideal=())
    assert wrong.summary()[1]["si_sdr"]["value"] < 0 < straight.summary()[1]["si_sdr"]["value"]


def test_other_names_go_in_order_and_that_is_told(tmp_path):
    mixtures = _mixtures(tmp_path, 2)
    found = score({"x": Bands(("voice", "rest"))}, mixtures, ideal=())
    assert found.summary()[1]["si_sdr"]["value"] > 10
    assert found.notes == [
        "x has other names for its sources than the mixtures: taken voice for low, rest for high"
    ]
    noisy = Mixtures(mixtures.table, ("noise", "bird"), 2, RATE, mixtures.root)
    found = score({"x": Bands(("foreground", "background"), turn=True)}, noisy, ideal=())
    assert found.summary()[1]["si_sdr"]["value"] > 10
    assert "taken background for noise, foreground for bird" in found.notes[0]


@pytest.mark.parametrize("case", ["mixtures", "system", "both"])
def test_sources_without_an_order_are_paired_by_the_best(tmp_path, case):
    nameless = () if case in ("mixtures", "both") else ("low", "high")
    system = () if case in ("system", "both") else ("low", "high")
    mixtures = _mixtures(tmp_path, 3, nameless)
    one = score({"x": Bands(system)}, mixtures, ideal=())
    other = score({"x": Bands(system, turn=True)}, mixtures, ideal=())
    np.testing.assert_array_equal(one.per_source[list(SCORES)], other.per_source[list(SCORES)])
    pairs = [t.per_source["estimate"][t.per_source["system"] == "x"].tolist() for t in (one, other)]
    assert pairs == [[1, 2] * 3, [2, 1] * 3]
    assert any("have no names" in note for note in one.notes) == (case == "mixtures")


def test_nothing_depends_on_workers_or_on_the_order_of_the_mixtures(mixtures, scored):
    systems = {"bands": Bands(("low", "high")), "share": Share()}
    shuffled = Mixtures(
        mixtures.table.sample(frac=1, random_state=1).reset_index(drop=True),
        *(mixtures.sources, 2, RATE, mixtures.root),
    )
    ticks = []
    again = score(systems, shuffled, workers=3, progress=ticks.append)
    pd.testing.assert_frame_equal(again.per_source, scored.per_source, check_exact=True)
    for one, other in zip(again.summary(), scored.summary(), strict=True):
        one.pop("times_real_time"), other.pop("times_real_time")
        assert one == other
    assert [(tick.done, tick.total) for tick in ticks] == [(i + 1, 8) for i in range(8)]
    assert ticks[-1].seconds_read == pytest.approx(8 * N / RATE)


def test_speed_is_told_for_systems_alone(scored):
    speeds = {row["system"]: row["times_real_time"] for row in scored.summary()}
    assert [name for name, speed in speeds.items() if speed is None] == list(scored.systems[:3])
    assert speeds["bands"] > 1 and speeds["share"] > 1


def test_a_system_of_another_rate_is_scored_at_the_mixtures_rate(mixtures):
    found = score({"x": Bands(("low", "high"), rate=16000, n_fft=512)}, mixtures, ideal=("binary",))
    value = {row["system"]: row["si_sdr"]["value"] for row in found.summary()}
    same = {r["system"]: r["si_sdr"]["value"] for r in score({"x": Bands()}, mixtures).summary()}
    assert found.notes == ["x works at 16000 Hz and is scored at the mixtures' 8000 Hz"]
    assert value["x"] == pytest.approx(same["x"], abs=1.0)
    # Frames of the ideal masks are as long in seconds: 512 at 16 kHz are 256 at 8.
    assert value["ideal binary mask"] == same["ideal binary mask"]


def test_ideal_masks_have_the_systems_frames(mixtures):
    found = score({"share": Share(), "x": Bands(n_fft=128)}, mixtures.part("test"), ideal=["phase"])
    loaded = mixtures.part("test").load(0)
    given = torch.from_numpy(loaded.mixture), torch.from_numpy(loaded.sources)
    wanted = separation_scores(
        IdealMask("phase", 128, 32).separate(*given), *loaded[:2], ordered=True
    )
    rows = found.per_source[found.per_source["system"] == "ideal phase-sensitive mask"]
    np.testing.assert_allclose(rows["si_sdr"][:2], wanted["si_sdr"], rtol=0, atol=1e-6)


def test_what_cannot_be_scored_is_left_out_and_named(tmp_path):
    def change(i: int, sources: np.ndarray) -> np.ndarray:
        if i == 1:
            sources[1] = 0
        return sources * (20 if i == 2 else 1)

    mixtures = _mixtures(tmp_path, 5, change=change)
    Path(mixtures.table["source2"][4]).unlink()
    found = score({"moody": Moody(("low", "high")), "bands": Bands(("low", "high"))}, mixtures)
    told = [(e["mixture"], e["system"], e["source"]) for e in found.left_out]
    assert told == [
        ("mixture/001.wav", "", 2),
        ("mixture/002.wav", "moody", 0),
        ("mixture/004.wav", "", 0),
    ]
    reasons = [entry["reason"] for entry in found.left_out]
    assert reasons[:2] == ["this source is silent", "too loud for me"]
    assert re.search(r"source2/004\.wav: does not exist", reasons[2])
    counts = {row["system"]: row["mixtures"] for row in found.summary()}
    assert counts == {
        **dict.fromkeys(("mixture", "ideal binary mask", "ideal ratio mask", "bands"), 4),
        "moody": 3,
    }
    assert {row["system"]: row["mixtures"] for row in found.summary(2)}["bands"] == 3
    assert found.difference("bands", "moody")["mixtures"] == 3
    silent = found.per_source.query("mixture == 'mixture/001.wav' and source == 2")
    assert silent[list(SCORES)].isna().all().all()


def test_silent_and_perfect_estimates_are_counted(tmp_path):
    mixtures = _mixtures(tmp_path, 2, change=lambda i, s: s * np.float32([[1], [0.0]]))
    found = score({"gone": Share((0.0, 0.0)), "all": Share((1.0, 0.0))}, mixtures, ideal=())
    rows = {row["system"]: row for row in found.summary()}
    assert rows["gone"]["limited"] == rows["all"]["limited"] == 2
    assert rows["gone"]["si_sdr"]["value"] == -100 and rows["all"]["si_sdr"]["value"] == 100


def test_wrong_questions_are_refused_in_a_line(mixtures, tmp_path):
    nothing = Mixtures(mixtures.table.iloc[:0], ("low", "high"), 2, RATE, tmp_path)
    with pytest.raises(DataError, match="has no mixtures to score"):
        score(Share(), nothing)
    with pytest.raises(DataError, match="the mixtures have 2 sources, not 3"):
        score(Share(), mixtures, n_sources=3)
    with pytest.raises(
        DataError, match=r"x gives 3 sources \(a, b, c\), the mixtures in .* have 2"
    ):
        score({"x": Bands(("a", "b", "c"))}, mixtures)
    with pytest.raises(DataError, match="cannot be called 'mixture'"):
        score({"mixture": Share()}, mixtures)
    with pytest.raises(OssicleError, match="unknown ideal mask 'hard'"):
        score(Share(), mixtures, ideal=["hard"])
    with pytest.raises(OssicleError, match="workers"):
        score(Share(), mixtures, workers=0)
    gone = mixtures.table.assign(mixture=str(mixtures.root / "gone.wav"))
    with pytest.raises(DataError, match=r"none of the 8 mixtures .* gone\.wav"):
        score(Share(), Mixtures(gone, ("low", "high"), 2, RATE, mixtures.root))


def test_scores_are_written_whole(mixtures, scored, tmp_path):
    scored.save(tmp_path / "scores.csv")
    back = pd.read_csv(tmp_path / "scores.csv")
    pd.testing.assert_frame_equal(back, scored.per_source, check_exact=False, rtol=1e-12)
    scored.save(tmp_path / "scores.json")
    told = json.loads((tmp_path / "scores.json").read_text())
    assert len(told["per_source"]) == 80 and told["summary"][0]["system"] == "mixture"
    assert told["summary_per_source"]["2"]["name"] == "high"
    assert str(mixtures.root) not in (tmp_path / "scores.json").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"scores.csv", "scores.json"}
    with pytest.raises(DataError, match=r"written as \.csv or \.json"):
        scored.save(tmp_path / "scores.txt")
    with pytest.raises(DataError, match="cannot be written"):
        scored.save(tmp_path / "no" / "scores.csv")


def test_parts_are_joined(mixtures, scored):
    parts = [score({"share": Share()}, mixtures.part(p), ideal=()) for p in ("test", "unseen")]
    both = joined(parts)
    assert len(both.per_source) == 8 * 2 * 2
    table = both.per_mixture()
    names = [f"mixture/{i:03d}.wav" for i in range(8)]
    assert table["mixture"].tolist() == names * 2
    assert table["system"].tolist() == ["mixture"] * 8 + ["share"] * 8
    assert sorted(set(both.per_source["split"])) == ["test", "unseen"]


@pytest.fixture(scope="module")
def command():
    app = typer.Typer()
    app.command("score")(cli_separate_score.score)
    app.command("other")(lambda: None)

    def run(*arguments: object):
        return CliRunner().invoke(app, ["score", *map(str, arguments)])

    return run


@pytest.fixture(scope="module")
def at_hand(tmp_path_factory) -> tuple[Path, Path]:
    """A bundle and a folder of mixtures as others lay them out: (bundle, folder)."""
    root = tmp_path_factory.mktemp("hand")
    made = _mixtures(root / "made", 6)
    for i, row in made.table.iterrows():
        for kind, name in (("mixture", "mix"), ("source1", "s1"), ("source2", "s2")):
            path = root / "wsj" / ("test" if i % 2 else "train") / name / f"{i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(Path(row[kind]).read_bytes())
    bundle.save(SpectralGate(RATE, n_fft=256, hop_length=64), root / "gate")
    return root / "gate", root / "wsj"


def test_the_command_tells_writes_and_answers(command, at_hand, tmp_path):
    gate, folder = at_hand
    done = command(gate, folder, "-o", tmp_path / "scores.csv", "--per-source", "--workers", 2)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("test: 3 mixtures of 2 sources"))
    assert lines[at + 1].split("  ")[-1] == "x real time"
    told = [line.split("  ")[0] for line in lines[at + 2 : at + 6]]
    assert told == ["mixture", "ideal binary mask", "ideal ratio mask", "gate"]
    table = pd.read_csv(tmp_path / "scores.csv")
    assert len(table) == 4 * 3 * 2 and set(table["split"]) == {"test"}
    value = table[table["system"] == "gate"]["si_sdr"].mean()
    assert f"  {value:.1f}  " in lines[at + 5]
    again = command(gate, folder, "--part", "test,train", "--json", "-o", tmp_path / "scores.json")
    assert again.exit_code == 0, again.output
    answer = json.loads(again.stdout.splitlines()[-1])["parts"]
    assert list(answer) == ["test", "train"]
    assert answer["test"]["summary"][3]["si_sdr"]["value"] == pytest.approx(value, abs=1e-12)
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["parts"]["train"]["summary"] == [
        {**row, "times_real_time": other["times_real_time"]}
        for row, other in zip(
            answer["train"]["summary"], written["parts"]["train"]["summary"], strict=True
        )
    ]
    assert written["record"]["arguments"]["part"] == "test,train"


def test_the_command_without_systems_shows_the_bounds(command, at_hand):
    done = command(at_hand[1], "--ideal", "wiener", "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout.splitlines()[-1])["parts"]["test"]["summary"]
    assert [row["system"] for row in rows] == ["mixture", "ideal Wiener mask"]
    assert command(at_hand[1], "--ideal", "none").exit_code == 0


def test_two_bundles_of_one_name_and_their_difference(command, at_hand, tmp_path):
    gate, folder = at_hand
    other = tmp_path / "gate"
    bundle.save(SpectralGate(RATE, n_fft=256, hop_length=64, floor_db=-3.0), other)
    done = command(gate, other, folder)
    assert done.exit_code == 0, done.output
    found = [line for line in done.output.splitlines() if " above " in line]
    assert len(found) == 1 and str(gate) in found[0] and str(other) in found[0]


def test_the_command_refuses_in_a_line(command, at_hand, tmp_path):
    gate, folder = at_hand
    for arguments, text in (
        ((gate, folder, "-o", tmp_path / "scores.txt"), "written as .csv or .json"),
        ((gate, folder, "--part", "unseen"), "has no mixtures for unseen"),
        ((gate, folder, "--sources", 3), "have 2 sources, not 3"),
        ((gate, folder, "--ideal", "hard"), "unknown ideal mask 'hard'"),
        ((folder, folder), "config.json"),
    ):
        done = command(*arguments)
        assert isinstance(done.exception, OssicleError), done.output
        assert text in str(done.exception) and "\n" not in str(done.exception)
