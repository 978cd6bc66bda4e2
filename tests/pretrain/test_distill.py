"""Distillation: the loss in NumPy, what it must not count, and that it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from ossicle.augment import RandomGain
from ossicle.errors import OssicleError
from ossicle.model import create_model
from ossicle.pretrain.distill import Distill, student_blocks
from ossicle.pretrain.views import create_views
from ossicle.train import Batch, Objective, Step, fit

RATE = 16_000
N = 6400
SIZES = {"first": 3, "second": 2}
VARIANCES = torch.tensor([4.0, 1.0, 0.5, 0.2, 0.1])
FACETS = {"pitch": 3, "voice": 2}


def at(size: int, number: int = 0) -> Step:
    generator = torch.Generator().manual_seed(number)
    return Step(number, 30, generator, size, slice(0, size), lambda x: x)


def new(seed: int = 0, recipe: str = "plain", sizes=SIZES, variances=VARIANCES, **options):
    """As a run begins."""
    model = create_model("stapes", seed=seed, width=1 / 8)
    torch.manual_seed(seed)
    views = create_views(model.frontend, N, recipe)
    options = {"gain": False, **options}
    return Distill(model.backbone, views, sizes, variances, **options).train()


def student(*arguments, **options) -> Distill:
    """One that says something: at first it does not."""
    net = new(*arguments, **options)
    with torch.no_grad():
        net.head.weight.normal_()
        net.head.bias.normal_()
    return net


def batch(items: int = 6, columns: int = 5, seed: int = 0, classes: tuple = ()) -> Batch:
    rng = np.random.default_rng(seed)
    t = np.arange(N) / RATE
    hz, level = rng.uniform(100, 4000, (items, 1)), rng.uniform(0.01, 0.5, (items, 1))
    x = level * np.sin(2 * np.pi * hz * t) + 0.02 * rng.normal(size=(items, N))
    targets = np.concatenate([rng.normal(size=(items, columns)), *classes], 1)
    names = [f"{i}.wav" for i in range(items)]
    x, y = torch.from_numpy(x).float()[:, None], torch.from_numpy(targets).float()
    return Batch(x, names, slice(0, items), items, None, y)


# --- what is read ----------------------------------------------------------------------------


def test_layers_are_read_as_a_probe_reads_them_bands_of_every_second():
    both, three = ("mean", "max"), ("mean", "max", "band")
    assert student_blocks(create_model("stapes").backbone) == {
        "bands": both,  # which has them as channels
        "stem": three,
        "stage1_1": both,
        "stage2_1": three,
        "stage2_2": both,
        "stage2_3": three,
        "stage3_1": both,
        "stage3_2": three,
        "stage3_3": both,
        "stage4_1": three,
        "stage4_2": both,
        "words": both,
    }
    # Of a network that is read otherwise, the rest of it; without any, means.
    assert student_blocks(create_model("mfcc").backbone) == {"mfcc": ("mean", "std")}
    bare = create_model("crnn").backbone
    bare.poolings = ("band",)
    blocks = student_blocks(bare)
    assert blocks["conv1"] == blocks["gru1"] == ("mean",)
    assert blocks["conv2"] == ("mean", "band")


def slow_read_out(net: Distill, sounds: Tensor) -> np.ndarray:
    """(B, D) float64: pooled layers side by side, standardised over the batch, of length 1."""
    with torch.no_grad():
        maps = net.backbone(net.views.frontend(sounds[:, 0]))
    parts = []
    for layer, names in student_blocks(net.backbone).items():
        y = maps[layer].double().numpy()
        flat = y.reshape(*y.shape[:2], -1)
        parts += [flat.mean(-1), flat.max(-1)]
        if "band" in names:  # eight groups of neighbouring bands, or as many as there are
            profile = y.mean(-1)
            groups = profile.reshape(*y.shape[:2], min(8, y.shape[2]), -1).mean(-1)
            parts.append(groups.reshape(len(y), -1))
    X = np.concatenate(parts, 1)
    return (X - X.mean(0)) / np.sqrt(X.var(0) + 1e-5) / math.sqrt(X.shape[1])


def linear(layer: nn.Linear, X: np.ndarray) -> np.ndarray:
    return X @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()


def answer_of(net: Distill, X: np.ndarray) -> np.ndarray:
    """(B, K): the head speaks of components in deviations."""
    return linear(net.head, X) * np.sqrt(net.variances.double().numpy())


def slow_taught(answer: np.ndarray, targets: np.ndarray, sizes=SIZES) -> list[float]:
    """Each teacher's squared error over the variance of what it says."""
    losses, first = [], 0
    for size in sizes.values():
        errors = [
            sum((answer[b, k] - targets[b, k]) ** 2 for k in range(first, first + size))
            for b in range(len(answer))
        ]
        losses.append(np.mean(errors) / float(VARIANCES[first : first + size].sum()))
        first += size
    return losses


