"""Compositions: the order, the choice, and how often."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ossicle.augment import Compose, Gain, LogMixup, OneOf, Polarity, RandomGain, SomeOf, rows
from ossicle.augment.base import Augmentation
from ossicle.errors import OssicleError


class Step(Augmentation):
    """x -> factor x + offset, so that what was applied can be read from the result."""

    axes = "(B, N)"

    def __init__(self, factor: float, offset: float, p: float = 1.0) -> None:
        super().__init__(p)
        self.factor, self.offset = factor, offset

    def _draw(self, n, generator):
        return {}

    def _apply(self, x, drawn, partners):
        return self.factor * x + self.offset


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramp(n: int) -> torch.Tensor:
    return torch.tensor([[0.0, 0.5]]).repeat(n, 1)


def test_compose_goes_in_order():
    y = Compose([Step(2, 0), Step(1, 3), Step(10, 0)])(ramp(4), seeded())
    assert torch.equal(y, 10 * (2 * ramp(4) + 3))


def test_compose_draws_for_each_part():
    both = Compose([Step(1, 1, p=0.5), Step(1, 10, p=0.5)])
    offsets = both(ramp(4000), seeded())[:, 0].tolist()
    counts = {value: offsets.count(value) for value in (0.0, 1.0, 10.0, 11.0)}
    assert sum(counts.values()) == 4000
    assert all(abs(count - 1000) < 5 * np.sqrt(4000 * 0.25 * 0.75) for count in counts.values())


def test_p_of_a_composition_skips_all_of_it():
    offsets = Compose([Step(1, 1), Step(1, 10)], p=0.3)(ramp(4000), seeded())[:, 0].tolist()
    assert set(offsets) == {0.0, 11.0}
    assert abs(offsets.count(11.0) - 1200) < 5 * np.sqrt(4000 * 0.3 * 0.7)


def test_parts_that_mix_get_the_partners():
    x, z = torch.randn(3, 1, 4, 5), torch.randn(3, 1, 4, 5)
    mixed = LogMixup()
    nested = Compose([Compose([mixed])])
    assert nested.needs_partners
    assert not Compose([Gain()]).needs_partners
    drawn = nested.draw(3, seeded())
    inner = {name.removeprefix("0.0."): v for name, v in drawn.items() if name.startswith("0.0.")}
    assert torch.equal(nested.apply(x, drawn, z), mixed.apply(x, inner, z))
    with pytest.raises(OssicleError, match="LogMixup needs partners|Compose needs partners"):
        nested(x, seeded())


def test_more_than_ten_parts_keep_their_own_numbers():
    """ "1." is the start of "1.chosen", not of "11.chosen"."""
    parts = [Step(1, 2.0**k, p=0.0 if k == 1 else 1.0) for k in range(12)]
    assert Compose(parts)(ramp(1), seeded())[0, 0] == 2**12 - 1 - 2


@pytest.mark.parametrize("weights", [None, [1, 2, 5]])
def test_one_of_picks_one_by_weight(weights):
    y = OneOf([Step(1, 1), Step(1, 10), Step(1, 100)], weights)(ramp(8000), seeded())
    offsets = y[:, 0].tolist()
    shares = np.array(weights or [1, 1, 1]) / sum(weights or [1, 1, 1])
    for value, share in zip((1.0, 10.0, 100.0), shares, strict=True):
        assert abs(offsets.count(value) - 8000 * share) < 5 * np.sqrt(8000 * share * (1 - share))
    assert set(offsets) == {1.0, 10.0, 100.0}


def test_some_of_picks_a_number_in_order():
    parts = [Step(2, 0), Step(1, 1), Step(3, 0), Step(1, 5)]
    results = {}
    for chosen in range(16):
        value = 0.5
        for bit, part in enumerate(parts):
            if chosen >> bit & 1:
                value = part.factor * value + part.offset
        results.setdefault(value, set()).add(bin(chosen).count("1"))
    values = SomeOf(parts, (1, 3))(ramp(6000), seeded())[:, 1].tolist()
    assert set(values) <= set(results)
    sizes = [results[value] for value in values if len(results[value]) == 1]
    assert {size for found in sizes for size in found} == {1, 2, 3}
    picked = SomeOf(parts, (1, 3)).draw(6000, seeded())["picked"]
    many = picked.sum(1)
    for k in (1, 2, 3):
        assert abs(int((many == k).sum()) - 2000) < 5 * np.sqrt(6000 * 2 / 9)
    share = picked.double().mean(0)  # each is as likely: 2 of 4 on average
    assert (share - 0.5).abs().max() < 5 * 0.5 / np.sqrt(6000)


def test_some_of_may_pick_none_or_all():
    parts = [Step(1, 1), Step(1, 10)]
    assert set(SomeOf(parts, (0, 0))(ramp(50), seeded())[:, 0].tolist()) == {0.0}
    assert set(SomeOf(parts, (2, 2))(ramp(50), seeded())[:, 0].tolist()) == {11.0}
    assert set(SomeOf(parts)(ramp(50), seeded())[:, 0].tolist()) == {1.0, 10.0, 11.0}


def test_a_picked_part_keeps_its_own_probability():
    y = OneOf([Step(1, 1, p=0.25), Step(1, 10)])(ramp(8000), seeded())
    offsets = y[:, 0].tolist()
    for value, share in ((0.0, 0.375), (1.0, 0.125), (10.0, 0.5)):
        assert abs(offsets.count(value) - 8000 * share) < 5 * np.sqrt(8000 * share * (1 - share))


def test_rows():
    drawn = {"a": torch.arange(4), "0.b": torch.arange(8).view(4, 2)}
    part = rows(drawn, torch.tensor([3, 1]))
    assert part["a"].tolist() == [3, 1]
    assert part["0.b"].tolist() == [[6, 7], [2, 3]]


def test_settings_name_the_parts():
    a = OneOf([Polarity(), Compose([RandomGain((-3, 3))])], weights=[1, 3], p=0.5)
    config = a.config()
    assert [part["type"] for part in config["augmentations"]] == ["Polarity", "Compose"]
    assert config["augmentations"][1]["augmentations"][0]["gain_db"] == (-3, 3)
    assert config["weights"] == [1.0, 3.0]
    assert "count" not in config
    assert "RandomGain(" in repr(a)


def test_what_cannot_be_is_refused():
    with pytest.raises(OssicleError, match="at least one"):
        Compose([])
    with pytest.raises(OssicleError, match="count"):
        SomeOf([Polarity()], (0, 2))
    with pytest.raises(OssicleError, match="weights"):
        OneOf([Polarity(), Polarity()], [1])
    with pytest.raises(OssicleError, match="weights"):
        OneOf([Polarity(), Polarity()], [1, 0])
