"""Pooling and heads against NumPy's definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from ossicle.errors import OssicleError
from ossicle.heads import (
    ACTIVATIONS,
    COARSE_BANDS,
    POOLINGS,
    Head,
    check_poolings,
    combine,
    count_parameters,
    pooled_size,
)


def maps_of(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slow_pool(maps: np.ndarray, pooling: str) -> np.ndarray:
    """(B, C, F, T) -> (B, D) in float64, one value at a time."""
    rows = []
    for item in maps.astype(np.float64):
        row = []
        for channel in item:
            if pooling == "band":
                bands = len(channel)
                k = min(bands, COARSE_BANDS)
                # Coarse band i runs over bands floor(i F / k) to ceil((i + 1) F / k).
                for i in range(k):
                    part = channel[i * bands // k : -(-(i + 1) * bands // k)]
                    row.append(part.mean())
            else:
                row.append(getattr(channel, pooling)())
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("pooling", list(POOLINGS))
@pytest.mark.parametrize(
    "shape", [(2, 3, 16, 5), (1, 4, 8, 1), (1, 2, 12, 7), (1, 2, 3, 4), (3, 1, 1, 1), (1, 2, 6)]
)
def test_pooling_is_the_definition(pooling, shape):
    maps = maps_of(shape)
    four = maps.numpy() if len(shape) == 4 else maps.numpy()[:, :, None]
    pooled = POOLINGS[pooling](maps)
    assert np.allclose(pooled.numpy(), slow_pool(four, pooling), atol=1e-6)
    bands = shape[2] if len(shape) == 4 else 0
    assert pooled.shape == (shape[0], pooled_size(shape[1], bands, pooling))


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    bands=st.sampled_from([0, 1, 8, 12]),
    seed=st.integers(0, 1000),
)
def test_combined_segments_are_the_joined_map(lengths, bands, seed):
    shape = (2, 3, bands) if bands else (2, 3)
    segments = [maps_of((*shape, n), seed + i) + i for i, n in enumerate(lengths)]
    pooled = [{p: POOLINGS[p](m) for p in POOLINGS} for m in segments]
    whole = torch.cat(segments, -1)
    combined = combine(pooled, lengths)
    for pooling, function in POOLINGS.items():
        assert torch.allclose(combined[pooling], function(whole), atol=2e-5), pooling


def test_combine_keeps_the_type_of_its_parts():
    parts = [{"mean": torch.ones(1, 2, dtype=torch.float64)}] * 2
    assert combine(parts, [1, 2])["mean"].dtype == torch.float64


def test_unknown_poolings_are_named():
    assert check_poolings(["max", "mean"]) == ("max", "mean")
    with pytest.raises(OssicleError, match="'median'.*mean, max, std, band"):
        check_poolings(["max", "median"])


@pytest.mark.parametrize("sizes", [[5, 3], [5, 7, 3], [4, 6, 5, 2]])
def test_head_is_linear_layers_with_relu_between(sizes):
    rng = np.random.default_rng(0)
    layers = [
        (rng.normal(size=(b, a)).astype(np.float32), rng.normal(size=b).astype(np.float32))
        for a, b in zip(sizes[:-1], sizes[1:], strict=True)
    ]
    head = Head.from_layers([(torch.from_numpy(w), torch.from_numpy(b)) for w, b in layers])
    assert head.sizes == tuple(sizes)
    x = rng.normal(size=(6, sizes[0])).astype(np.float32)
    expected = x
    for i, (weight, bias) in enumerate(layers):
        expected = (np.maximum(expected, 0) if i else expected) @ weight.T + bias
    with torch.inference_mode():
        assert np.allclose(head(torch.from_numpy(x)).numpy(), expected, atol=1e-5)
    assert count_parameters(head) == sum(w.size + b.size for w, b in layers)


@pytest.mark.parametrize("sizes", [[5, 3], [5, 7, 3]])
def test_frames_are_scored_one_by_one(sizes):
    generator = torch.Generator().manual_seed(0)
    head = Head.from_layers(
        [
            (torch.randn(b, a, generator=generator), torch.randn(b, generator=generator))
            for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        ]
    )
    maps = maps_of((2, 5, 4))
    expected = np.zeros((2, 3, 4))
    for item in range(2):
        for frame in range(4):
            x = maps[item, :, frame].double().numpy()
            for i, linear in enumerate(head.layers):
                weight, bias = (p.detach().double().numpy() for p in linear.parameters())
                x = weight @ (np.maximum(x, 0) if i else x) + bias
            expected[item, :, frame] = x
    with torch.inference_mode():
        assert np.allclose(head.frames(maps).numpy(), expected, atol=1e-5)


def test_head_from_layers_holds_copies():
    weight, bias = torch.ones(2, 3), torch.zeros(2)
    head = Head.from_layers([(weight, bias)])
    weight.zero_()
    assert head.layers[0].weight.sum() == 6


def test_head_refuses_layers_that_do_not_follow_on_each_other():
    first = (torch.ones(4, 3), torch.zeros(4))
    for second in ((torch.ones(2, 5), torch.zeros(2)), (torch.ones(2, 4), torch.zeros(3))):
        with pytest.raises(OssicleError, match="follow"):
            Head.from_layers([first, second])


@pytest.mark.parametrize("sizes", [[], [3], [0, 2], [3, 0]])
def test_head_refuses_no_sizes(sizes):
    with pytest.raises(OssicleError, match="head"):
        Head(sizes)


def test_activations():
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32) * 5
    expected = {"classes": softmax(logits, -1), "multilabel": expit(logits), "regression": logits}
    assert set(expected) == set(ACTIVATIONS)
    for task, want in expected.items():
        assert np.allclose(ACTIVATIONS[task](torch.from_numpy(logits)).numpy(), want, atol=1e-6)
