"""What a network is shown: the queue of past pictures, units of log-mels, recipes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ossicle.augment import Augmentation, Compose, LogMixup, Mix
from ossicle.frontend import LogMel, Waveform, create_frontend
from ossicle.model import create_model
from ossicle.pretrain.views import Queue, Views, create_views, mixing_unit
from ossicle.train import Batch, Step

RATE = 16_000
N = 8000


def at(size: int, rows: slice | None = None, seed: int = 0) -> Step:
    generator = torch.Generator().manual_seed(seed)
    return Step(0, 10, generator, size, rows or slice(0, size), lambda x: x)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch_of(size: int, views: int = 2, partners: bool = False, seed: int = 0) -> Batch:
    x = noise(size, views, N, seed=seed)
    other = noise(size, views, N, seed=seed + 1) if partners else None
    return Batch(x, [str(i) for i in range(size)], slice(0, size), size, other)


def log_mel(**more) -> LogMel:
    # Nothing near the floor, so that every value follows the level.
    return LogMel(
        RATE, n_fft=512, hop_length=160, n_mels=16, fmin=100.0, **{"offset": 1e-12} | more
    )


# --- the queue -------------------------------------------------------------------------------


def numbered(*numbers: int) -> torch.Tensor:
    """(b, 1, 2, 3) pictures that are their number everywhere."""
    return torch.tensor(numbers).float().view(-1, 1, 1, 1).expand(-1, 1, 2, 3)


def inside(queue: Queue) -> list[int]:
    assert (queue.pictures == queue.pictures[:, :1, :1, :1]).all()
    return sorted(queue.pictures[:, 0, 0, 0].long().tolist())


def test_the_oldest_makes_room():
    queue, pushed = Queue(5, (1, 2, 3)), []
    for size in (2, 1, 4, 3, 5, 2, 1, 1):
        new = range(len(pushed) + 1, len(pushed) + 1 + size)
        queue.push(numbered(*new))
        pushed += new
        want = [0] * max(0, 5 - len(pushed)) + pushed[-5:]
        assert inside(queue) == sorted(want)


def test_more_than_fits_leaves_the_last():
    queue = Queue(3, (1, 2, 3))
    queue.push(numbered(*range(1, 9)))
    assert inside(queue) == [6, 7, 8]
    queue.push(numbered(9))
    assert inside(queue) == [7, 8, 9]


def drawn(queue: Queue, x: torch.Tensor, step: Step) -> list[int]:
    return queue.partners(x, step)[:, 0, 0, 0].long().tolist()


def test_partners_come_from_the_past_alone():
    queue, now = Queue(4, (1, 2, 3)), numbered(101, 102, 103)
    # Before there is a past, from the batch.
    assert set(drawn(queue, now, at(3))) <= {101, 102, 103}
    queue.push(numbered(1, 2))
    many = [n for seed in range(30) for n in drawn(queue, now, at(3, seed=seed))]
    assert set(many) == {1, 2}
    queue.push(numbered(3, 4, 5))
    many = [n for seed in range(60) for n in drawn(queue, now, at(3, seed=seed))]
    assert set(many) == {2, 3, 4, 5}
    assert min(many.count(n) for n in (2, 3, 4, 5)) > 20
    assert queue.partners(now, at(3)).shape == now.shape


def test_partners_are_those_of_the_step_and_of_its_rows():
    queue = Queue(50, (1, 2, 3))
    queue.push(numbered(*range(1, 51)))
    now = numbered(*range(6))
    joint = drawn(queue, now, at(6, seed=3))
    assert joint == drawn(queue, now, at(6, seed=3))
    assert joint != drawn(queue, now, at(6, seed=4))
    shares = [drawn(queue, now[r], at(6, r, seed=3)) for r in (slice(0, 2), slice(2, 6))]
    assert shares[0] + shares[1] == joint


def test_the_queue_is_part_of_the_state():
    queue, other = Queue(4, (1, 2, 3)), Queue(4, (1, 2, 3))
    queue.push(numbered(1, 2, 3))
    other.load_state_dict(queue.state_dict())
    step = at(8, seed=1)
    assert drawn(other, numbered(*range(8)), step) == drawn(
        queue, numbered(*range(8)), at(8, seed=1)
    )
    for each in (queue, other):
        each.push(numbered(4, 5))
        assert inside(each) == [2, 3, 4, 5]
    queue.push(numbered(6))
    assert inside(other) == [2, 3, 4, 5]


# --- how much a log-mel rises ----------------------------------------------------------------


SETTINGS = {
    "log of magnitudes": {"scaling": "log", "power": 1.0},
    "log of powers": {"scaling": "log", "power": 2.0},
    "decibels of powers": {"scaling": "db", "power": 2.0, "reference": 1.0, "top_db": None},
    "decibels of magnitudes": {"scaling": "db", "power": 1.0, "reference": 0.3, "top_db": None},
    "scaled and shifted": {"scaling": "log", "power": 2.0, "scale": 0.3, "shift": 4.0},
    "scaled decibels": {"scaling": "db", "power": 1.0, "reference": 1.0, "scale": 0.1},
    "weighted": {"scaling": "log", "power": 2.0, "a_weighting": True},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_unit_is_the_measured_rise(settings):
    frontend, x = log_mel(**settings), noise(1, N)
    rises = frontend(x * np.exp(0.5)) - frontend(x)  # the energy grows e-fold
    assert float(rises.std()) < 1e-3
    assert mixing_unit(frontend) == pytest.approx(float(rises.mean()), rel=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"scaling": "db", "reference": "max"},
        {"scaling": "log", "standardise_per_sample": True},
        {"scaling": "log", "standardise_per_frequency": True},
        {"scaling": "linear"},
    ],
)
def test_where_levels_do_not_compare_there_is_no_unit(settings):
    frontend, x = log_mel(**settings), noise(1, N)
    assert mixing_unit(frontend) is None
    rises = frontend(x * np.exp(0.5)) - frontend(x)
    # Either nothing rises, or each value by another step.
    assert float(rises.abs().max()) < 1e-3 or float(rises.std()) > 1e-3


def test_what_is_no_log_mel_has_no_unit():
    assert mixing_unit(Waveform(RATE)) is None
    for name in ("mfcc", "stft"):
        config = {"name": name, "sample_rate": RATE} | ({"n_mfcc": 13} if name == "mfcc" else {})
        assert mixing_unit(create_frontend(**config)) is None


def test_mixed_in_that_unit_is_the_picture_of_the_mixed_sound():
    """Of two sounds in bands of their own: (1 - a) and a of their energies."""
    frontend = log_mel(scaling="log", power=2.0, scale=0.5, offset=1e-9)
    t = torch.arange(N) / RATE
    x, z = (0.5 * torch.sin(2 * np.pi * f * t)[None] for f in (700.0, 4000.0))
    mixup = LogMixup(0.999, unit=mixing_unit(frontend))
    drawn = {"chosen": torch.tensor([True]), "share": torch.tensor([0.4])}
    inside = slice(3, -3)  # at the ends the tones are cut, and sound in all bands
    mixed = mixup.apply(frontend(x), drawn, frontend(z))[..., inside]
    want = frontend(x * 0.6**0.5 + z * 0.4**0.5)[..., inside]
    loud = want > want.max() - 0.5 * np.log(1e4)  # 40 dB under the loudest
    assert float((mixed - want)[loud].abs().max()) < 1e-3
    assert loud.any(3)[0, 0].nonzero()[:, 0].tolist() == [2, 3, 12, 13]


# --- recipes ---------------------------------------------------------------------------------


FRONTENDS = {
    "log": create_model("crnn").frontend,
    "nfnet": create_model("nfnet_f0", width=1 / 8).frontend,
    "db max": log_mel(scaling="db", reference="max"),
    "waveform": create_model("cpc_encoder", width=1 / 16).frontend,
}


@pytest.mark.parametrize("recipe", ["plain", "mask", "contrast", "byol"])
@pytest.mark.parametrize("frontend", FRONTENDS.values(), ids=FRONTENDS)
@pytest.mark.parametrize("queue", [0, 6])
def test_recipes_keep_shapes_and_ask_for_what_they_need(frontend, recipe, queue):
    views = create_views(frontend, N, recipe, queue)
    batch = batch_of(4, partners=views.needs_partners)
    pictures = views(batch, at(4))
    shape = (4, *frontend(noise(1, N)).shape[1:])
    assert [tuple(p.shape) for p in pictures] == [shape] * 2
    assert all(p.isfinite().all() for p in pictures)
    again = create_views(frontend, N, recipe, queue)(batch, at(4))
    assert all(torch.equal(a, b) for a, b in zip(pictures, again, strict=True))
    plain = [frontend(batch.waveforms[:, v]) for v in range(2)]
    changed = [not torch.equal(a, b) for a, b in zip(pictures, plain, strict=True)]
    assert changed == [recipe != "plain"] * 2
    if recipe != "plain":  # each view by itself
        same = batch._replace(
            waveforms=batch.waveforms[:, :1].expand(-1, 2, -1),
            partners=None if batch.partners is None else batch.partners[:, :1].expand(-1, 2, -1),
        )
        assert not torch.equal(*create_views(frontend, N, recipe, queue)(same, at(4)))


def test_what_batches_must_bring():
    log, decibels, wave = (FRONTENDS[name] for name in ("log", "db max", "waveform"))
    wanted = {
        ("plain", 0): (False, False, False),
        ("mask", 9): (False, False, False),
        ("contrast", 9): (True, True, True),
        # With a queue only log-mels that can be mixed as they are need none.
        ("byol", 9): (False, True, True),
        ("byol", 0): (True, True, True),
    }
    for (recipe, queue), needs in wanted.items():
        got = tuple(create_views(f, N, recipe, queue).needs_partners for f in (log, decibels, wave))
        assert got == needs, recipe
    assert create_views(log, N, "byol", 9).queue.pictures.shape == (9, *log(noise(1, N)).shape[1:])
    assert create_views(log, N, "contrast", 9).queue is None


def test_pictures_are_kept_plain_and_only_in_training():
    frontend = FRONTENDS["log"]
    views = create_views(frontend, N, "byol", 6)
    batch = batch_of(3)
    views.eval()(batch, at(3))
    assert int(views.queue.filled) == 0
    views.train()(batch, at(3))
    plain = torch.cat([frontend(batch.waveforms[:, v]) for v in range(2)])
    assert int(views.queue.filled) == 6
    assert torch.allclose(views.queue.pictures, plain, atol=1e-6)
    # Nothing of a batch is mixed into itself: with what is now inside, the next one is.
    quiet = batch_of(3, seed=5)
    quiet = quiet._replace(waveforms=quiet.waveforms * 1e-3)
    mixed = views(quiet, at(3))
    bare = frontend(quiet.waveforms[:, 0])
    assert float((mixed[0] - bare).mean()) > 0.3  # past pictures are 60 dB louder
    assert torch.allclose(views.queue.pictures[:3], bare, atol=1e-6)


class Numbered(Augmentation):
    """Adds each item's number in the joint batch, and tells its partners."""

    mixes = True

    def __init__(self) -> None:
        super().__init__()
        self.partners: list[torch.Tensor] = []

    def _draw(self, n, generator):
        return {"add": torch.arange(n).float() + 100}

    def _apply(self, x, drawn, partners):
        self.partners.append(partners)
        return x + drawn["add"].view(-1, *[1] * (x.dim() - 1))


