"""Settings that cannot be meant are refused in a line."""

from __future__ import annotations

import pytest

from ossicle.errors import OssicleError
from ossicle.strong.run import new_detector
from ossicle.strong.settings import StrongSettings


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": "wave"}, "inputs 'wave': choose one of mel, features, both"),
        ({"augment": "all"}, "augment 'all': choose one of none, mask, mix"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"window_s": float("inf")}, "window_s is inf"),
        ({"clip_weight": -1.0}, "clip_weight is -1"),
        ({"weight_decay": float("nan")}, "weight_decay is nan"),
        ({"patience": -1}, "patience is -1"),
        ({"gain_db": -1.0}, "gain_db is -1"),
        ({"average": 1.0}, "average is 1.0"),
        ({"warm_up": 1.0}, "warm_up is 1.0"),
        ({"validation": 0.0}, "validation 0.0 and test 0.2"),
        ({"validation": 0.5, "test": 0.5}, "validation 0.5 and test 0.5"),
        ({"test": 0.0}, "validation 0.15 and test 0.0"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line(change, said):
    with pytest.raises(OssicleError) as caught:
        StrongSettings(**change).check()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_few_windows_are_heard_more_often():
    assert StrongSettings().epochs_of(100) == 12
    assert StrongSettings().epochs_of(25) == 12
    assert StrongSettings().epochs_of(24) == 13
    assert StrongSettings().epochs_of(1) == 300
    assert StrongSettings(epochs=2).epochs_of(1) == 2


def test_what_can_be_meant_is_taken():
    assert StrongSettings().check() == StrongSettings()
    assert StrongSettings(patience=0, average=0.0, clip_weight=0.0, gain_db=0.0).check()


@pytest.mark.parametrize(
    ("settings", "network", "said"),
    [
        ({"window_s": 0.05}, {}, "0.1 s at least"),
        ({}, {"mel": True}, "mel is what inputs and backbone say"),
        ({}, {"hop_frames": 3}, "hop_frames"),
    ],
)
def test_networks_that_cannot_be_are_refused(settings, network, said):
    with pytest.raises(OssicleError, match=said):
        new_detector(("a",), StrongSettings(inputs="mel", **settings), network)
