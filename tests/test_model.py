"""A model as one thing: its numbers, its modes, its copies, and how it is made."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from ossicle.backbones import BACKBONES, WEIGHTS
from ossicle.backbones.clip_policy import ClipPolicy
from ossicle.errors import OssicleError
from ossicle.heads import Head
from ossicle.model import Model, create_model, list_models


def noise(seconds: float, rate: int = 16_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * rate)).astype(np.float32)


def with_head(
    base: Model, readout: tuple[str, ...], sizes: tuple[int, ...] = (3,), **keywords
) -> Model:
    """A copy with a random head on the given blocks."""
    width = sum(base.block_sizes(readout).values())
    torch.manual_seed(0)
    keywords = {"classes": [f"c{i}" for i in range(sizes[-1])], **keywords}
    return Model(
        copy.deepcopy(base.frontend),
        copy.deepcopy(base.backbone),
        clip=base.clip,
        readout=readout,
        head=Head([width, *sizes]),
        **keywords,
    ).eval()


@pytest.fixture(scope="module")
def yamnet() -> Model:
    return create_model("yamnet", pretrained=True)


@pytest.fixture
def fresh() -> Model:
    """A small network that a test may change."""
    return create_model("yamnet", seed=1)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


# --- numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("readout", [("pointwise14/mean",), ("pointwise7/band", "conv1/max")])
def test_forward_is_clip_scores_for_one_window(yamnet, readout):
    model = with_head(yamnet, readout, (4, 3)).requires_grad_(False)
    samples = noise(3)
    with torch.inference_mode():
        logits = model(torch.from_numpy(samples)[None])[0].numpy()
    assert np.allclose(softmax(logits), model.clip_scores(samples), atol=1e-6)
    # The head reads its blocks in the order of the read-out, not of the network.
    blocks = model.clip_features(samples)
    vector = torch.from_numpy(np.concatenate([blocks[name] for name in readout]))
    assert np.allclose(model.head(vector).detach().numpy(), logits, atol=1e-5)


def test_features_do_not_depend_on_what_else_is_asked(yamnet):
    samples = noise(1.5)
    everything = yamnet.clip_features(samples, poolings=("mean", "max", "std", "band"))
    for layer in ("conv1", "pointwise9"):
        for pooling in ("mean", "max", "std", "band"):
            alone = yamnet.clip_features(samples, [layer], [pooling])
            assert list(alone) == [f"{layer}/{pooling}"]
            assert np.array_equal(alone[f"{layer}/{pooling}"], everything[f"{layer}/{pooling}"])
    shuffled = yamnet.clip_features(samples, ["pointwise9", "conv1"], ["max"])
    assert list(shuffled) == ["conv1/max", "pointwise9/max"]


def test_every_second_weighs_the_same_though_parts_are_filled_up():
    """59 s in windows of 29 s: one whole part, then two of 15 s, each repeated to 29 s."""
    model = create_model("choi_convnet", seed=0)
    samples = noise(59, 12_000)
    edges = [0, 29 * 12_000, 44 * 12_000, 59 * 12_000]
    parts = [
        model.clip_features(samples[a:b], ["block1"], ["mean"])["block1/mean"]
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
    expected = (29 * parts[0] + 15 * parts[1] + 15 * parts[2]) / 59
    whole = model.clip_features(samples, ["block1"], ["mean"])["block1/mean"]
    assert np.allclose(whole, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.astype(np.float64),
        lambda x: np.repeat(x, 2)[::2],
        lambda x: x[::-1][::-1],
        lambda x: np.frombuffer(x.tobytes(), np.float32),
    ],
    ids=["float64", "strided", "reversed twice", "read-only"],
)
def test_any_array_of_the_same_numbers_gives_the_same(yamnet, view):
    samples = noise(1)
    expected = yamnet.clip_features(samples, ["conv1"])
    assert same(yamnet.clip_features(view(samples), ["conv1"]), expected)
    assert same(yamnet.clip_features(view(samples[::-1])[::-1], ["conv1"]), expected)


def test_two_axes_are_refused_and_no_samples_are_silence(yamnet):
    with pytest.raises(OssicleError, match=r"\(N,\)"):
        yamnet.clip_features(np.zeros((1, 16_000), np.float32))
    with pytest.raises(OssicleError, match="median"):
        yamnet.clip_features(noise(1), poolings=["median"])
    nothing = yamnet.clip_features(np.zeros(0, np.float32))
    assert same(nothing, yamnet.clip_features(np.zeros(15_600, np.float32)))


# --- weights that change, modes, copies ------------------------------------------------------


def changed_by(model: Model, change) -> bool:
    """Whether features after a change are those of a model that was never used before it."""
    samples = noise(1)
    before = model.clip_features(samples)
    change(model)
    after = model.clip_features(samples)
    clean = copy.deepcopy(model)
    clean._folded = None
    assert same(after, clean.clip_features(samples)), "features of weights that are gone"
    return not same(before, after)


def test_features_follow_loaded_weights(fresh):
    other = create_model("yamnet", seed=2)
    assert changed_by(fresh, lambda m: m.load_state_dict(other.state_dict()))
    assert same(fresh.clip_features(noise(1)), other.clip_features(noise(1)))


def test_features_follow_weights_that_are_put_in_place(fresh):
    other = create_model("yamnet", seed=2)
    assert changed_by(fresh, lambda m: m.load_state_dict(other.state_dict(), assign=True))


def test_features_follow_one_weight_changed_in_place(fresh):
    def scale(model: Model) -> None:
        with torch.no_grad():
            model.backbone.blocks["conv1"][0].weight[0] *= 2

    assert changed_by(fresh, scale)


def test_features_follow_stored_statistics(fresh):
    def shift(model: Model) -> None:
        model.backbone.blocks["conv1"][1].running_mean.add_(0.5)

    assert changed_by(fresh, shift)


def test_features_follow_training(fresh):
    fresh.requires_grad_(True)
    optimiser = torch.optim.SGD(fresh.parameters(), lr=0.1)

    def step(model: Model) -> None:
        model.train()
        maps = model.forward_layers(torch.from_numpy(noise(1))[None].repeat(2, 1))
        maps["pointwise14"].mean().backward()
        optimiser.step()

    assert changed_by(fresh, step)


def test_nothing_changed_means_nothing_folded_again(fresh):
    fresh.clip_features(noise(1))
    first = fresh._folded
    fresh.train().eval()
    fresh.clip_features(noise(1))
    assert fresh._folded is first


def test_stored_statistics_also_in_training_mode(fresh):
    samples = noise(2)
    expected = fresh.clip_features(samples)
    state = {name: t.clone() for name, t in fresh.state_dict().items()}
    fresh.train()
    assert same(fresh.clip_features(samples), expected)
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    # Training itself does use the batch, and learns from it.
    fresh.forward_layers(torch.from_numpy(samples)[None].repeat(2, 1))
    assert not torch.equal(
        fresh.backbone.blocks["conv1"][1].running_mean,
        state["backbone.blocks.conv1.1.running_mean"],
    )


def test_gradients_reach_the_waveform_after_inference(fresh):
    fresh.clip_features(noise(1))
    waveform = torch.from_numpy(noise(1))[None].requires_grad_()
    fresh.forward_layers(waveform)["pointwise14"].sum().backward()
    assert waveform.grad.abs().sum() > 0


def test_gradients_reach_the_weights_of_a_network_to_fine_tune(fresh):
    model = with_head(fresh, ("pointwise14/mean",))
    model.clip_features(noise(1))
    model.requires_grad_(True)
    model(torch.from_numpy(noise(1))[None]).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_folded_network_is_no_part_of_the_model(fresh):
    names, count = list(fresh.state_dict()), len(list(fresh.modules()))
    fresh.clip_features(noise(1))
    assert fresh._folded is not None
    assert list(fresh.state_dict()) == names
    assert len(list(fresh.modules())) == count
    assert fresh.num_parameters == sum(p.numel() for p in fresh.parameters())


def test_copies_stand_alone(fresh):
    samples = noise(1)
    expected = fresh.clip_features(samples)
    twin = copy.deepcopy(fresh)
    assert twin._folded is None
    assert same(twin.clip_features(samples), expected)
    with torch.no_grad():
        twin.backbone.blocks["conv1"][0].weight.zero_()
    assert not same(twin.clip_features(samples), expected)
    assert same(fresh.clip_features(samples), expected)


def test_threads_share_a_model_from_the_first_call():
    samples = noise(1)
    expected = create_model("yamnet", seed=5).clip_features(samples)
    model = create_model("yamnet", seed=5)
    results: list[dict | None] = [None] * 8
    barrier = threading.Barrier(8)

    def work(i: int) -> None:
        torch.set_num_threads(1)
        barrier.wait()
        results[i] = model.clip_features(samples)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        assert result is not None
        assert same(result, expected)


def test_the_folded_network_follows_to_another_device(fresh):
    """The meta device computes shapes alone, and refuses to mix with the processor's tensors."""
    fresh.clip_features(noise(1))
    fresh.to("meta")
    assert fresh.device.type == "meta"
    maps = fresh._folded_backbone()(torch.zeros(1, 1, 64, 96, device="meta"))
    assert maps["pointwise14"].shape == (1, 1024, 2, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_gives_nearly_the_same_numbers(yamnet):
    expected = yamnet.clip_scores(noise(12))
    moved = copy.deepcopy(yamnet).to("cuda")
    assert np.allclose(moved.clip_scores(noise(12)), expected, atol=1e-2)
    assert np.array_equal(moved.to("cpu").clip_scores(noise(12)), expected)


# --- what is refused -------------------------------------------------------------------------


def test_a_model_that_does_not_fit_together_is_refused(yamnet):
    last = ("pointwise14/mean",)

    def build(readout=last, sizes=(1024, 3), classes=("a", "b", "c"), task="classes"):
        head = Head(sizes) if sizes else None
        clip = ClipPolicy(10, 1)
        args = dict(readout=readout, head=head, classes=classes, task=task)
        return Model(yamnet.frontend, yamnet.backbone, clip=clip, **args)

    build()
    build(sizes=(1024, 1), classes=(), task="regression")
    for wrong, words in (
        ({"sizes": (1023, 3)}, "1023.*1024"),
        ({"classes": ("a", "b")}, "3 outputs for 2"),
        ({"task": "poetry"}, "unknown task 'poetry'"),
        ({"readout": ("pointwise15/mean",)}, "pointwise15/mean"),
        ({"readout": ("pointwise14/median",)}, "pointwise14/median"),
        ({"readout": ("pointwise14",)}, "LAYER/POOLING"),
        ({"readout": (*last, *last), "sizes": (2048, 3)}, "twice"),
        ({"readout": ("nowhere/mean",), "sizes": None}, "nowhere"),
    ):
        with pytest.raises(OssicleError, match=words):
            build(**wrong)


def test_a_representation_alone_has_no_scores(fresh):
    for ask in (
        lambda: fresh.clip_scores(noise(1)),
        lambda: fresh(torch.zeros(1, 16_000)),
        lambda: fresh.scores_from_blocks({}),
    ):
        with pytest.raises(OssicleError, match="no head.*ossicle train"):
            ask()


# --- choosing layers -------------------------------------------------------------------------

N_LAYERS = 27


def wanted() -> st.SearchStrategy:
    """A part of the grammar, as text or integer, and the indices that it stands for."""
    number = st.integers(1, N_LAYERS)
    return st.one_of(
        st.just(("all", range(N_LAYERS))),
        st.just(("last", range(N_LAYERS - 1, N_LAYERS))),
        number.map(lambda i: (i, range(i - 1, i))),
        number.map(lambda i: (str(i), range(i - 1, i))),
        number.map(lambda i: (-i, range(N_LAYERS - i, N_LAYERS - i + 1))),
        st.tuples(number, number)
        .map(sorted)
        .map(lambda ab: (f"{ab[0]}-{ab[1]}", range(ab[0] - 1, ab[1]))),
        st.sampled_from(list(enumerate(create_model("yamnet").layers))).map(
            lambda pair: (pair[1], range(pair[0], pair[0] + 1))
        ),
    )


@settings(deadline=None)
@given(parts=st.lists(wanted(), min_size=1, max_size=5), as_text=st.booleans(), space=st.booleans())
def test_layers_are_chosen_by_the_grammar(yamnet, parts, as_text, space):
    expected = sorted({i for _, chosen in parts for i in chosen})
    asked = [text for text, _ in parts]
    if as_text:
        asked = (", " if space else ",").join(map(str, asked))
    assert yamnet.select_layers(asked) == tuple(yamnet.layers[i] for i in expected)


@settings(deadline=None)
@given(text=st.text(alphabet="0123456789-, alstx", max_size=8))
def test_any_other_text_gives_layers_or_one_error(yamnet, text):
    try:
        chosen = yamnet.select_layers(text)
    except OssicleError as error:
        assert "\n" not in str(error)
    else:
        assert chosen
        assert set(chosen) <= set(yamnet.layers)


@pytest.mark.parametrize(
    "layers",
    ["", "0", "28", "-28", "5-1", "1-28", "0-3", "1-", "-", "conv", "1.5", "1,,2", [], [0]],
)
def test_no_such_layer(yamnet, layers):
    with pytest.raises(OssicleError, match="layer"):
        yamnet.select_layers(layers)


def test_one_integer_is_a_choice(yamnet):
    assert yamnet.select_layers(1) == ("conv1",)
    assert yamnet.select_layers(-1) == ("pointwise14",)


# --- making models ---------------------------------------------------------------------------


def test_list_models_by_pattern():
    assert list_models() == sorted(BACKBONES)
    assert list_models("*net") == ["choi_convnet", "yamnet"]
    assert list_models("m*") == ["mel", "mfcc", "mobilenet_v2", "musicnn", "musicnn_msd"]
    assert list_models("yamnet") == ["yamnet"]
    assert list_models("nothing*") == []
    assert list_models(pretrained=True) == sorted(WEIGHTS)
    assert list_models("choi*", pretrained=True) == []


def test_unknown_names_and_keywords():
    with pytest.raises(OssicleError, match="'yamnett'.*yamnet"):
        create_model("yamnett")
    with pytest.raises(OssicleError, match="choi_convnet has no published weights.*yamnet"):
        create_model("choi_convnet", pretrained=True)
    with pytest.raises(OssicleError, match="depth"):
        create_model("yamnet", depth=3)


def test_making_a_model_draws_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    create_model("choi_convnet", seed=4)
    create_model("yamnet", pretrained=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_made_model_is_frozen_and_labelled():
    model = create_model("yamnet", pretrained=True)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert model.info["licence"] == "Apache-2.0"
    assert model.info["pretrained"] is True
    assert "seed 7" in create_model("yamnet", seed=7).info["weights"]
    assert create_model("mel").info["weights"] == "none"
