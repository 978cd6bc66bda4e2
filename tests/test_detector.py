"""A detector: frames and clips against slow definitions, windows, bundles, and how it is made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from torch import nn

from ossicle import bundle
from ossicle.backbones import weights
from ossicle.backbones.clip_policy import ClipPolicy
from ossicle.backbones.frame_crnn import FrameCRNN
from ossicle.card import plain_card
from ossicle.detector import Detector, create_detector, pool_frames
from ossicle.errors import BundleError, OssicleError
from ossicle.heads import Head
from ossicle.model import Model, create_model
from ossicle.novelty import Novelty
from ossicle.predict import predict

RATE = 16_000
SMALL = {"channels": 8, "hidden": 6, "width": 8, "dropout": 0.0}
KINDS = {
    "log-mel": {"base": None, **SMALL},
    "yamnet": {"base": "yamnet", "pretrained": False, **SMALL},
    "linear softmax": {"base": None, "attention": False, **SMALL},
    "crnn": {"backbone": "crnn", "channels": 4, "hidden": 6, "dense": 5},
}


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * RATE)).astype(np.float32)


def lively(kind: str, classes=("a", "b", "c")) -> Detector:
    """Heads that tell frames apart."""
    detector = create_detector(classes, **KINDS[kind])
    generator = torch.Generator().manual_seed(5)
    for part in (detector.head, detector.attention):
        if part is not None:
            for tensor in part.parameters():
                nn.init.normal_(tensor, 0, 3, generator=generator)
    return detector


@pytest.fixture(scope="module", params=KINDS)
def detector(request) -> Detector:
    return lively(request.param)


# --- pooling of frames ------------------------------------------------------------------------


def slow_pool(z: np.ndarray, v: np.ndarray | None, own: np.ndarray | None = None) -> np.ndarray:
    """(K, T) -> (K,): the sums of the definition, one frame at a time."""
    result = []
    for k in range(len(z)):
        top = bottom = 0.0
        for t in range(z.shape[1]):
            if own is not None and not own[t]:
                continue
            p = 1 / (1 + np.exp(-z[k, t]))
            w = p if v is None else np.exp(v[k, t])
            top, bottom = top + w * p, bottom + w
        result.append(top / bottom)
    return np.array(result)


@pytest.mark.parametrize("attention", [True, False])
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    k=st.integers(1, 4),
    t=st.integers(1, 9),
    scale=st.sampled_from([0.1, 2, 10]),
)
def test_pooling_is_its_definition(attention, seed, k, t, scale):
    rng = np.random.default_rng(seed)
    z, v = rng.normal(0, scale, (2, k, t))
    own = rng.random(t) < 0.6
    own[rng.integers(t)] = True
    v_or_none = v if attention else None
    weights = torch.from_numpy(v)[None] if attention else None
    got = pool_frames(torch.from_numpy(z)[None], weights)
    assert np.allclose(expit(got[0].numpy()), slow_pool(z, v_or_none), atol=1e-9)
    masked = pool_frames(torch.from_numpy(z)[None], weights, torch.from_numpy(own)[None, None])
    assert np.allclose(expit(masked[0].numpy()), slow_pool(z, v_or_none, own), atol=1e-9)


def test_pooling_at_its_limits():
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(size=(1, 2, 6)))
    # Frames alike: their own value, whatever counts more.
    alike = torch.full((1, 1, 6), 1.7)
    for w in (None, torch.randn(1, 1, 6)):
        assert torch.allclose(pool_frames(alike, w), torch.tensor(1.7))
    # All attention on one frame: that one. None at all preferred: the mean.
    spike = torch.zeros_like(z)
    spike[..., 3] = 1000
    assert torch.allclose(pool_frames(z, spike), z[..., 3])
    mean = expit(z.numpy()).mean(-1)
    assert np.allclose(pool_frames(z, torch.zeros_like(z)), logit(mean))
    # Where float32 has rounded every probability to 0 or 1, a step of all frames still counts 1.
    for far in ([200.0, 202.0, 199.0], [-200.0, -202.0, -199.0], [60.0, 61.0, 59.0]):
        frames = torch.tensor([[far]], requires_grad=True)
        for w in (None, torch.zeros(1, 1, 3)):
            pooled = pool_frames(frames, w)
            (gradient,) = torch.autograd.grad(pooled.sum(), frames)
            assert min(far) - 2 < pooled.item() < max(far) + 2
            assert gradient.sum().item() == pytest.approx(1, abs=1e-4)
    mixed = torch.tensor([[[200.0, -200.0, 150.0]]])
    assert pool_frames(mixed, torch.zeros(1, 1, 3)).item() == pytest.approx(logit(2 / 3), abs=1e-4)


# --- one window -------------------------------------------------------------------------------


def test_frames_and_clip_are_those_of_the_network(detector):
    samples = noise(3)
    with torch.no_grad():
        strong, weak = detector.frame_logits(torch.from_numpy(samples)[None])
        logits = detector(torch.from_numpy(samples)[None])
    scores = detector.frame_scores(samples)
    assert scores.scores.dtype == np.float32
    assert scores.scores.shape == (3, strong.shape[-1])
    assert np.allclose(scores.scores, expit(strong[0].numpy()), atol=1e-5)
    assert torch.equal(weak, logits)
    clip = detector.clip_scores(samples)
    assert clip.shape == (3,)
    assert np.allclose(clip, expit(logits[0].numpy()), atol=1e-5)
    # Every frame by itself, from the last map: the head's equation in NumPy.
    with torch.no_grad():
        last = detector.forward_layers(torch.from_numpy(samples)[None])[detector.layers[-1]][0]
    heads = [detector.head, detector.attention]
    z, v = (
        None
        if head is None
        else head.layers[0].weight.detach().numpy() @ last.numpy()
        + head.layers[0].bias.detach().numpy()[:, None]
        for head in heads
    )
    assert np.allclose(strong[0].numpy(), z, atol=1e-4)
    assert np.allclose(clip, slow_pool(z.astype(float), v), atol=1e-4)
    assert np.ptp(scores.scores) > 0.05


@pytest.mark.parametrize("seconds", [0.0, 1 / RATE, 0.02, 0.3, 0.98, 1.0, 2.5, 9.99, 10.0])
def test_frames_follow_each_other_to_the_end(detector, seconds):
    samples = noise(seconds)
    hop = detector.frame_hop_s
    scores = detector.frame_scores(samples)
    n = scores.scores.shape[1]
    assert scores.edges.shape == (n + 1,)
    assert scores.edges.dtype == np.float64
    assert np.allclose(scores.edges[:-1], hop * np.arange(n), atol=1e-12)
    assert scores.edges[-1] == len(samples) / RATE
    # All of them begin inside. The last may be longer: what is after it fills no frame.
    assert n == 1 or scores.edges[-2] < seconds
    assert scores.edges[-1] - scores.edges[-2] < 2 * hop + 0.04
    assert np.isfinite(scores.scores).all()
    assert scores.scores.min() >= 0
    assert scores.scores.max() <= 1


def test_hops_are_those_of_front_end_and_network():
    assert create_detector(["a"], **KINDS["log-mel"]).frame_hop_s == pytest.approx(0.04)
    fine = create_detector(["a"], base=None, hop_frames=1, **SMALL)
    assert fine.frame_hop_s == pytest.approx(0.01)
    assert create_detector(["a"], **KINDS["crnn"]).frame_hop_s == pytest.approx(0.02)


def loudness_meter(**config) -> Detector:
    """A detector whose frames hear themselves alone: no memory, and convolutions of one frame."""
    detector = create_detector(["loud"], base=None, attention=False, **{**SMALL, **config})
    network = detector.backbone
    assert isinstance(network, FrameCRNN)
    with torch.no_grad():
        for block in network.convolutions.values():
            block[0].weight.zero_()[:, :, 1, 1] = 1 / block[0].weight.shape[1]
        network.mel_mean.fill_(-7)
        for gru in network.recurrent.values():
            for name, tensor in gru.named_parameters():
                tensor.zero_()
                if name.startswith("weight_ih"):
                    tensor[2 * gru.hidden_size :] = 0.1 / tensor.shape[1]
                if name.startswith("bias_ih"):
                    tensor[gru.hidden_size : 2 * gru.hidden_size] = -40  # forget at once
        detector.head.layers[0].weight.fill_(1e3)
        detector.head.layers[0].bias.fill_(-8)
    return detector


@pytest.mark.parametrize("hop_frames", [1, 2, 4, 8])
def test_a_click_shows_when_it_is(hop_frames):
    detector = loudness_meter(hop_frames=hop_frames)
    hop = detector.frame_hop_s
    for at_s in (0.113, 1.5, 4.02, 7.777, 13.4, 17.9):
        samples = np.zeros(20 * RATE, np.float32)
        samples[round(at_s * RATE)] = 1.0
        scores, edges = detector.frame_scores(samples)
        # The front end hears 25 ms from each frame's beginning: a click is in up to 3 of 10 ms.
        loudest = np.flatnonzero(scores[0] > scores[0].min() + 0.5 * np.ptp(scores[0]))
        middle = (edges[loudest[0]] + edges[loudest[-1] + 1]) / 2
        assert abs(middle - at_s) <= hop / 2 + 0.0151
        assert len(loudest) <= 1 + -(-0.025 // hop)


# --- longer than a window ---------------------------------------------------------------------


def slow_joined(detector: Detector, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K, T) scores and where from: overlap-add of windows, a frame at a time."""
    hop = round(detector.frame_hop_s * RATE)
    window = round(detector.clip.window_s * RATE)
    assert window % hop == 0
    starts = [0]
    while starts[-1] + window < len(samples):
        step = round(0.75 * window / hop) * hop
        rest = -(-(len(samples) - window) // hop) * hop
        starts.append(min(starts[-1] + step, rest))
    sums: dict[int, np.ndarray] = {}
    total: dict[int, float] = {}
    for start in starts:
        part = detector.frame_scores(samples[start : start + window]).scores
        n = part.shape[1]
        for j in range(n):
            weight = min(j + 0.5, n - j - 0.5, 0.25 * n)
            t = start // hop + j
            sums[t] = sums.get(t, 0) + weight * part[:, j].astype(float)
            total[t] = total.get(t, 0) + weight
    return np.stack([sums[t] / total[t] for t in sorted(sums)], 1), np.array(starts)


@pytest.mark.parametrize("seconds", [10.01, 12.3, 17.5, 25.0, 97.6])
def test_long_stretches_are_overlapped_windows(detector, seconds):
    samples = noise(seconds, seed=3)
    want, starts = slow_joined(detector, samples)
    scores, edges = detector.frame_scores(samples)
    assert scores.shape == want.shape
    assert np.abs(scores - want).max() < 2e-5
    assert edges[-1] == len(samples) / RATE
    assert np.allclose(edges[:-1], detector.frame_hop_s * np.arange(len(edges) - 1))
    assert len(starts) == 1 + np.ceil((len(samples) / RATE - 10) / 7.5)
    assert detector.context_s == 2.5


def test_no_border_shows():
    """A score that hears its own frame alone is the same wherever windows lie."""
    detector = loudness_meter()
    samples = np.tile(noise(0.04), 500)  # every frame alike
    with torch.no_grad():
        detector.head.layers[0].weight.fill_(10)
        strong, _ = detector.frame_logits(torch.from_numpy(samples[: 2 * RATE])[None])
        detector.head.layers[0].bias -= strong[0, 0, 25]
    # The last frame is half as long.
    assert np.allclose(detector.frame_scores(samples).scores[0, :-1], 0.5, atol=1e-5)
    assert detector.frame_scores(2 * samples).scores.min() > 0.51


def test_a_long_clip_is_pooled_over_all_of_its_frames(detector):
    samples = noise(23, seed=1)
    scores = detector.frame_scores(samples).scores.astype(float)
    clip = detector.clip_scores(samples)
    assert ((clip > scores.min(1)) & (clip < scores.max(1))).all()
    if detector.attention is None:
        assert np.allclose(clip, (scores**2).sum(1) / scores.sum(1), atol=1e-5)
    loud = samples.copy()
    loud[-RATE:] *= 3
    assert not np.allclose(detector.clip_scores(loud), clip, atol=1e-7)


def test_attention_of_windows_is_joined_too():
    """Two heads that are the same linear map: weights exp(z), whichever way windows are cut."""
    detector = lively("log-mel")
    assert detector.attention is not None
    detector.attention.load_state_dict(detector.head.state_dict())
    detector.clip = ClipPolicy(4.0, 0.1)
    samples = noise(9, seed=2)
    hop = round(detector.frame_hop_s * RATE)
    top = bottom = 0.0
    values: dict[int, list] = {}
    for start in (0, 3 * RATE, 5 * RATE):
        with torch.no_grad():
            z, _ = detector.frame_logits(torch.from_numpy(samples[start : start + 4 * RATE])[None])
        n = z.shape[-1]
        for j in range(n):
            weight = min(j + 0.5, n - j - 0.5, 0.25 * n)
            values.setdefault(start // hop + j, []).append((weight, z[0, :, j].double().numpy()))
    for pairs in values.values():
        share = np.array([weight for weight, _ in pairs]) / sum(weight for weight, _ in pairs)
        z = np.array([z for _, z in pairs])
        top = top + np.exp(share @ z) * (share @ expit(z))
        bottom = bottom + np.exp(share @ z)
    assert np.allclose(detector.clip_scores(samples), top / bottom, atol=1e-4)


def test_nothing_else_changes_the_numbers(detector):
    """Neither what was heard before, nor how the array lies in memory, nor training mode."""
    samples = noise(13, seed=4)
    first = detector.frame_scores(samples).scores
    clip = detector.clip_scores(samples)
    detector.frame_scores(100 * noise(31, seed=9))
    wide = np.stack([samples, samples], 1)[:, 0]
    assert not wide.flags["C_CONTIGUOUS"]
    detector.train()
    try:
        assert np.array_equal(detector.frame_scores(wide).scores, first)
        assert np.array_equal(detector.clip_scores(samples.astype(np.float64)), clip)
    finally:
        detector.eval()
    for wrong in (samples[None], np.float32(0.5)):
        with pytest.raises(OssicleError, match=r"\(N,\)"):
            detector.frame_scores(wrong)


# --- training ---------------------------------------------------------------------------------


def test_what_is_kept_of_the_front_gives_the_same_logits(detector):
    waveform = torch.from_numpy(np.stack([noise(2), noise(2, 1)]))
    parts = detector.front(waveform)
    assert not any(part.requires_grad for part in parts.values())
    strong, weak = detector.logits_of_front(parts)
    want, want_weak = detector.frame_logits(waveform)
    assert torch.allclose(strong, want, atol=1e-4)
    assert torch.allclose(weak, want_weak, atol=1e-4)
    # Frames that stand for silence at the end do not count for the clip.
    n_frames = torch.tensor([7, strong.shape[-1]])
    _, counted = detector.logits_of_front(parts, n_frames)
    assert torch.allclose(counted[1], weak[1])
    attention = None
    if detector.attention is not None:
        last = detector.forward_layers(waveform)[detector.layers[-1]]
        attention = detector.attention.frames(last)[0, :, :7].detach().double().numpy()
    expected = slow_pool(strong[0, :, :7].detach().double().numpy(), attention)
    assert np.allclose(expit(counted[0].detach().numpy()), expected, atol=1e-4)


def test_gradients_reach_all_but_the_base():
    detector = lively("yamnet")
    detector.requires_grad_(False).requires_grad_(True).train()
    strong, weak = detector.frame_logits(torch.from_numpy(np.stack([noise(2), noise(2, 1)])))
    (strong.square().mean() + weak.square().mean()).backward()
    for name, parameter in detector.named_parameters():
        inside = name.startswith("backbone.base.")
        assert parameter.requires_grad is not inside, name
        assert (parameter.grad is None) is inside, name
    detector.requires_grad_(False)
    assert not any(p.requires_grad for p in detector.parameters())


def test_a_few_steps_learn_to_hear_tones():
    """Loss falls, and frames with the tone score above frames without, in a clip not trained on."""
    rng = np.random.default_rng(0)
    detector = create_detector(["low", "high"], seed=1, **{**KINDS["log-mel"], "hidden": 16})

    def clip() -> tuple[np.ndarray, np.ndarray]:
        samples = 0.01 * rng.normal(size=2 * RATE)
        target = np.zeros((2, 50), np.float32)
        for k, pitch in enumerate((400, 3000)):
            first = rng.integers(5, 30)
            t = np.arange(15 * 640) / RATE
            samples[first * 640 : first * 640 + len(t)] += 0.1 * np.sin(2 * np.pi * pitch * t)
            target[k, first : first + 15] = 1
        return samples.astype(np.float32), target

    clips = [clip() for _ in range(8)]
    fronts = [detector.front(torch.from_numpy(x)[None]) for x, _ in clips]
    detector.fit_statistics(fronts)
    parts = {name: torch.cat([f[name] for f in fronts]) for name in fronts[0]}
    targets = torch.from_numpy(np.stack([y for _, y in clips]))
    optimiser = torch.optim.Adam([p for p in detector.parameters() if p.requires_grad], 0.01)
    detector.train()
    for _ in range(30):
        strong, weak = detector.logits_of_front(parts)
        loss = nn.functional.binary_cross_entropy_with_logits(
            strong, targets[..., : strong.shape[-1]]
        )
        loss = loss + nn.functional.binary_cross_entropy_with_logits(weak, targets.amax(-1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    samples, target = clip()
    scores = detector.frame_scores(samples).scores
    target = target[:, : scores.shape[1]] > 0
    for k in range(2):
        assert scores[k][target[k]].mean() > scores[k][~target[k]].mean() + 0.4


# --- how it is made ---------------------------------------------------------------------------


def test_the_base_has_its_published_weights():
    detector = create_detector(["a", "b"], seed=3, **SMALL)
    published = create_model("yamnet", pretrained=True)
    assert isinstance(detector.backbone, FrameCRNN)
    for name, tensor in published.backbone.state_dict().items():
        assert torch.equal(detector.backbone.base.state_dict()[name], tensor)
    for key in ("licence", "origin"):
        assert detector.info[key] == published.info[key]
    assert published.info["weights"] in detector.info["weights"]
    assert detector.info["pretrained"]
    assert (detector.task, detector.framewise, detector.classes) == ("multilabel", True, ("a", "b"))
    assert not published.framewise
    # 97 frames, 1 more than a multiple of 32: nothing is added, and the layers are YAMNet's own.
    waveform = torch.from_numpy(noise((400 + 96 * 160) / RATE))[None]
    with torch.no_grad():
        parts = detector.front(waveform)
        maps = published.forward_layers(waveform)
    assert torch.equal(parts["mel"], published.frontend(waveform))
    for name in ("pointwise2", "pointwise14"):
        assert torch.allclose(parts[name], maps[name].mean(2), atol=1e-5)


def test_a_base_of_ones_own():
    own = create_model("yamnet", seed=11)
    detector = create_detector(["a"], base=own, **SMALL)
    for name, tensor in own.backbone.state_dict().items():
        assert torch.equal(detector.backbone.base.state_dict()[name], tensor)
    assert not detector.info["pretrained"]
    for wrong in (create_model("mel"), create_model("crnn"), create_model("resnet18", width=0.5)):
        with pytest.raises(OssicleError, match="frames are read from"):
            create_detector(["a"], base=wrong, **SMALL)


def test_all_random_weights_follow_the_seed_and_draw_from_nobody():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, again, other = (
        create_detector(["a"], seed=seed, **KINDS["yamnet"]).state_dict() for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    for name in ("head.layers.0.weight", "attention.layers.0.weight", "backbone.projection.weight"):
        assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"classes": []}, "at least one class"),
        ({"backbone": "yamnet"}, "without bands"),
        ({"backbone": "nowhere"}, "nowhere"),
        ({"base": "nowhere"}, "unknown base"),
        ({"wings": 2}, "wings"),
        ({"hop_frames": 5}, "hop_frames"),
    ],
)
def test_what_cannot_be_made_is_refused(keywords, says):
    with pytest.raises(OssicleError, match=says):
        create_detector(**{"classes": ["a"], "pretrained": False, **keywords})


def test_heads_that_do_not_fit_are_refused():
    made = create_model("crnn")
    parts = {"clip": made.clip, "classes": ["a", "b"]}
    for heads in (
        {"head": Head([31, 2])},
        {"head": Head([32, 3])},
        {"head": Head([32, 2]), "attention": Head([32, 3])},
        {"head": Head([32, 2]), "attention": Head([31, 2])},
    ):
        with pytest.raises(OssicleError):
            Detector(made.frontend, made.backbone, **parts, **heads)
    whole = Detector(made.frontend, made.backbone, head=Head([32, 7, 2]), **parts)
    assert whole.frame_scores(noise(1)).scores.shape[0] == 2
    with pytest.raises(OssicleError, match="clip_scores"):
        whole.scores_from_blocks(whole.clip_features(noise(1)))


# --- bundles ----------------------------------------------------------------------------------


def test_a_loaded_detector_gives_the_same_numbers(detector, tmp_path, monkeypatch):
    folder = bundle.save(detector, tmp_path / "model")

    def refuse() -> None:
        raise AssertionError("a bundle asked for weights from elsewhere")

    monkeypatch.setattr(weights, "load_yamnet", refuse)
    loaded = bundle.load(folder)
    assert type(loaded) is Detector
    for seconds in (0.02, 3.0, 14.2):
        samples = noise(seconds)
        scores, edges = detector.frame_scores(samples)
        assert np.array_equal(loaded.frame_scores(samples).scores, scores)
        assert np.array_equal(loaded.frame_scores(samples).edges, edges)
        assert np.array_equal(loaded.clip_scores(samples), detector.clip_scores(samples))
    assert (loaded.classes, loaded.clip, loaded.readout) == (
        detector.classes,
        detector.clip,
        detector.readout,
    )
    assert not any(p.requires_grad for p in loaded.parameters())
    again = bundle.save(loaded, tmp_path / "again" / "model")
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_models_stay_models(tmp_path):
    base = create_model("mel")
    model = Model(base.frontend, base.backbone, clip=base.clip, info=base.info)
    folder = bundle.save(model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert "frames" not in config
    assert "novelty" not in config
    assert type(bundle.load(folder)) is Model


HOSTILE = {
    "no object": (("frames",), [1]),
    "empty": (("frames",), {}),
    "unknown": (("frames", "hop_s"), 1),
    "attention a list": (("frames", "attention"), [1]),
    "attention without sizes": (("frames", "attention"), {}),
    "attention of a terabyte": (("frames", "attention", "sizes"), [12, 1_000_000, 1_000_000, 3]),
    "attention of booleans": (("frames", "attention", "sizes"), [True, True]),
    "attention of other classes": (("frames", "attention", "sizes"), [12, 4]),
    "attention of another width": (("frames", "attention", "sizes"), [11, 3]),
    "attention forgotten": (("frames", "attention"), None),
    "not a detector": (("frames",), None),
    "other task": (("task",), "classes"),
    "other layer": (("readout",), ["gru1/mean"]),
    "other pooling": (("readout",), ["gru2/max"]),
    "patches": (("patches",), {"window_s": 1.0, "hop_s": 0.5}),
    "no head": (("head",), None),
    "base unknown": (("backbone", "config", "base"), "../../evil"),
    "base of another kind": (("backbone", "config", "base"), "resnet18"),
    "base a list": (("backbone", "config", "base"), ["yamnet"]),
    "layers unknown": (("backbone", "config", "base_layers"), "../../x"),
    "layers by the million": (("backbone", "config", "recurrent_layers"), 1_000_000),
    "hidden by the million": (("backbone", "config", "hidden"), 1_000_000),
    "hop of nothing": (("backbone", "config", "hop_frames"), 0),
    "dropout true": (("backbone", "config", "dropout"), True),
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> tuple[Path, str]:
    folder = bundle.save(lively("yamnet"), tmp_path_factory.mktemp("kept") / "model")
    return folder, (folder / "config.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_values_are_refused(kept, name):
    folder, text = kept
    config = json.loads(text)
    *path, key = HOSTILE[name][0]
    inside = config
    for step in path:
        inside = inside[step]
    inside[key] = HOSTILE[name][1]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    try:
        with pytest.raises(BundleError) as caught:
            bundle.load(folder)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000
    finally:
        (folder / "config.json").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("kind", ["detector", "model"])
def test_novelty_is_in_the_bundle(kind, tmp_path):
    if kind == "detector":
        model: Model = lively("log-mel")
    else:
        base = create_model("mel")
        parts = {"clip": base.clip, "readout": ("mel/mean",), "classes": ["a", "b"]}
        model = Model(base.frontend, base.backbone, head=Head([64, 2]), **parts).eval()
    width = model.head.sizes[0]
    model.novelty = Novelty(first=1, dims=width - 1, rank=3, means=2, known=40)
    generator = torch.Generator().manual_seed(0)
    for tensor in model.novelty.buffers():
        tensor.normal_(generator=generator)
    folder = bundle.save(model, tmp_path / "model")
    loaded = bundle.load(folder)
    vectors = torch.randn(5, width, generator=generator)
    assert torch.equal(loaded.novelty(vectors), model.novelty(vectors))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for change in ({"dims": width}, {"rank": 10**9}, {"extra": 1}, {"means": True}):
        broken = {**config, "novelty": {**config["novelty"], **change}}
        (folder / "config.json").write_text(json.dumps(broken), encoding="utf-8")
        with pytest.raises(BundleError):
            bundle.load(folder)


# --- use --------------------------------------------------------------------------------------


def test_predict_gives_the_clip_scores(detector, tmp_path):
    long, short = noise(12, 1), noise(0.5, 2)
    for name, samples in (("long.wav", long), ("short.wav", short)):
        soundfile.write(tmp_path / name, samples, RATE, subtype="FLOAT")
    files = [str(tmp_path / "long.wav"), str(tmp_path / "short.wav")]
    for items in (files, [(long, RATE), (short, RATE)]):
        table, skipped = predict(detector, items)
        assert not skipped
        got = table[["a", "b", "c"]].to_numpy()
        assert np.array_equal(got, [detector.clip_scores(x) for x in (long, short)])


def test_the_card_says_that_it_is_a_detector(detector):
    card = plain_card(detector)
    assert "It tells when which of 3 classes sound" in card
    assert f"every {1000 * detector.frame_hop_s:g} ms" in card
    assert "ossicle detect" in card
    assert "very clips" not in card
    scored = create_detector(["a"], **KINDS["crnn"])
    scored.info |= {"score": {"metric": "psds", "value": 0.5}, "n_clips": 7}
    assert "psds 0.500." in plain_card(scored).replace("Psds", "psds")