# --- the loss --------------------------------------------------------------------------------


def test_the_loss_is_the_mean_of_the_teachers_shares():
    net, given = student(), batch()
    loss, numbers = net(given, at(6))
    X = slow_read_out(net, given.waveforms)
    assert X.shape == (6, net.head.in_features)
    want = slow_taught(answer_of(net, X), given.targets.double().numpy())
    assert float(loss.detach()) == pytest.approx(np.mean(want), rel=1e-3)
    assert [float(numbers[name]) for name in SIZES] == pytest.approx(want, rel=1e-3)
    assert list(numbers) == ["first", "second"]
    assert not any(value.requires_grad for value in numbers.values())


def test_at_first_it_says_nothing():
    """Which is what a teacher says on average: the loss begins at 1, not far above."""
    given = batch()
    given = given._replace(targets=given.targets - given.targets.mean(0))
    net = new(variances=given.targets.var(0, correction=0))
    loss, _ = net(given, at(6))
    assert float(loss.detach()) == pytest.approx(1, rel=1e-5)
    loss.backward()
    assert float(net.head.weight.grad.abs().max()) > 0


def test_a_perfect_head_gives_0():
    net, given = student(), batch()
    X = slow_read_out(net, given.waveforms)
    answer = torch.from_numpy(answer_of(net, X)).float()
    loss, numbers = net(given._replace(targets=answer), at(6))
    assert float(loss.detach()) < 1e-8
    assert max(map(float, numbers.values())) < 1e-8


def test_a_constant_answer_gives_1():
    """The mean of what a teacher says explains nothing of it, however many components it has."""
    given = batch()
    net = student(variances=given.targets.var(0, correction=0))
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.copy_(given.targets.mean(0) / net.variances.sqrt())
    loss, numbers = net(given, at(6))
    assert float(loss.detach()) == pytest.approx(1, rel=1e-5)
    assert [float(numbers[name]) for name in SIZES] == pytest.approx([1, 1], rel=1e-5)


def test_a_component_counts_by_its_variance():
    """One deviation beside the truth costs four times as much where the variance is four times."""
    net, given = student(), batch()
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.zero_()
    deviations = VARIANCES.sqrt()
    losses = []
    for k in range(5):
        targets = torch.zeros(6, 5)
        targets[:, k] = deviations[k]
        losses.append(float(net(given._replace(targets=targets), at(6))[0].detach()))
    want = [4 / 5.5, 1 / 5.5, 0.5 / 5.5, 0.2 / 0.3, 0.1 / 0.3]
    assert losses == pytest.approx([share / 2 for share in want], rel=1e-5)


# --- labels ----------------------------------------------------------------------------------


def labelled(known: np.ndarray | None = None) -> tuple[Batch, np.ndarray]:
    """A batch whose last columns are class numbers, one unknown in each at least."""
    classes = np.array([[0, 1], [2, -1], [-1, -1], [1, 0], [2, 1], [-1, 0]]).astype(float)
    classes = classes if known is None else known
    return batch(classes=(classes,)), classes.astype(int)


def slow_entropy(logits: np.ndarray, classes: np.ndarray) -> float:
    """Of those that are known, over the number of all."""
    total = 0.0
    for row, number in zip(logits, classes, strict=True):
        if number >= 0:
            total -= row[number] - math.log(sum(math.exp(v) for v in row))
    return total / len(classes)


def test_labelled_heads_add_their_cross_entropy():
    net = student(facets=FACETS, labels=0.3)
    given, classes = labelled()
    loss, numbers = net(given, at(6))
    X = slow_read_out(net, given.waveforms)
    taught = slow_taught(answer_of(net, X), given.targets.double().numpy())
    logits = {name: linear(head, X) for name, head in net.heads.items()}
    assert {name: y.shape[1] for name, y in logits.items()} == FACETS
    entropies = [slow_entropy(y, classes[:, i]) for i, y in enumerate(logits.values())]
    assert float(loss.detach()) == pytest.approx(np.mean(taught) + 0.3 * sum(entropies), rel=1e-3)
    for i, (name, y) in enumerate(logits.items()):
        known = classes[:, i] >= 0
        right = (y.argmax(1) == classes[:, i])[known].mean()
        assert float(numbers[f"{name}_right"]) == pytest.approx(right)