@pytest.mark.parametrize("rows", [slice(0, 4), slice(2, 4)])
def test_each_row_has_its_own_numbers_and_partners(rows):
    on_waves, on_pictures = Numbered(), Numbered()
    frontend = log_mel(scaling="db", reference="max")  # deaf to what is added up to rounding
    batch = batch_of(4, partners=True)
    mine = batch._replace(waveforms=batch.waveforms[rows], partners=batch.partners[rows], rows=rows)
    Views(frontend, on_waves)(mine, at(4, rows))
    for view in range(2):
        assert torch.equal(on_waves.partners[view], batch.partners[rows, view])
    pictures = Views(frontend, None, on_pictures)(mine, at(4, rows))
    for view in range(2):
        assert torch.equal(on_pictures.partners[view], frontend(batch.partners[rows, view]))
        added = (pictures[view] - frontend(mine.waveforms[:, view])).mean((1, 2, 3))
        assert torch.allclose(added, torch.arange(100.0, 104)[rows], atol=1e-3)


def test_two_processes_show_what_one_does():
    frontend = FRONTENDS["log"]
    for recipe in ("contrast", "mask", "byol"):
        views = create_views(frontend, N, recipe)
        batch = batch_of(4, partners=True)
        joint = views(batch, at(4))
        for rows in (slice(0, 2), slice(2, 4)):
            mine = batch._replace(
                waveforms=batch.waveforms[rows], partners=batch.partners[rows], rows=rows
            )
            for a, b in zip(views(mine, at(4, rows)), joint, strict=True):
                assert torch.allclose(a, b[rows], atol=1e-5)


