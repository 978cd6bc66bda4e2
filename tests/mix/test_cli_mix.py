"""`ossicle mix` as a user types it."""

from __future__ import annotations

import json

import pandas as pd
import pytest

QUICK = (*("--duration", 2, "--n-train", 3, "--n-valid", 2, "--n-test", 2), "--workers", 1)


def test_from_clips_to_soundscapes(ossicle, tones, tmp_path):
    out = tmp_path / "scapes"
    arguments = (
        *("mix", tones, "-o", out, "--folds", r"/(\d)-/", "--groups", r"/([a-z]\d)-/"),
        *("--valid-folds", 4, "--test-folds", "5", "--events", "1,2", "--json", *QUICK),
    )
    code, told, _ = ossicle(*arguments)
    assert code == 0
    value = json.loads(told)
    assert value["rendered"] == 7
    assert value["parts"]["train"]["soundscapes"] == 3
    table = pd.read_csv(out / "events.csv")
    assert set(table["split"]) == {"train", "valid", "test"}
    code, told, _ = ossicle(*arguments)
    assert code == 0
    assert json.loads(told)["kept"] == 7


def test_what_it_says(ossicle, tones, tmp_path):
    code, told, notes = ossicle("mix", tones, "-o", tmp_path / "scapes", *QUICK)
    assert code == 0
    lines = told.splitlines()
    assert lines[0].startswith("train: 3 soundscapes, 0.00 h, ")
    assert lines[-1] == f"events: {tmp_path / 'scapes' / 'events.csv'}"
    assert all(line.startswith("note: ") for line in notes.splitlines())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--events", "1,x"), "--events 1,x: write two numbers"),
        (("--events", "1.5,2"), "--events 1.5: give whole numbers"),
        (("--snr-db", "1,2,3"), "--snr-db 1,2,3: write two numbers"),
        (("--snr-db", "20,3"), "SNR 20, 3: give two numbers, the lower first"),
        (("--snr-db", "nan"), "SNR nan"),
        (("--reverb", "2"), "share with reverberation 2: choose 0 to 1"),
        (("--background", "nowhere"), "nowhere: there is no such file or folder"),
        (("--test-folds", "5"), "have no folds"),
    ],
)
def test_what_is_refused(ossicle, tones, tmp_path, wrong, message):
    code, _, error = ossicle("mix", tones, "-o", tmp_path / "scapes", *QUICK, *wrong)
    last = error.splitlines()[-1]
    assert code == 2
    assert message in last
    assert not (tmp_path / "scapes").exists()


def test_the_folder_of_the_clips_is_no_place(ossicle, tones):
    code, _, error = ossicle("mix", tones, "-o", tones / "scapes", *QUICK)
    assert code == 2
    assert "lies in" in error
    assert not (tones / "scapes").exists()
