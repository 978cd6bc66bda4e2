"""The honest number of fine-tuning: each fold anew, and everything a report needs."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score

from ossicle.datasets.clips import read_clips
from ossicle.errors import DataError
from ossicle.features import extract
from ossicle.finetune import evaluated as station
from ossicle.finetune.evaluated import evaluate_finetuning
from ossicle.finetune.run import finetune
from ossicle.finetune.settings import FinetuneSettings
from ossicle.predict import predict
from ossicle.record import json_safe
from ossicle.report import write_report

GENTLE = FinetuneSettings(learning_rate=1e-4, epochs=1, batch_size=16)


@pytest.fixture
def asked(monkeypatch):
    """(rows trained on, keywords) of each training."""
    seen = []

    def watched(model, clips, train, settings, **options):
        seen.append((np.asarray(train), options))
        return finetune(model, clips, train, settings, **options)

    monkeypatch.setattr(station, "finetune", watched)
    return seen


def test_every_clip_is_answered_by_a_model_that_did_not_hear_its_group(
    network, clips, asked, tmp_path
):
    model = network()
    told = []
    result = evaluate_finetuning(
        clips,
        extract(model, clips),
        model,
        GENTLE,
        n_folds=3,
        diagnostics=False,
        folder=tmp_path,
        say=told.append,
        arguments={"epochs": 1},
    )
    items, groups = result["items"], clips.groups()
    fold = np.array([item["fold"] for item in items])
    assert len(items) == len(clips)
    for number, (train, options) in enumerate(asked, start=1):
        assert sorted(train) == np.flatnonzero(fold != number).tolist()
        assert not set(groups[train]) & set(groups[fold == number])
        assert options["folder"] == tmp_path / f"fold{number}"
        # Those of one fold, trained once more, say the same.
        if number == 2:
            again = finetune(model, clips, train, GENTLE).model
            frame, _ = predict(again, clips.subset(np.flatnonzero(fold == number)))
            mine = [item for item in items if item["fold"] == number]
            assert frame["label"].tolist() == [item["predicted"] for item in mine]
            assert frame["score"].to_numpy() == pytest.approx([i["probability"] for i in mine])
    right = accuracy_score([i["label"] for i in items], [i["predicted"] for i in items])
    assert result["accuracy"] == pytest.approx(right)
    assert result["probe"]["name"] == "fine-tuned"
    assert result["probe"]["settings"] == asdict(GENTLE)
    assert [len(epochs) for epochs in result["probe"]["epochs"]] == [1, 1, 1]
    assert result["arguments"] == {"epochs": 1}
    assert [text for text in told if text.startswith("fold")] == [
        f"fold {i} of 3" for i in (1, 2, 3)
    ]
    json.dumps(json_safe(result), allow_nan=False)


def test_what_could_not_be_read_is_told_and_rows_still_meet(network, frame, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF, but no sound")
    extra = {"path": str(tmp_path / "broken.wav"), "label": "low", "group": "x"}
    clips = read_clips(pd.concat([pd.DataFrame([extra]), frame], ignore_index=True))
    model = network()
    result = evaluate_finetuning(
        clips, extract(model, clips), model, GENTLE, n_folds=2, diagnostics=False
    )
    assert [item["path"].rpartition("/")[2] for item in result["skipped"]] == ["broken.wav"]
    assert len(result["items"]) == len(clips) - 1
    # Labels that had slid by one row would be guessed at chance.
    assert result["accuracy"] > 0.8


def test_numbers_have_no_classes(network, frame):
    value = {"hiss": 7.0, "high": 5.0, "low": -2.0}
    clips = read_clips(frame.assign(label=frame["label"].map(value)), labels="regression")
    model = network()
    result = evaluate_finetuning(
        clips, extract(model, clips), model, GENTLE, n_folds=2, diagnostics=False
    )
    assert result["metric"] == "r2"
    assert result["r2"] > 0.8
    assert result["confusion"] is None


def test_a_report_is_written(network, clips, tmp_path):
    model = network()
    result = evaluate_finetuning(
        clips, extract(model, clips), model, GENTLE, n_folds=2, scratch=True
    )
    assert result["probe"]["name"] == "trained from scratch"
    page = write_report(result, tmp_path / "report", audio_root=clips.root)
    text = page.read_text(encoding="utf-8")
    assert "trained from scratch" in text
    assert json.loads((tmp_path / "report" / "report.json").read_text())["n_clips"] == 36


def test_too_few_groups_are_refused(network, clips):
    few = clips.subset(np.flatnonzero(np.isin(clips.groups(), ["high0", "low0"])))
    model = network()
    with pytest.raises(DataError):
        evaluate_finetuning(few, extract(model, few), model, GENTLE)
