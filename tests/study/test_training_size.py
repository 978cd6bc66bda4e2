"""The training-size study: training sets, scores against scikit-learn, known factors, resuming."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import typer
from scipy.io import wavfile
from sklearn.metrics import accuracy_score, average_precision_score, r2_score
from typer.testing import CliRunner

from ossicle.cli_study_training_size import study_training_size
from ossicle.datasets.clips import read_clips
from ossicle.errors import DataError, OssicleError
from ossicle.metrics.bootstrap import draw
from ossicle.study.nested import nested_parts, parse_sizes
from ossicle.study.size_scores import analyse, resampled_means
from ossicle.study.training_size import _packed, _unpacked, read_settings, training_size_study
from ossicle.study.training_size_page import factor_text, figures, inverse, needs_text

A, B = "probe backbone=mel", "probe backbone=mfcc"


def _grouped(n_groups: int = 40, seed: int = 0):
    """Labels of three classes and groups of one to five clips."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 6, n_groups)
    groups = np.repeat([f"g{i}" for i in range(n_groups)], sizes)
    return generator.integers(0, 3, len(groups)), groups, generator


class TestSizes:
    def test_shares_and_clips_a_class(self):
        assert [s.label for s in parse_sizes("100%, 12.5%")] == ["12.5 %", "100 %"]
        assert [s.label for s in parse_sizes(["20", "5"])] == ["5 a class", "20 a class"]

    @pytest.mark.parametrize(
        "text", ["10%", "10%,10%", "0%,10%", "10%,101%", "10%,5", "1,5", "a,b", "5.5,7", "%,10%"]
    )
    def test_what_is_no_size(self, text):
        with pytest.raises(DataError):
            parse_sizes(text)