def test_unknown_labels_do_not_count():
    net = student(facets=FACETS, labels=1.0)
    with torch.no_grad():
        for head in net.heads.values():
            head.weight.normal_()
    given, _ = labelled(np.array([[0.0, -1.0]] + [[-1.0, -1.0]] * 5))
    loss, numbers = net(given, at(6))
    loss.backward()
    assert float(net.heads["pitch"].weight.grad.abs().max()) > 0
    assert float(net.heads["voice"].weight.grad.abs().max()) == 0
    assert float(numbers["voice_right"]) == 0
    # The gradient is that of the one known item's logits.
    X = slow_read_out(net, given.waveforms)
    logits = linear(net.heads["pitch"], X)[0]
    p = np.exp(logits) / np.exp(logits).sum() - np.eye(3)[0]
    want = np.outer(p, X[0]) / 6
    assert np.abs(net.heads["pitch"].weight.grad.numpy() - want).max() < 1e-3 * np.abs(want).max()


def test_labels_alone_need_no_teacher():
    with pytest.warns(UserWarning, match="zero-element"):  # a head of no columns
        net = student(sizes={}, variances=torch.zeros(0), facets=FACETS, labels=2.0)
    given, classes = labelled()
    given = given._replace(targets=given.targets[:, 5:])
    loss, numbers = net(given, at(6))
    X = slow_read_out(net, given.waveforms)
    heads = net.heads.values()
    want = [slow_entropy(linear(head, X), classes[:, i]) for i, head in enumerate(heads)]
    assert float(loss.detach()) == pytest.approx(2 * sum(want), rel=1e-3)
    assert list(numbers) == ["pitch_right", "voice_right"]


def test_without_their_weight_labels_are_no_part_of_it():
    net = student(facets=FACETS, labels=0.0)
    assert not list(net.heads.parameters())
    given, _ = labelled()
    loss = net(given, at(6))[0]
    without = net(given._replace(targets=given.targets[:, :5]), at(6))[0]
    assert float(loss.detach()) == float(without.detach())


# --- louder, mixed ---------------------------------------------------------------------------


def test_gain_changes_the_sound_and_keeps_the_targets():
    given = batch()
    loud, plain = student(gain=True), student(gain=False)
    drawn = RandomGain((-12.0, 6.0)).draw(6, at(6, 3).generator)
    gains = drawn["gain_db"]
    assert gains.min() >= -12
    assert gains.max() <= 6
    assert gains.max() - gains.min() > 3
    scaled = given.waveforms * 10 ** (gains[:, None, None] / 20)
    loss = float(loud(given, at(6, 3))[0].detach())
    assert loss == pytest.approx(
        float(plain(given._replace(waveforms=scaled), at(6, 3))[0].detach()), rel=1e-5
    )
    assert loss != pytest.approx(float(plain(given, at(6, 3))[0].detach()), rel=1e-3)


def test_processes_draw_the_gains_that_one_would():
    """The second half of a batch is as loud as in the whole; eval, so that norms are apart."""
    given, net = batch(), student(gain=True).eval()
    seen = []
    net.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net(given, at(6, 1))
    half = slice(3, 6)
    part = given._replace(waveforms=given.waveforms[half], targets=given.targets[half], rows=half)
    net(part, at(6, 1)._replace(rows=half))
    assert torch.allclose(seen[1], seen[0][half], atol=1e-5)


def slow_nt_xent(first: np.ndarray, second: np.ndarray) -> float:
    """2002.05709, eq. 1, at a temperature of .1."""
    z = np.concatenate([first, second])
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    likeness = np.exp(z @ z.T / 0.1)
    n = len(first)
    losses = []
    for i in range(2 * n):
        others = sum(likeness[i, k] for k in range(2 * n) if k != i)
        losses.append(-math.log(likeness[i, (i + n) % (2 * n)] / others))
    return float(np.mean(losses))


@pytest.mark.parametrize("recipe", ["plain", "contrast"])
def test_pairs_add_their_loss(recipe):
    net = student(recipe=recipe, pairs=0.7, gain=True)
    given, seen = batch(), []
    net.backbone.register_forward_hook(
        lambda module, inputs, maps: seen.append((inputs[0], maps["words"]))
    )
    loss, numbers = net(given, at(6, 1))
    (own, first), (changed, second) = seen
    taught = np.mean([float(numbers[name]) for name in SIZES])
    with torch.no_grad():
        vectors = [y.double().flatten(2).mean(2).float() for y in (first, second)]
        z = net.projector(torch.cat(vectors)).double().numpy()
    want = slow_nt_xent(z[:6], z[6:])
    assert float(numbers["pairs"]) == pytest.approx(want, rel=1e-3)
    assert float(loss.detach()) == pytest.approx(taught + 0.7 * want, rel=1e-3)
    # One as the teachers' targets hold for it, the other changed by the views.
    plain = net.views.frontend(given.waveforms[:, 0])
    same = torch.allclose(changed, plain)
    assert same == (recipe == "plain")
    assert not torch.allclose(own, changed)


