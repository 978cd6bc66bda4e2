"""What every augmentation promises: one battery over all of them, and over their compositions."""

from __future__ import annotations

import json

import pytest
import torch

from ossicle import augment
from ossicle.augment import AUGMENTATIONS, Augmentation, Compose, OneOf, SomeOf, rows
from ossicle.errors import OssicleError

REQUIRED = {"reverb": {"sample_rate": 8000}}
FLOOR = -6.9  # of the log-mels here


def build(name: str, **settings) -> Augmentation:
    return AUGMENTATIONS[name](**REQUIRED.get(name, {}), **settings)


def chain(*names: str) -> list[Augmentation]:
    return [build(name) for name in names]


CASES = {name: build(name, p=1.0) for name in AUGMENTATIONS} | {
    "compose, of spectrograms": Compose(chain("log_mixup", "resize_crop", "time_mask")),
    "compose, of waveforms": Compose(
        [Compose(chain("noise", "shift"), p=0.8), *chain("speed", "reverb")]
    ),
    "one of": OneOf(chain("random_gain", "mix", "reverb", "polarity")),
    "some of": SomeOf(chain("band_mask", "linear_fader", "gain"), (1, 2), [1, 2, 3]),
}


def axes(case: Augmentation) -> str:
    return axes(case.augmentations[0]) if isinstance(case, Compose) else case.axes


@pytest.fixture(params=CASES)
def case(request) -> Augmentation:
    return CASES[request.param]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sounds(case: Augmentation, n: int, seed: int = 0) -> torch.Tensor:
    """Random waveforms (n, 2001) or log-mels (n, 1, 20, 33); sizes that nothing divides."""
    if axes(case) == "(B, N)":
        return 0.1 * torch.randn(n, 2001, generator=seeded(seed))
    return torch.randn(n, 1, 20, 33, generator=seeded(seed)) - 2


def silence(x: torch.Tensor) -> torch.Tensor:
    return torch.full_like(x, 0.0 if x.ndim == 2 else FLOOR)


def test_every_class_has_a_name():
    classes = {
        value
        for value in vars(augment).values()
        if isinstance(value, type) and issubclass(value, Augmentation)
    }
    assert classes - {Augmentation, Compose, OneOf, SomeOf} == set(AUGMENTATIONS.values())


def test_shape_type_and_input_stay(case):
    x, z = sounds(case, 7), sounds(case, 7, 1)
    before, partners = x.clone(), z.clone()
    y = case(x, seeded(3), z)
    assert y.shape == x.shape
    assert y.dtype == torch.float32
    assert torch.equal(x, before)
    assert torch.equal(z, partners)


def test_every_item_is_changed_where_p_is_1(case):
    x, z = sounds(case, 40), sounds(case, 40, 1)
    same = [torch.equal(a, b) for a, b in zip(x, case(x, seeded(3), z), strict=True)]
    # Masks of no width, shifts by 0 and inner probabilities leave some items as they are.
    assert sum(same) <= 12


def test_the_seed_decides_everything(case):
    x, z = sounds(case, 12), sounds(case, 12, 1)
    sometimes = Compose([case], p=0.5)  # of Polarity alone the seed decides when, not how
    torch.manual_seed(0)
    first = sometimes(x, seeded(3), z)
    torch.manual_seed(1)  # the global generator has no say
    assert torch.equal(sometimes(x, seeded(3), z), first)
    assert not torch.equal(sometimes(x, seeded(4), z), first)


def test_draws_have_a_row_for_each_item_and_depend_on_no_sound(case):
    drawn = case.draw(5, seeded(0))
    assert all(len(value) == 5 for value in drawn.values())
    again = case.draw(5, seeded(0))
    assert list(drawn) == list(again)
    assert all(torch.equal(drawn[name], again[name]) for name in drawn)


@pytest.mark.parametrize("part", [slice(0, 1), slice(4, 5), slice(3, 10), slice(16, 17)])
def test_an_item_does_not_depend_on_its_neighbours(case, part):
    """Bit for bit: this is how several processes share a batch."""
    x, z = sounds(case, 17), sounds(case, 17, 1)
    drawn = case.draw(17, seeded(5))
    whole = case.apply(x, drawn, z)
    assert torch.equal(case.apply(x[part], rows(drawn, part), z[part]), whole[part])
    other = sounds(case, 17, 2)  # neighbours of another kind
    other[part] = x[part]
    assert torch.equal(case.apply(other, drawn, z)[part], whole[part])


