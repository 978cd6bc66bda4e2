"""Scores of blocks: the same however a recording is cut, and what the network says of windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ossicle.backbones import BACKBONES
from ossicle.detect.averaging import WindowAverage
from ossicle.detect.blocks import Block, Layout
from ossicle.detect.grid import lay_grid
from ossicle.detect.scorers import EachFrame, EachWindow, Part, SharedMaps, create_scorer
from ossicle.detector import create_detector
from ossicle.errors import OssicleError
from ossicle.heads import Head
from ossicle.model import Model, create_model

RATE = 16_000


def clip_model(name: str = "yamnet", task: str = "classes", poolings=None) -> Model:
    """A random network with a random head of three classes."""
    base = create_model(name, seed=1)
    layers = base.layers[:: max(1, len(base.layers) // 4)]
    readout = [f"{layer}/{p}" for layer in layers for p in poolings or base.backbone.poolings]
    width = sum(base.block_sizes(readout).values())
    torch.manual_seed(0)
    head = Head([width, 3])
    with torch.no_grad():
        head.layers[0].weight.mul_(0.05)
    model = Model(
        base.frontend,
        base.backbone,
        clip=base.clip,
        readout=readout,
        head=head,
        classes=("a", "b", "c"),
        task=task,
    )
    return model.eval().requires_grad_(False)


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise whose level and colour change, so that windows differ."""
    rng = np.random.default_rng(seed)
    n = round(seconds * RATE)
    knots = np.arange(0, n + 4000, 4000)
    envelope = np.interp(np.arange(n), knots, rng.uniform(0.01, 0.3, len(knots)))
    return (rng.standard_normal(n) * envelope).astype(np.float32)


def blocks(samples: np.ndarray, layout: Layout):
    """What `blocks_of` gives for samples in memory; a slow definition of its own."""
    begin = number = 0
    while True:
        start = max(0, begin - layout.left)
        stop = begin + layout.core
        last = stop >= len(samples)
        end = len(samples) if len(samples) <= stop + layout.right else None
        piece = samples[start : stop + layout.right]
        yield Block(0, number, piece, start, begin, stop, end, last, "")
        if last:
            return
        begin, number = stop, number + 1


def scores_of(scorer, samples, layout=None):
    parts = [scorer(block) for block in blocks(samples, layout or scorer.layout)]
    return Part(*(np.concatenate(column, -1) for column in zip(*parts, strict=True)))


