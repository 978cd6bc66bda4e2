"""The multiscale input: against zero-filled kernels by SciPy, and impulses for what it sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d

from ossicle import bundle
from ossicle.backbones.multiscale import DILATIONS, MultiscaleInput
from ossicle.errors import BundleError, OssicleError
from ossicle.heads import count_parameters
from ossicle.model import create_model

NAMES = ("densenet121", "resnet18", "resnet50")


def spread_kernel(kernel: np.ndarray, dilation: int) -> np.ndarray:
    """(3, 3) -> (2 d + 1, 2 d + 1): the taps with d - 1 zeros between them."""
    wide = np.zeros((2 * dilation + 1, 2 * dilation + 1))
    wide[::dilation, ::dilation] = kernel
    return wide


@pytest.mark.parametrize("size", [(64, 50), (64, 3), (5, 1), (1, 1)])
def test_each_map_is_a_correlation_with_a_spread_kernel(size):
    torch.manual_seed(0)
    block = MultiscaleInput()
    x = torch.randn(2, 1, *size)
    with torch.inference_mode():
        maps = block(x)
    assert maps.shape == (2, 4, *size)
    for i, dilation in enumerate((1, 2, 3, 4)):
        kernel = spread_kernel(block.scales[i].weight[0, 0].detach().numpy(), dilation)
        # "full", then cut: SciPy's "same" follows the larger of the two, here at times the kernel.
        for item in range(2):
            whole = correlate2d(x[item, 0].numpy(), kernel, mode="full")
            want = whole[dilation : dilation + size[0], dilation : dilation + size[1]]
            want = want + block.scales[i].bias.item()
            assert np.abs(maps[item, i].numpy() - want).max() < 1e-5


def test_impulse_shows_nine_taps_in_squares_of_3_5_7_9():
    block = MultiscaleInput()
    x = torch.zeros(1, 1, 31, 31)
    x[0, 0, 15, 15] = 1
    with torch.inference_mode():
        for scale in block.scales:
            scale.weight.fill_(1.0)
            scale.bias.zero_()
        maps = block(x)[0]
    assert len(DILATIONS) == 4
    for map_, side in zip(maps, (3, 5, 7, 9), strict=True):
        rows, columns = map_.nonzero(as_tuple=True)
        taps = {15 - side // 2, 15, 15 + side // 2}
        assert set(rows.tolist()) == set(columns.tolist()) == taps
        assert len(rows) == 9


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("multiscale", "side"), [(False, 7), (True, 15)])
def test_impulse_through_the_first_convolution(name, multiscale, side):
    """A value of conv1 sees 7 by 7 bins; behind the coarsest scale, of 9, it sees 9 + 7 - 1."""
    network = create_model(name, multiscale=multiscale).backbone
    x = torch.zeros(1, 1, 64, 64, requires_grad=True)
    # The gradient of one value is non-zero exactly where it looks. Its own sign must be positive.
    convolution = network.blocks["conv1"][0].requires_grad_(True)
    with torch.no_grad():
        convolution.weight.fill_(1.0)
    shown = network.blocks["multiscale"](x) if multiscale else x
    convolution(shown)[0, 0, 16, 16].backward()
    rows, columns = x.grad[0, 0].nonzero(as_tuple=True)
    # The 16th output of stride 2 lies on the 32nd input.
    for seen in (rows, columns):
        assert (seen.min(), seen.max()) == (32 - side // 2, 32 + side // 2)


@pytest.mark.parametrize("name", NAMES)
def test_the_block_is_the_first_layer_and_adds_nothing_else(name):
    plain, multi = create_model(name), create_model(name, multiscale=True)
    assert multi.layers == ("multiscale", *plain.layers)
    assert multi.backbone.feature_info[0][1:] == (4, 64, 1)
    assert multi.backbone.feature_info[1:] == plain.backbone.feature_info
    # Four kernels of nine weights and a bias; three more input channels for 64 kernels 7 by 7.
    added = 4 * (9 + 1) + 3 * 64 * 7 * 7
    assert count_parameters(multi.backbone) == count_parameters(plain.backbone) + added
    assert plain.backbone.config() == {"multiscale": False}
    assert multi.backbone.config() == {"multiscale": True}


@pytest.mark.parametrize("name", NAMES)
def test_multiscale_features_are_those_of_the_maps(name):
    """The inference copy, folded and packed, is the network."""
    model = create_model(name, multiscale=True)
    samples = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    features = model.clip_features(samples, poolings=["mean", "max"])
    with torch.inference_mode():
        maps = model.forward_layers(torch.from_numpy(samples)[None])
    for layer, map_ in maps.items():
        scale = map_.abs().max().item()
        for pooling, want in (("mean", map_.mean((2, 3))), ("max", map_.amax((2, 3)))):
            got = features[f"{layer}/{pooling}"]
            assert np.abs(got - want[0].numpy()).max() <= 2e-5 * scale, (layer, pooling)


def test_a_bundle_rebuilds_the_block(tmp_path):
    model = create_model("resnet18", multiscale=True, seed=2)
    loaded = bundle.load(bundle.save(model, tmp_path / "model"))
    assert loaded.backbone.config() == {"multiscale": True}
    samples = np.random.default_rng(1).normal(0, 0.1, 8_000).astype(np.float32)
    want = model.clip_features(samples)
    for block, values in loaded.clip_features(samples).items():
        assert np.array_equal(values, want[block]), block


def test_a_bundle_with_another_kind_of_value_is_refused(tmp_path):
    folder = bundle.save(create_model("resnet18", multiscale=True), tmp_path / "model")
    config = folder / "config.json"
    text = config.read_text(encoding="utf-8")
    assert '"multiscale": true' in text
    config.write_text(text.replace('"multiscale": true', '"multiscale": "yes"'), encoding="utf-8")
    with pytest.raises(BundleError, match="multiscale"):
        bundle.load(folder)


def test_unknown_keywords_are_refused():
    with pytest.raises(OssicleError, match="scales"):
        create_model("resnet50", scales=4)