def test_rows_in_another_order(case):
    x, z = sounds(case, 6), sounds(case, 6, 1)
    drawn, order = case.draw(6, seeded(5)), torch.tensor([4, 0, 2])
    part = case.apply(x[order], rows(drawn, order), z[order])
    assert torch.equal(part, case.apply(x, drawn, z)[order])


def test_silent_items_stay_silent(case):
    x, z = sounds(case, 6), sounds(case, 6, 1)
    silent = torch.tensor([True, False, True, True, False, True])
    x[silent] = silence(x[silent])
    y = case(x, seeded(0), z)
    assert torch.equal(y[silent], x[silent])
    quiet = silence(x)
    assert torch.equal(case(quiet, seeded(0), z), quiet)


def test_odd_sounds_and_partners_stay_finite(case):
    x = sounds(case, 8)
    x[0] = silence(x[:1])[0]
    x[1] = silence(x[:1])[0]
    x[1].view(-1)[7] = 1.0  # an impulse
    x[2] *= 1e4 if x.ndim == 2 else 20.0
    x[3] *= 1e-6
    for z in (silence(x), x.flip(0), x):
        assert torch.isfinite(case(x, seeded(1), z)).all()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_p_is_a_share_of_the_items(name):
    never, half = build(name, p=0.0), build(name, p=0.5)
    x, z = sounds(never, 300), sounds(never, 300, 1)
    assert torch.equal(never(x, seeded(0), z), x)
    drawn = half.draw(300, seeded(1))
    chosen = drawn["chosen"]
    assert 110 <= int(chosen.sum()) <= 190  # 4.6 standard deviations about 150
    y = half.apply(x, drawn, z)
    assert torch.equal(y[~chosen], x[~chosen])
    changed = (y != x).flatten(1).any(1)
    assert int(changed[chosen].sum()) >= 0.7 * int(chosen.sum())


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_config_rebuilds_it(name):
    first = build(name, p=0.7)
    config = json.loads(json.dumps(first.config()))
    again = AUGMENTATIONS[name](**config)
    x, z = sounds(first, 5), sounds(first, 5, 1)
    assert torch.equal(again(x, seeded(0), z), first(x, seeded(0), z))
    assert repr(first).startswith(f"{type(first).__name__}(") and "p=0.7" in repr(first)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_what_does_not_fit_is_refused(name):
    a = build(name)
    x = sounds(a, 4)
    wrong = x[:, 0] if x.ndim == 4 else x[:, None]
    with pytest.raises(OssicleError, match="takes float32"):
        a(wrong, seeded(0), wrong)
    with pytest.raises(OssicleError, match="takes float32"):
        a(x.double(), seeded(0), x.double())
    with pytest.raises(OssicleError, match="drawn for 3 items, 4"):
        a.apply(x, a.draw(3, seeded(0)), x)
    if a.needs_partners:
        with pytest.raises(OssicleError, match="needs partners"):
            a(x, seeded(0))
        with pytest.raises(OssicleError, match="needs partners"):
            a(x, seeded(0), x[:2])
    else:
        a(x, seeded(0))
    with pytest.raises(OssicleError, match="probability"):
        build(name, p=1.5)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("band_mask", {"max_fraction": 0}),
        ("time_mask", {"max_fraction": 1.1}),
        ("time_mask", {"n_masks": 0}),
        ("resize_crop", {"canvas": (0.9, 1.5)}),
        ("resize_crop", {"time_scale": (1.5, 0.6)}),
        ("resize_crop", {"frequency_scale": 0.6}),
        ("log_mixup", {"ratio": 1.2}),
        ("log_mixup", {"unit": 0}),
        ("linear_fader", {"gain": 0}),
        ("gain", {"gain": -1}),
        ("random_gain", {"gain_db": (3, -3)}),
        ("shift", {"max_fraction": 0}),
        ("noise", {"color": "blue"}),
        ("noise", {"snr_db": (0, float("inf"))}),
        ("mix", {"snr_db": "05"}),
        ("reverb", {"t60_s": (0, 1)}),
        ("speed", {"factor": (0, 1)}),
        ("speed", {"factor": (1, 11)}),
    ],
)
def test_settings_out_of_range_are_refused(name, settings):
    with pytest.raises(OssicleError):
        build(name, **settings)


def test_a_rate_of_zero_is_refused():
    with pytest.raises(OssicleError, match="sample_rate 0"):
        augment.Reverb(sample_rate=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same(case):
    x, z = sounds(case, 6), sounds(case, 6, 1)
    drawn = case.draw(6, seeded(0))
    there = case.apply(x.cuda(), drawn, z.cuda())
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), case.apply(x, drawn, z), rtol=1e-4, atol=1e-4)