@pytest.mark.parametrize(
    "options",
    [{"labels": -0.1}, {"pairs": -1.0}],
)
def test_weights_below_0_are_refused(options):
    with pytest.raises(OssicleError, match="labels and pairs are weights: choose 0 or more"):
        student(**options)


def test_something_must_be_learnt():
    for options in ({}, {"facets": FACETS}, {"labels": 1.0}, {"pairs": 1.0}):
        with pytest.raises(OssicleError, match="there is nothing to learn"):
            student(sizes={}, variances=torch.zeros(0), **options)


# --- training --------------------------------------------------------------------------------


class Tones:
    """Sixteen pitches at all levels. Both teachers say what pitch it is, in words of their own."""

    seconds_per_item = N / RATE

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        rng = np.random.default_rng(step)
        place = rng.permutation(16)[:, None] / 16
        t = np.arange(N) / RATE
        x = np.sin(2 * np.pi * 200 * 16**place * t + rng.uniform(0, 6, (16, 1)))
        x = rng.uniform(0.05, 0.5, (16, 1)) * x + 0.01 * rng.normal(size=x.shape)
        angle = 2 * np.pi * place
        words = [2 * np.cos(angle), 2 * np.sin(angle), np.cos(2 * angle), place - 15 / 32]
        names = [f"{p:.3f}" for p in place[:, 0]]
        targets = torch.from_numpy(np.concatenate(words, 1)).float()
        return Batch(torch.from_numpy(x).float()[:, None], names, slice(0, 16), 16, None, targets)


def test_it_learns_what_the_teachers_say():
    """From a constant's 1 to less than a third of it, on sounds that it has not heard before."""
    targets = Tones().batch(0).targets  # the same sixteen in every batch
    net = new(1, sizes={"circle": 3, "line": 1}, variances=targets.var(0, correction=0), gain=True)
    optimiser = torch.optim.AdamW(net.parameters(), lr=5e-3)
    trained = fit(net, Tones(), optimiser, steps=30, log_every=1, seed=1)
    for name in ("loss", "circle", "line"):
        losses = [line[name] for line in trained.history]
        assert losses[0] > 0.9
        assert np.mean(losses[-5:]) < 1 / 3, name


def test_all_of_it_gets_a_gradient():
    net = student(facets=FACETS, labels=0.3, pairs=0.5, recipe="contrast", gain=True)
    given, _ = labelled()
    net(given, at(6))[0].backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        # A bias before a batch norm changes nothing.
        if name != "projector.0.bias":
            assert float(parameter.grad.abs().max()) > 0, name


# --- sixteen bits ----------------------------------------------------------------------------


class Recorder(Objective):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(N, 1)
        self.seen: list[tuple] = []

    def forward(self, batch, step):
        y = self.layer(batch.waveforms[:, 0])
        self.seen.append((batch, y.dtype))
        return y.float().square().mean(), {}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_sounds_and_targets_arrive_as_they_are(precision):
    """Networks compute with 16 bits; of a sound or a target, none is rounded away before."""
    net, batches = Recorder(), Tones()
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3)
    trained = fit(net, batches, optimiser, steps=2, fabric=fabric)
    assert trained.steps == 2
    for number, (given, computed) in enumerate(net.seen):
        want = batches.batch(number)
        assert torch.equal(given.waveforms, want.waveforms)
        assert torch.equal(given.targets, want.targets)
        assert given.names == want.names
        assert computed is (torch.bfloat16 if precision == "bf16-mixed" else torch.float32)


def test_only_the_network_and_what_reads_it_for_teachers_compute_with_sixteen_bits():
    net = student(pairs=0.5, facets=FACETS, labels=0.3, recipe="contrast")
    given, _ = labelled()
    dtypes: dict[str, set] = {}

    def watch(name: str):
        def hook(module, inputs, output):
            pair = inputs[0].dtype, output.dtype
            dtypes.setdefault(name, set()).add(pair)

        return hook

    for name in ("views.frontend", "backbone.stem.0", "norm", "head", "heads.pitch"):
        net.get_submodule(name).register_forward_hook(watch(name))
    pictures = []
    net.backbone.register_forward_pre_hook(lambda module, inputs: pictures.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = net(given, at(6))
    full, half = torch.float32, torch.bfloat16
    assert loss.dtype is full
    assert {name: pairs for name, pairs in dtypes.items() if pairs != {(full, full)}} == {
        "backbone.stem.0": {(full, half)},
        "head": {(full, half)},
    }
    assert set(dtypes) > {"views.frontend", "head", "heads.pitch"}
    # And what it is shown is what it is shown without: the changed picture too.
    with torch.no_grad():
        net(given, at(6))
    assert len(pictures) == 4
    assert torch.equal(pictures[0], pictures[2])
    assert torch.equal(pictures[1], pictures[3])