def test_a_network_hears_no_further_than_it_says():
    """Its reach: frames further away than that change nothing; nearer ones do."""
    checked = 0
    for name, network in BACKBONES.items():
        if network.reach is None:
            continue
        checked += 1
        model = create_model(name, seed=0)
        frames = 32 * -(-3 * network.reach // 32)
        x = torch.rand(1, 1, model.frontend.n_bands, frames)
        y = x.clone()
        y[..., frames // 2] += 3
        far = False
        with torch.inference_mode():
            for info, a, b in zip(
                model.backbone.feature_info,
                model.backbone(x).values(),
                model.backbone(y).values(),
                strict=True,
            ):
                changed = (a != b).flatten(0, -2).any(0).nonzero().flatten() * info.stride
                assert (changed - frames // 2).abs().max() <= network.reach
                far |= bool((changed - frames // 2).abs().max() > network.reach / 4)
        assert far
    assert checked


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.66, 0.9])
def test_shared_maps_do_not_depend_on_the_blocks(overlap):
    """Blocks of 10 s and one block over all: the same windows, the same scores."""
    model = clip_model()
    scorer = SharedMaps(model, lay_grid(1.0, None, overlap, RATE))
    samples = sound(43.7)
    unit = scorer.frame * scorer.hop
    short = scorer.layout._replace(core=31 * unit)
    long = scorer.layout._replace(core=140 * unit)
    assert long.core > len(samples) > 3 * short.core
    a, b = scores_of(scorer, samples, short), scores_of(scorer, samples, long)
    np.testing.assert_array_equal(a.onsets, b.onsets)
    np.testing.assert_array_equal(a.offsets, b.offsets)
    np.testing.assert_allclose(a.scores, b.scores, atol=2e-5)
    assert a.scores.std() > 1e-3


def test_shared_maps_are_the_maps_of_the_whole_recording():
    """The slow definition: one pass over all, each window's frames pooled by themselves."""
    model = clip_model(poolings=("mean", "max", "std", "band"))
    scorer = SharedMaps(model, lay_grid(1.0, 0.5, None, RATE))
    samples = sound(20.0)
    got = scores_of(scorer, samples, scorer.layout._replace(core=16 * scorer.frame * scorer.hop))
    hop = model.frontend.config()["hop_length"]
    frames = model.frontend.num_frames(len(samples))
    padded = np.pad(samples, (0, -frames % 32 * hop))
    maps = model.forward_layers(torch.from_numpy(padded)[None])
    strides = {i.name: i.stride for i in model.backbone.feature_info}
    from ossicle.heads import pool

    for i, (onset, offset) in enumerate(zip(got.onsets, got.offsets, strict=True)):
        rate = scorer.scale / RATE
        begin = onset / rate / hop
        count = model.frontend.num_frames(round((offset - onset) / rate))
        columns = []
        for name in model.readout:
            layer, _, pooling = name.rpartition("/")
            first = int(np.floor(begin / strides[layer] + 0.5))
            last = first + -(-count // strides[layer])
            columns.append(pool(maps[layer][..., first:last], (pooling,))[pooling])
        want = model.head(torch.cat(columns, 1)).softmax(-1)[0]
        np.testing.assert_allclose(got.scores[:, i], want.numpy(), atol=3e-5)


def test_a_recording_of_one_window_is_heard_as_a_clip():
    model = clip_model()
    samples = sound(0.8)
    for scorer in (SharedMaps(model, lay_grid(1.0, 0.5, None, RATE)),):
        part = scores_of(scorer, samples)
        np.testing.assert_allclose(part.scores[:, 0], model.clip_scores(samples), atol=1e-6)
        assert (part.onsets[0], part.offsets[0]) == (0, len(samples) * scorer.scale // RATE)


@pytest.mark.parametrize(
    "name, window_s", [("mobilenet_v2", 2.0), ("choi_convnet", 2.0), ("yamnet", 1.0)]
)
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_each_window_is_heard_as_a_clip(name, window_s, share):
    """The scores of `predict` for the same windows, also of those shorter than clips may be."""
    model = clip_model(name, "multilabel")
    rate = model.sample_rate
    scorer = create_scorer(model, lay_grid(share * window_s, 1.1, None, rate))
    assert isinstance(scorer, EachWindow)
    samples = sound(12.3)
    layout = scorer.layout._replace(core=3 * rate)
    part = scores_of(scorer, samples, layout)
    assert len(part.onsets) > 5
    for onset, offset, scores in zip(part.onsets, part.offsets, part.scores.T, strict=True):
        a, b = (round(units * rate / scorer.scale) for units in (onset, offset))
        np.testing.assert_allclose(scores, model.clip_scores(samples[a:b]), atol=2e-5)


def test_published_classifiers_hear_their_patches():
    model = create_model("yamnet", pretrained=False)
    assert model.patches is None
    tagger = clip_model()
    from ossicle.backbones.clip_policy import Patches

    tagger.patches = Patches(0.975, 0.48)
    grid = lay_grid(0.975, 0.48, None, RATE)
    assert isinstance(create_scorer(tagger, grid), EachWindow)
    for unable in (tagger, clip_model("mobilenet_v2"), clip_model("choi_convnet")):
        with pytest.raises(OssicleError, match="share maps"):
            create_scorer(unable, grid, shared=True)


def test_silence_has_no_scores():
    model = clip_model()
    samples = sound(9.0)
    samples[4 * RATE : 7 * RATE] = 0.25  # a constant is silent too
    part = scores_of(SharedMaps(model, lay_grid(1.0, 0.5, None, RATE)), samples)
    silent = (part.onsets >= 4 * part.offsets[0]) & (part.offsets <= 7 * part.offsets[0])
    assert silent.sum() == 5
    assert not part.scores[:, silent].any() and part.scores[:, ~silent].all()


def test_a_detector_gives_its_frames_whatever_the_blocks():
    model = create_detector(("a", "b"), base=None, pretrained=False)
    scorer = create_scorer(model, None)
    assert isinstance(scorer, EachFrame)
    samples = sound(70.0)
    part = scores_of(scorer, samples)
    assert part.onsets[0] == 0 and part.offsets[-1] == len(samples)
    np.testing.assert_array_equal(part.onsets[1:], part.offsets[:-1])
    assert set(np.diff(part.onsets)) == {scorer.hop}
    whole = model.frame_scores(samples).scores
    assert whole.shape == part.scores.shape
    assert np.abs(whole - part.scores).mean() < 0.02


def test_models_without_classes_are_refused():
    model = clip_model()
    bare = Model(model.frontend, model.backbone, clip=model.clip)
    with pytest.raises(OssicleError, match="has no head"):
        create_scorer(bare, lay_grid(1.0, None, None, RATE))


def slow_average(part: Part, scale: int):
    borders = sorted({*part.onsets.tolist(), *part.offsets.tolist()})
    scores = []
    for a, b in zip(borders[:-1], borders[1:], strict=True):
        over = [i for i in range(len(part.onsets)) if part.onsets[i] <= a and b <= part.offsets[i]]
        scores.append(part.scores[:, over].mean(1) if over else np.full(len(part.scores), np.nan))
    return np.array(borders) / scale, np.stack(scores, 1)


@pytest.mark.parametrize("stride", [1, 3, 7, 10, 13])
@pytest.mark.parametrize("cut", [1, 2, 5, 100])
def test_frames_are_the_mean_of_their_windows(stride, cut):
    rng = np.random.default_rng(stride)
    onsets = np.arange(0, 40 * stride, stride)
    part = Part(onsets, onsets + 10, rng.random((2, 40)).astype(np.float32))
    part.offsets[-1] -= min(4, stride - 1)
    average = WindowAverage(2, 10)
    pieces = [
        average.push(
            Part(part.onsets[i : i + cut], part.offsets[i : i + cut], part.scores[:, i : i + cut])
        )
        for i in range(0, 40, cut)
    ]
    pieces.append(average.finish())
    edges, scores = slow_average(part, 10)
    joined = np.concatenate([pieces[0].edges[:1], *(p.edges[1:] for p in pieces)])
    np.testing.assert_array_equal(joined, edges)
    np.testing.assert_allclose(np.concatenate([p.scores for p in pieces], 1), scores, rtol=1e-6)
    whole = WindowAverage(2, 10)
    first = whole.push(part)
    again = np.concatenate([first.scores, whole.finish().scores], 1)
    np.testing.assert_array_equal(np.concatenate([p.scores for p in pieces], 1), again)


def test_what_was_never_heard_is_a_row_of_its_own():
    """Windows beyond the share have no class; the others are as they are without it."""
    from ossicle.novelty import Novelty

    model = clip_model()
    width = model.head.sizes[0]
    novelty = Novelty(first=0, dims=width, rank=1, means=1, known=99)
    novelty.scale.fill_(1.0)
    novelty.outside.fill_(1.0)
    samples = sound(20.0)
    grid = lay_grid(1.0, 0.5, None, RATE)
    plain = scores_of(SharedMaps(model, grid), samples)
    with pytest.raises(OssicleError, match="never heard"):
        create_scorer(model, grid, 0.5)
    model.novelty = novelty
    vectors = []
    scorer = SharedMaps(model, grid)
    scorer.judged = lambda x: (vectors.append(x), model.scores_from_vectors(x))[1]
    scores_of(scorer, samples)
    distances = novelty.distance(torch.cat(vectors)).sort().values
    novelty.known.copy_(torch.linspace(float(distances[0]), float(distances[-1]), 99))
    share = float(novelty(torch.cat(vectors)).median())
    got = scores_of(create_scorer(model, grid, share, shared=True), samples)
    assert got.scores.shape == (4, len(plain.onsets))
    strange = novelty(torch.cat(vectors)).numpy() > share
    assert 0 < strange.sum() < len(strange)
    np.testing.assert_array_equal(got.scores[:3, strange], 0)
    np.testing.assert_array_equal(got.scores[:3, ~strange], plain.scores[:, ~strange])
    assert (got.scores[3, strange] > share).all() and not got.scores[3, ~strange].any()


def test_many_windows_are_read_out_some_at_a_time(monkeypatch):
    """Overlap of 99 % must not hold the read-outs of all windows of a block."""
    model = clip_model()
    samples = sound(9.0)
    grid = lay_grid(0.5, None, 0.9, RATE)
    whole = scores_of(SharedMaps(model, grid), samples)
    monkeypatch.setattr("ossicle.detect.scorers.AT_ONCE", 7)
    heard = []
    scorer = SharedMaps(model, grid)
    scorer.judged = lambda x: (heard.append(len(x)), model.scores_from_vectors(x))[1]
    some = scores_of(scorer, samples)
    assert max(heard) == 7 and sum(heard) == len(whole.onsets) > 100
    np.testing.assert_allclose(some.scores, whole.scores, atol=1e-6)


def test_some_classes_are_rows_of_all():
    from ossicle.detect.scorers import SomeRows

    model = clip_model()
    scorer = SharedMaps(model, lay_grid(1.0, None, None, RATE))
    samples = sound(5.0)
    whole, some = scores_of(scorer, samples), scores_of(SomeRows(scorer, [2, 0]), samples)
    np.testing.assert_array_equal(some.scores, whole.scores[[2, 0]])
    np.testing.assert_array_equal(some.onsets, whole.onsets)