class TestNested:
    SIZES = parse_sizes("10%,25%,60%,100%")

    @pytest.mark.parametrize("draw_by", ["groups", "clips"])
    def test_each_is_in_the_next_with_equal_shares_of_all_classes(self, draw_by):
        y, groups, generator = _grouped()
        train = np.sort(generator.permutation(len(y))[: len(y) * 3 // 4])
        parts = nested_parts(y, groups, train, self.SIZES, task="classes", seed=3, draw=draw_by)
        held = Counter(y[train].tolist())
        for size, part in zip(self.SIZES, parts, strict=True):
            for kind, n in held.items():
                assert np.sum(y[part] == kind) == max(2, round(size.share * n))
            assert (np.diff(part) > 0).all()
        for small, large in zip(parts, parts[1:], strict=False):
            assert set(small) < set(large)
        np.testing.assert_array_equal(parts[-1], train)

    def test_groups_come_in_whole_but_for_the_last_of_a_class(self):
        y, groups, _ = _grouped(60)
        train = np.arange(len(y))
        for part in nested_parts(y, groups, train, self.SIZES, task="classes", seed=1)[:-1]:
            for kind in range(3):
                own = groups[y == kind]
                taken = Counter(groups[part][y[part] == kind])
                cut = [g for g, n in taken.items() if n < np.sum(own == g)]
                assert len(cut) <= 1

    def test_few_groups_not_all(self):
        """Half of the clips of 20 speakers, each with every class, are those of about ten."""
        y = np.tile(np.arange(4), 60)
        speaker = np.repeat(np.arange(20).astype(str), 12)
        sizes = parse_sizes("50%,100%")
        every = np.arange(240)
        half = nested_parts(y, speaker, every, sizes, task="classes")[0]
        assert len(np.unique(speaker[half])) == 10
        clips = nested_parts(y, speaker, every, sizes, task="classes", draw="clips")[0]
        assert len(np.unique(speaker[clips])) == 20

    def test_sizes_asked_for_do_not_change_each_other_and_seeds_do(self):
        y, groups, _ = _grouped()
        train = np.arange(len(y))
        some = nested_parts(y, groups, train, parse_sizes("25%,100%"), task="classes", seed=[2, 1])
        more = nested_parts(y, groups, train, self.SIZES, task="classes", seed=[2, 1])
        np.testing.assert_array_equal(some[0], more[1])
        other = nested_parts(y, groups, train, self.SIZES, task="classes", seed=[3, 1])
        assert set(other[1]) != set(more[1])

    def test_clips_a_class(self):
        y = np.repeat([0, 1, 2], [30, 8, 4])
        train = np.arange(42)
        parts = nested_parts(y, train, train, parse_sizes("3,10"), task="classes")
        assert [np.bincount(y[part]).tolist() for part in parts] == [[3, 3, 3], [10, 8, 4]]
        with pytest.raises(DataError, match="largest class has 30"):
            nested_parts(y, train, train, parse_sizes("3,31"), task="classes")

    def test_several_labels_keep_their_shares(self):
        generator = np.random.default_rng(0)
        chances = np.array([0.6, 0.3, 0.1, 0.03])
        y = (generator.random((400, 4)) < chances).astype(int)
        sizes = parse_sizes("10%,50%,100%")
        parts = nested_parts(y, np.arange(400), np.arange(400), sizes, task="multilabel", seed=5)
        assert [len(part) for part in parts] == [40, 200, 400]
        assert set(parts[0]) < set(parts[1])
        for part in parts[:2]:
            expected = y.mean(axis=0) * len(part)
            # Drawn at random, the rarest of 40 clips would often be missing.
            assert (np.abs(y[part].sum(axis=0) - expected) <= 1.5).all()

    def test_numbers_keep_their_spread(self):
        y = np.random.default_rng(1).exponential(size=200)
        sizes = parse_sizes("10%,100%")
        few = nested_parts(y, np.arange(200), np.arange(200), sizes, task="regression")[0]
        edges = np.quantile(y, [0.2, 0.4, 0.6, 0.8])
        assert np.bincount(np.searchsorted(edges, y[few]), minlength=5).tolist() == [4] * 5

    def test_refusals(self):
        y = np.zeros((4, 2))
        with pytest.raises(DataError, match="give shares"):
            nested_parts(y, y[:, 0], np.arange(4), parse_sizes("2,3"), task="multilabel")
        with pytest.raises(DataError, match="unknown draw"):
            nested_parts(y[:, 0], y[:, 0], np.arange(4), self.SIZES, task="classes", draw="rows")


class TestAnalyse:
    @staticmethod
    def _case(task: str, seed: int = 0):
        generator = np.random.default_rng(seed)
        m, shape = 60, (2, 3, 2)
        groups = generator.integers(0, 12, m).astype(str)
        if task == "classes":
            y, outputs = generator.integers(0, 3, m), 3
            truth = np.eye(3)[y]
        elif task == "multilabel":
            y = (generator.random((m, 3)) < 0.4).astype(int)
            truth, outputs = y, 3
        else:
            y, outputs = generator.normal(size=m), 1
            truth = y[:, None]
        decisions = truth + 0.7 * generator.normal(size=(*shape, m, outputs))
        return y, decisions, groups

    @staticmethod
    def _score(task, y, own):
        if task == "classes":
            return accuracy_score(y, own.argmax(1))
        if task == "regression":
            return r2_score(y, own[:, 0])
        return average_precision_score(y, own, average="macro")

    @pytest.mark.parametrize("task", ["classes", "multilabel", "regression"])
    def test_scores_are_scikit_learns(self, task):
        y, decisions, groups = self._case(task)
        classes = () if task == "regression" else ("a", "b", "c")
        found = analyse(task, y, decisions, [10, 20, 40], groups, classes=classes, n_resamples=50)
        for i, row in enumerate(found["scores"]):
            own = decisions[i // 3, i % 3]
            expected = [self._score(task, y, own[r]) for r in range(2)]
            assert row["by_seed"] == pytest.approx(expected)
            assert row["score"] == pytest.approx(np.mean(expected))
            assert row["low"] <= row["score"] <= row["high"] <= 1
            assert row["n"] == [10, 20, 40][i % 3]

    @pytest.mark.parametrize("task", ["classes", "multilabel", "regression"])
    def test_groups_are_resampled_together_for_all_cells(self, task):
        y, decisions, groups = self._case(task, 1)
        found, n_groups = resampled_means(task, y, decisions, groups, 8, seed=4)
        names = list(dict.fromkeys(groups))
        assert n_groups == len(names)
        counts = np.concatenate(list(draw(n_groups, 8, 4, 8)))
        for row, own in zip(counts, found, strict=True):
            index = np.concatenate(
                [np.tile(np.flatnonzero(groups == g), n) for g, n in zip(names, row, strict=True)]
            )
            for s, j in np.ndindex(2, 3):
                both = [self._score(task, y[index], decisions[s, j, r][index]) for r in range(2)]
                assert own[s, j] == pytest.approx(np.mean(both))

    def test_without_seeds_and_groups_there_is_no_interval(self):
        y, decisions, _ = self._case("classes")
        found = analyse(
            "classes",
            y,
            decisions[:, :, :1],
            [10, 20, 40],
            np.full(60, "one"),
            classes=("a", "b", "c"),
        )
        assert all(row["low"] is None and row["high"] is None for row in found["scores"])
        told = found["needs"][0]
        assert told["low"] is None and told["share_high"] is None and told["k"] is not None

    def test_what_is_always_right_is_not_sure_to_be(self):
        """No failure in G groups: Clopper and Pearson's limit."""
        y = np.arange(20) % 2
        decisions = np.broadcast_to(np.eye(2)[y], (2, 2, 1, 20, 2)).copy()
        decisions[1, 0] = decisions[1, 0, :, :, ::-1]
        found = analyse(
            "classes", y, decisions, [5, 10], np.arange(20).astype(str), classes=("a", "b")
        )
        assert found["scores"][0]["low"] == pytest.approx(0.025 ** (1 / 20))
        assert found["scores"][0]["high"] == 1


@pytest.mark.parametrize("task", ["classes", "regression"])
def test_stored_decisions_are_read_back_to_four_digits(task):
    sure = np.random.default_rng(0).random((7, 1 if task == "regression" else 3))
    again = _unpacked(task, json.loads(json.dumps(_packed(task, sure))))
    assert again.shape == sure.shape
    np.testing.assert_allclose(again, sure, atol=5.0001e-5)
    large = _unpacked("regression", _packed("regression", 1e6 * sure[:, :1]))
    np.testing.assert_allclose(large, 1e6 * sure[:, :1], rtol=5e-6)


class TestNames:
    def test_given_told_apart_or_whole(self):
        long = "scratch backbone=choi_convnet frontend.scaling=linear"
        settings, names = read_settings([f"log: {A}", long])
        assert names == ["log", long] and settings[0].text() == A
        assert read_settings([A, f"{B} pooling=mean"])[1] == [
            "backbone=mel",
            "backbone=mfcc pooling=mean",
        ]
        assert read_settings([A, f"{A} pooling=mean"])[1] == [A, "pooling=mean"]
        assert read_settings([A, B])[1] == ["mel", "mfcc"]
        assert read_settings([A, B], ["one", "two"])[1] == ["one", "two"]

    @pytest.mark.parametrize(
        ("texts", "names"), [([A], None), ([A, A], None), ([A, B], ["x"]), ([A, B], ["x", "x"])]
    )
    def test_refusals(self, texts, names):
        with pytest.raises(DataError):
            read_settings(texts, names)

    def test_unknown_strategies_are_named(self):
        with pytest.raises(OssicleError, match="guess"):
            read_settings([A, "name: guess backbone=mel"])


class Fake:
    """A clip is right where its own number is below a curve; mfcc needs twice the data of mel."""

    def __init__(self, clips, k=2.0):
        self.clips, self.k = clips, k
        self.calls = []
        self.ease = np.random.default_rng(9).random(len(clips))

    def run(self, strategy, train, test, *, seed=0):
        self.calls.append((strategy.backbone, tuple(train), tuple(test), seed))
        n = len(train) / (self.k if strategy.backbone == "mfcc" else 1)
        right = self.ease[test] < 0.25 + 0.15 * np.log(n / 5)
        y = self.clips.y()[test]
        decisions = np.eye(2)[np.where(right, y, 1 - y)] * 0.6 + 0.2
        return SimpleNamespace(decisions=decisions, seconds=0.5, info={"penalty": 1.0})


@pytest.fixture
def many(tmp_path):
    """400 files that nobody decodes."""
    root = tmp_path / "many"
    rows = []
    for i in range(400):
        path = root / ("a", "b")[i % 2] / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([i % 256, i // 256]))
        rows.append((str(path), "ab"[i % 2], str(i // 2 % 4), f"s{i // 2}"))
    return read_clips(
        pd.DataFrame(rows, columns=["path", "label", "fold", "group"]), groups="group"
    )


def _study(clips, out, trials, **settings):
    options = {"sizes": "10%,30%,60%,100%", "seeds": 2, "n_resamples": 100, "trials": trials}
    return training_size_study(clips, [A, B], out, **{**options, **settings})


class TestStudy:
    def test_a_known_factor_is_found(self, many, tmp_path):
        trials = Fake(many)
        result = _study(many, tmp_path / "out", trials)
        told = result["needs"][0]
        assert told["k"] == pytest.approx(2, rel=0.15)
        assert told["low"] < 2 < told["high"] and told["low"] > 1
        assert (told["a"], told["b"]) == ("mel", "mfcc")
        assert result["text"][0].startswith("**mfcc needs ")
        assert [row["n"] for row in result["scores"]] == [30, 90, 180, 300] * 2
        assert result["metric"] == "accuracy" and result["protocol"]["n_clips"] == 400
        # Its score is the share of clips below the curve.
        first = result["scores"][0]
        assert first["score"] == pytest.approx(np.mean(trials.ease < 0.25 + 0.15 * np.log(30 / 5)))
        back = training_size_study(
            many, [B, A], tmp_path / "back", sizes="10%,30%,60%,100%", seeds=2, trials=trials
        )
        assert back["needs"][0]["k"] == pytest.approx(1 / told["k"])
        assert back["text"][0].startswith("**mfcc needs ")

    def test_both_settings_hear_the_same_and_tests_never_change(self, many, tmp_path):
        trials = Fake(many)
        _study(many, tmp_path / "out", trials)
        mel, mfcc = ([c[1:] for c in trials.calls if c[0] == b] for b in ("mel", "mfcc"))
        assert mel == mfcc and len(mel) == 2 * 4 * 4
        folds = many.table["fold"].to_numpy()
        groups = many.groups()
        for i, (train, test, seed) in enumerate(mel):
            fold = i // 4 % 4
            assert seed == i // 16
            assert test == tuple(np.flatnonzero(folds == str(fold)))
            assert not set(groups[list(train)]) & set(groups[list(test)])
            if i % 4:
                assert set(mel[i - 1][0]) < set(train)
        # Another seed, other training sets; the largest holds all there is.
        assert set(mel[0][0]) != set(mel[16][0]) and mel[3][0] == mel[19][0]

    def test_it_goes_on_and_grows(self, many, tmp_path):
        out = tmp_path / "out"

        def stop(done, total):
            if done == 5:
                raise KeyboardInterrupt

        trials = Fake(many)
        with pytest.raises(KeyboardInterrupt):
            _study(many, out, trials, progress=stop)
        assert not (out / "training_size.json").exists()
        seen = []
        whole = _study(many, out, trials, progress=lambda *step: seen.append(step))
        assert len(trials.calls) == 64 == seen[-1][1] and len(set(trials.calls)) == 64
        fresh = _study(many, tmp_path / "fresh", Fake(many))
        assert whole["scores"] == fresh["scores"] and whole["needs"] == fresh["needs"]
        grown = _study(many, out, trials, seeds=3, sizes="10%,20%,30%,60%,100%")
        assert len(trials.calls) == 2 * 3 * 4 * 5
        assert grown["scores"][0]["by_seed"][:2] == whole["scores"][0]["by_seed"]
        with pytest.raises(DataError, match="other arguments or clips"):
            _study(many, out, trials, draw_by="clips")
        many.table["fold"] = [str(i // 2 % 5) for i in range(400)]
        with pytest.raises(DataError, match="other arguments or clips"):
            _study(many, out, trials)

    def test_what_is_written(self, many, tmp_path):
        out = tmp_path / "out"
        result = _study(many, out, Fake(many), command="ossicle study training-size")
        assert {path.name for path in out.iterdir()} == {
            "cells.jsonl",
            *(f"training_size.{kind}" for kind in ("json", "md", "csv")),
            *(f"training_size-{part}.csv" for part in ("times_the_data", "by_score")),
            *(f"training_size-curves.{kind}" for kind in ("png", "svg")),
        }
        stored = json.loads((out / "training_size.json").read_text())
        assert stored["needs"][0]["k"] == result["needs"][0]["k"]
        assert stored["record"]["seed"] == 0 and stored["record"]["data"]["files"] == 400
        page = (out / "training_size.md").read_text()
        assert result["text"][0] in page and str(tmp_path) not in page
        table = pd.read_csv(out / "training_size.csv")
        assert table["accuracy"].tolist() == pytest.approx([r["score"] for r in result["scores"]])
        assert table["seconds"].tolist() == [0.5 * 2 * 4] * 8

    def test_three_settings_are_each_set_against_the_first(self, many, tmp_path):
        texts = [f"one: {A}", f"two: {B}", f"three: {A} pooling=mean"]
        result = training_size_study(
            many, texts, tmp_path / "out", sizes="10%,50%,100%", seeds=1, trials=Fake(many)
        )
        assert [(t["a"], t["b"]) for t in result["needs"]] == [("one", "two"), ("one", "three")]
        assert result["needs"][1]["k"] == pytest.approx(1)
        assert "one seed" in " ".join(result["text"])

    def test_refusals(self, many, tmp_path):
        with pytest.raises(DataError, match="alike"):
            _study(many, tmp_path, Fake(many), sizes="10%,10.1%,100%")
        with pytest.raises(DataError, match="seeds"):
            _study(many, tmp_path, Fake(many), seeds=0)


class TestWords:
    TOLD: ClassVar = {"k": 2.04, "low": 1.6, "high": 2.8, "open": []}

    def test_factors(self):
        assert factor_text(self.TOLD) == "2.0 times (95 % interval 1.6 to 2.8)"
        assert factor_text({**self.TOLD, "low": None, "high": None}, 0.9) == "2.0 times"
        wide = {"k": 4.0, "low": 1.2, "high": 10.0, "open": ["high"]}
        assert factor_text(wide, 0.9) == "4.0 times (90 % interval 1.2 to more than 10)"
        never = {"k": 10.0, "low": 10.0, "high": 10.0, "open": ["k", "low", "high"]}
        assert factor_text(never) == "more than 10 times (the whole 95 % interval lies there)"
        turned = inverse({"k": 0.25, "low": 0.1, "high": 0.5, "open": ["low"]})
        assert turned == {"k": 4.0, "low": 2.0, "high": 10.0, "open": ["high"]}

    @staticmethod
    def _needs(a, b, noise=0.001):
        """Sentences on two curves measured by single clips of two seeds."""
        from ossicle.study.size_curve import draw_means, needs

        n = np.array([10.0, 20, 50, 100])
        luck = noise * np.array([[[-1, 1]], [[1, -1]]])
        scores = np.stack([a, b])[..., None] + luck
        draws = draw_means(scores, np.zeros((20, 2, 4)) + scores.mean(-1), 50)
        told = needs(n, a, b, draws[:, 0], draws[:, 1])
        names = {"a": "log", "b": "linear"}
        result = {"metric": "accuracy", "confidence": 0.95}
        return needs_text({**told, **names}, result), {**told, **names}

    def test_who_needs_more_is_named_first(self):
        n = np.array([10.0, 20, 50, 100])
        curve, late = 0.2 * np.log(n), 0.2 * np.log(n / 2)
        assert self._needs(curve, late)[0][0].startswith("**linear needs 2.0 times")
        assert self._needs(late, curve)[0][0].startswith("**log needs 2.0 times")
        text = self._needs(curve, late)[0][1]
        assert text.startswith("The best of linear, accuracy 0.7824, is reached by log with 50 %")

    def test_what_is_not_told_apart_is_said_to_be(self):
        curve = np.array([0.3, 0.5, 0.6, 0.7])
        text, told = self._needs(curve, curve + np.array([0.001, -0.001, 0, 0]), 0.05)
        assert told["low"] < 1 < told["high"]
        assert "do not tell which needs more" in text[0]

    def test_bounds_are_named(self):
        high, low = np.array([0.7, 0.8, 0.9, 0.95]), np.array([0.1, 0.2, 0.25, 0.3])
        for a, b, worse in ((high, low, "linear"), (low, high, "log")):
            text, _ = self._needs(a, b)
            assert text[0].startswith(f"**{worse} needs more than 10 times")
            assert "accuracy 0.3000" in text[0] and len(text) == 1

    def test_crossings_are_told(self):
        text, told = self._needs(np.array([0.2, 0.4, 0.7, 0.9]), np.array([0.4, 0.5, 0.6, 0.7]))
        assert told["crosses"] and "cross, beyond their intervals" in text[-1]

    def test_an_arrow_only_for_what_is_told_apart(self, many, tmp_path):
        result = _study(many, tmp_path / "out", Fake(many))
        axes = figures(result)["Curves"].axes[0]
        assert [text.get_text() for text in axes.texts] == ["", f"× {result['needs'][0]['k']:.1f}"]
        arrow = axes.texts[0]
        start, end = arrow.xyann, arrow.xy
        assert end[0] / start[0] == pytest.approx(2, rel=0.3) and end[1] == start[1]
        assert axes.get_xscale() == "log"
        alike = _study(many, tmp_path / "alike", Fake(many, k=1.0))
        assert not figures(alike)["Curves"].axes[0].texts


def test_the_command_line_on_sounds(tmp_path):
    """Pitch told by mel bands; a tone's loudness alone would not do."""
    generator = np.random.default_rng(0)
    time = np.arange(8000) / 16_000
    for i in range(48):
        pitch = 400 if i % 2 else 900
        tone = np.sin(2 * np.pi * pitch * (1 + 0.2 * generator.normal()) * time)
        noisy = 0.2 * tone + 0.2 * generator.normal(size=8000)
        path = tmp_path / "tones" / ("low" if i % 2 else "high") / f"{i:02d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        wavfile.write(path, 16_000, noisy.astype(np.float32))
    app = typer.Typer()
    app.command()(study_training_size)
    out = tmp_path / "out"
    words = [str(tmp_path / "tones"), "--a", A, "--b", f"few: {B}", "--sizes", "4,12", "--json"]
    words += [
        "--seeds",
        "2",
        "--n-folds",
        "2",
        "--groups",
        "none",
        "-o",
        str(out),
        "--workers",
        "1",
    ]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    answer = json.loads(done.stdout.splitlines()[-1])
    assert [row["n"] for row in answer["scores"]] == [8, 24, 8, 24]
    assert answer["settings"][1] == {"name": "few", "strategy": B}
    assert answer["scores"][1]["score"] > 0.8
    assert (out / "training_size.md").is_file()


def test_what_cannot_be_read_is_left_out_and_named(tmp_path):
    rng = np.random.default_rng(0)
    times = np.arange(4800) / 16_000
    for name, pitch_hz in (("high", 3000.0), ("low", 300.0)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(8):
            tone = np.sin(2 * np.pi * pitch_hz * times) + 0.1 * rng.standard_normal(len(times))
            path = tmp_path / "set" / name / f"{name}{i}x.wav"
            wavfile.write(path, 16_000, (8000 * tone).astype(np.int16))
    (tmp_path / "set" / "high" / "broken.wav").write_bytes(b"RIFF, but no sound")
    clips = read_clips(tmp_path / "set", groups="none")
    result = training_size_study(
        clips, [A, B], tmp_path / "out", sizes="50%,100%", seeds=1, n_folds=2, n_resamples=20
    )
    (note,) = [n for n in result["protocol"]["notes"] if n.startswith("left out")]
    assert "broken.wav" in note
    assert result["protocol"]["n_clips"] == 16
    assert result["scores"][1]["score"] == 1.0