def test_pictures_are_laid_out_for_convolutions_and_carry_no_gradient():
    views = create_views(FRONTENDS["log"], N, "contrast")
    batch = batch_of(4, partners=True)
    batch.waveforms.requires_grad_(True)
    for picture in views(batch, at(4)):
        assert picture.is_contiguous(memory_format=torch.channels_last)
        assert not picture.requires_grad
    assert not list(views.parameters())


def test_a_composed_mix_needs_partners():
    frontend = FRONTENDS["waveform"]
    assert Views(frontend, Compose([Mix()])).needs_partners
    assert not Views(frontend).needs_partners


def test_the_queue_of_several_processes_is_that_of_one():
    """What is gathered is pushed: here by a stand-in for the other process's half."""
    whole, half = Queue(6, (1, 2, 3)), Queue(6, (1, 2, 3))
    x = torch.arange(24.0).view(4, 1, 2, 3)

    def at(rows: slice, gather) -> Step:
        return Step(0, 1, torch.Generator().manual_seed(1), 4, rows, gather)

    one, second = at(slice(0, 4), lambda v: v), at(slice(2, 4), lambda v: x)
    for _ in range(2):  # before there are past pictures, and after
        expected = whole.partners(x, one)
        assert torch.equal(half.partners(x[2:], second), expected[2:])
        one, second = (
            step._replace(generator=torch.Generator().manual_seed(2)) for step in (one, second)
        )
        whole.push(one.gather(x))
        half.push(second.gather(x[2:]))
    assert torch.equal(whole.pictures, half.pictures)
