"""What is minimised: where it starts, what moves in a step and how far, when it has finished."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax

from ossicle.errors import OssicleError
from ossicle.features import extract
from ossicle.finetune.objective import FineTuning, task_loss
from ossicle.finetune.settings import FinetuneSettings
from ossicle.finetune.start import UNLIKELY, frozen_features, start_head
from ossicle.model import create_model
from ossicle.pretrain.views import create_views
from ossicle.train import Batch, Step
from ossicle.transfer.probe import create_probe

N_SAMPLES = 3600
BLOCKS = [f"block{i}" for i in range(1, 6)]
NORMS = ("running_mean", "running_var", "num_batches_tracked")


def sounds(n: int = 12, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """(n, N) noise of three colours, and their class numbers."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = rng.normal(size=(n, N_SAMPLES))
    for row, c in enumerate(y):
        x[row] = np.convolve(x[row], np.ones(1 + 3 * c), "same") * 0.1
    return torch.from_numpy(x.astype(np.float32)), y


def batch_of(x: torch.Tensor, y: np.ndarray | None) -> Batch:
    names = [f"{i}.wav" for i in range(len(x))]
    targets = None if y is None else torch.from_numpy(y)
    return Batch(x[:, None], names, slice(0, len(x)), len(x), None, targets)


def step(n: int) -> Step:
    return Step(0, 10, torch.Generator().manual_seed(0), n, slice(0, n), lambda x: x)


def objective_of(network, start=None, readout=None, validate=None, k=3, **more) -> FineTuning:
    model = network()
    readout = readout or tuple(f"{name}/mean" for name in BLOCKS)
    width = sum(model.block_sizes(readout).values())
    head, mean, deviation = start or (None, np.zeros(width), np.ones(width))
    settings = FinetuneSettings(**more)
    views = create_views(model.frontend, N_SAMPLES, "plain")
    return FineTuning(
        model, readout, head, (mean, deviation), k, views, "classes", settings, validate
    )


def stepped(objective: FineTuning, steps: int = 1, epoch: int = 0) -> tuple[set[str], dict]:
    """Names in the state that a step moves, and by how much at most."""
    x, y = sounds()
    optimiser = torch.optim.AdamW(objective.parameter_groups())
    before = {name: t.clone() for name, t in objective.state_dict().items()}
    objective.epoch.fill_(epoch)
    for _ in range(steps):
        objective.train()
        loss, _ = objective(batch_of(x, y), step(len(x)))
        optimiser.zero_grad()
        loss.backward()
        for parameter in objective.asleep(epoch):
            parameter.grad = None
        optimiser.step()
    objective.epoch.fill_(0)
    after = objective.state_dict()
    far = {n: float((after[n] - t).abs().max()) for n, t in before.items()}
    return {name for name, distance in far.items() if distance}, far


def blocks_of(names: set[str], norms: bool = False) -> set[str]:
    """Blocks with a parameter, or a statistic of their norm, among the names."""
    return {
        name.split(".")[2]
        for name in names
        if name.startswith("backbone.") and name.endswith(NORMS) == norms
    }


# --- where it starts -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ridge_start():
    """Features of twelve sounds, the ridge on them, and what training starts from."""
    model = create_model("choi_convnet", excerpt_s=0.3)
    x, y = sounds()
    table = extract(model, [(clip, model.sample_rate) for clip in x.numpy()])
    X, groups = table.matrix(), np.arange(len(y)).astype(str)
    ridge = create_probe("ridge", "classes", random_state=0)
    ridge.fit(X, y, groups=groups, block_sizes=table.sizes())
    start = start_head(X, y, groups, table.sizes(), task="classes", num_outputs=3)
    return x, y, X, ridge, start, groups, table


def test_it_starts_as_the_probe(ridge_start, network):
    x, y, X, ridge, start, *_ = ridge_start
    objective = objective_of(network, start).eval()
    with torch.no_grad():
        logits = objective.logits(objective.backbone(objective.views.frontend(x)))
        loss, numbers = objective(batch_of(x, y), step(len(x)))
    want = ridge.predict_proba(X)
    assert softmax(logits.numpy(), axis=1) == pytest.approx(want, abs=2e-4)
    assert float(loss) == pytest.approx(-np.log(want[np.arange(len(y)), y]).mean(), abs=1e-3)
    assert float(numbers["accuracy"]) == pytest.approx((want.argmax(1) == y).mean())
    weight, bias = ridge.linear_head()
    plain = objective.plain_head().layers[0]
    assert plain.weight.detach().numpy() == pytest.approx(weight, rel=1e-4, abs=1e-6)
    assert plain.bias.detach().numpy() == pytest.approx(bias, rel=1e-3, abs=1e-3)


def test_the_plain_head_is_the_standardised_one(network):
    rng = np.random.default_rng(0)
    mean, deviation = rng.normal(size=160), rng.uniform(0.1, 3, 160)
    objective = objective_of(network, (None, mean, deviation))
    with torch.no_grad():
        objective.head.weight.copy_(torch.from_numpy(rng.normal(size=(3, 160))))
        objective.head.bias.copy_(torch.from_numpy(rng.normal(size=3)))
    z = rng.normal(size=(7, 160))
    weight = objective.head.weight.detach().double().numpy()
    want = ((z - mean) / deviation) @ weight.T + objective.head.bias.detach().numpy()
    with torch.no_grad():
        found = objective.plain_head()(torch.from_numpy(z.astype(np.float32)))
    assert found.numpy() == pytest.approx(want, rel=1e-4, abs=1e-4)


def test_statistics_are_those_of_the_columns_and_never_tiny(ridge_start):
    _, y, X, _, _, groups, _ = ridge_start
    X = X.copy()
    X[:, 5] = 2.0
    start = start_head(X, y, groups, [160], task="classes", num_outputs=3, probe=False)
    assert start.head is None
    deviation = X.astype(np.float64).std(0)
    assert start.mean == pytest.approx(X.astype(np.float64).mean(0))
    floor = 0.1 * np.sqrt((deviation**2).mean())
    assert start.deviation[5] == pytest.approx(floor)
    wide = deviation > floor
    assert start.deviation[wide] == pytest.approx(deviation[wide])


def test_a_class_without_clips_starts_as_unlikely(ridge_start):
    _, y, X, ridge, _, groups, table = ridge_start
    names = np.array([0, 1, 3])[y]  # the third of four classes has none
    start = start_head(X, names, groups, table.sizes(), task="classes", num_outputs=4)
    weight, bias = start.head
    want, offsets = ridge.linear_head()
    assert weight[[0, 1, 3]] == pytest.approx(want)
    assert bias[[0, 1, 3]] == pytest.approx(offsets)
    assert not weight[2].any()
    assert bias[2] == pytest.approx(offsets.min() - UNLIKELY)


def test_features_come_from_the_table_where_it_has_them(clips, network):
    model = network()
    whole = extract(model, clips)
    rows = np.array([3, 7, 20])
    readout = ["block2/mean", "block5/mean"]
    for table in (whole, None):
        found, X, sizes = frozen_features(model, clips, rows, readout, table)
        assert found.tolist() == [3, 7, 20]
        assert np.array_equal(X, whole.matrix(readout)[rows])
        assert sizes == [32, 32]
    # A pooling that the table lacks is extracted.
    _, X, _ = frozen_features(model, clips, rows, ["block1/max"], whole)
    expected = extract(model, clips, layers="1", poolings=["max"]).matrix()[rows]
    assert np.array_equal(X, expected)


# --- the loss --------------------------------------------------------------------------------


def test_losses_are_the_definitions():
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(5, 3)), np.array([0, 2, 1, 1, 0])
    found = task_loss("classes", torch.from_numpy(logits), torch.from_numpy(y))
    assert found.numpy() == pytest.approx(-log_softmax(logits, 1)[np.arange(5), y], abs=1e-6)
    tags = rng.integers(0, 2, (5, 3))
    found = task_loss("multilabel", torch.from_numpy(logits), torch.from_numpy(tags))
    likely = np.where(tags == 1, expit(logits), 1 - expit(logits))
    assert found.numpy() == pytest.approx(-np.log(likely).mean(1), abs=1e-6)
    numbers = rng.normal(size=5)
    found = task_loss("regression", torch.from_numpy(logits[:, :1]), torch.from_numpy(numbers))
    assert found.numpy() == pytest.approx((logits[:, 0] - numbers) ** 2, abs=1e-6)


def test_a_batch_without_labels_is_refused(network):
    x, _ = sounds(3)
    with pytest.raises(OssicleError, match="needs labels"):
        objective_of(network)(batch_of(x, None), step(3))


# --- what moves ------------------------------------------------------------------------------


@pytest.mark.parametrize(("unfreeze", "learning"), [("head", 0), (1, 1), (2, 2), (99, 5)])
@pytest.mark.parametrize("frozen_norms", [True, False])
def test_only_the_unfrozen_layers_move(network, unfreeze, learning, frozen_norms):
    objective = objective_of(
        network, unfreeze=unfreeze, frozen_norms=frozen_norms, learning_rate=1e-2
    )
    moved, _ = stepped(objective, steps=3)
    assert {"head.weight", "head.bias"} <= moved
    wanted = set(BLOCKS[len(BLOCKS) - learning :])
    assert blocks_of(moved) == wanted
    for name, parameter in objective.backbone.named_parameters():
        assert (f"backbone.{name}" in moved) == (name.split(".")[1] in wanted), name
        assert parameter.requires_grad == (name.split(".")[1] in wanted)
    assert blocks_of(moved, norms=True) == (set() if frozen_norms else wanted)
    # Without a layer that learns, nothing in the network is random either.
    objective.train()
    assert objective.backbone.training == bool(learning)


def test_layers_beyond_the_read_out_are_not_counted(network):
    objective = objective_of(network, readout=("block1/mean", "block3/mean"), unfreeze=2)
    assert objective.learning == ["block2", "block3"]
    moved, _ = stepped(objective, steps=3)
    assert blocks_of(moved) == {"block2", "block3"}


def test_a_network_that_cannot_learn_is_refused():
    model = create_model("mel")
    settings = FinetuneSettings()
    readout = (f"{model.layers[0]}/mean",)
    width = model.block_sizes(readout)[readout[0]]
    views = create_views(model.frontend, 8000, "plain")
    parts = (model, readout, None, (np.zeros(width), np.ones(width)), 2, views, "classes")
    with pytest.raises(OssicleError, match="no weights that can be trained"):
        FineTuning(*parts, settings)
    assert FineTuning(*parts, FinetuneSettings(unfreeze="head")).learning == []


def test_layers_wake_one_after_another(network):
    objective = objective_of(
        network, unfreeze=3, unfreeze_every=2, frozen_norms=False, learning_rate=1e-2
    )
    for epoch, awake in ((0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (6, 3), (60, 3)):
        moved, _ = stepped(objective, epoch=epoch)
        wanted = set(BLOCKS[5 - awake :])
        assert "head.weight" in moved
        # Neither decay nor the statistics of its norm move what is asleep.
        assert blocks_of(moved) == wanted, epoch
        assert blocks_of(moved, norms=True) == wanted, epoch


def test_rates_fall_from_layer_to_layer(network):
    objective = objective_of(
        network, learning_rate=1e-3, layer_decay=0.5, head_rate=0.16, weight_decay=0.0
    )
    with torch.no_grad():  # a head of zeros hands no gradient down
        objective.head.weight.copy_(torch.randn(3, 160, generator=torch.Generator().manual_seed(0)))
    _, far = stepped(objective)
    # The first step of Adam is the rate itself, in the direction of the gradient.
    for depth, block in enumerate(reversed(BLOCKS)):
        rate = 1e-3 * 0.5**depth
        assert far[f"backbone.blocks.{block}.0.weight"] == pytest.approx(rate, rel=2e-2), block
    assert far["head.weight"] == pytest.approx(0.16 / 160, rel=2e-2)
    assert far["head.bias"] == pytest.approx(0.016, rel=2e-2)


def test_weights_decay_and_biases_do_not(network):
    objective = objective_of(network, weight_decay=0.3)
    groups = objective.parameter_groups()
    head = {id(p) for p in objective.head.parameters()}
    every = [p for group in groups for p in group["params"]]
    trained = [p for p in objective.parameters() if p.requires_grad]
    assert {id(p) for p in every} == {id(p) for p in trained}
    assert len(every) == len(trained)
    for group in groups:
        for p in group["params"]:
            wanted = 0.3 if p.dim() > 1 and id(p) not in head else 0.0
            assert group["weight_decay"] == wanted


# --- when it ends ----------------------------------------------------------------------------


def epochs_until_finished(objective: FineTuning, limit: int = 30) -> int:
    """Epochs until it says that it has finished; each leaves its number in the head's bias."""
    for epoch in range(1, limit + 1):
        with torch.no_grad():
            objective.head.bias.fill_(epoch)
        objective.after_epoch()
        if objective.finished():
            return epoch
    return limit


def losses(*values: float):
    left = iter([*values, *[9.0] * 40])
    return lambda: (next(left), {"more": 1.0})


def test_it_stops_after_its_patience_and_takes_the_best(network):
    objective = objective_of(network, validate=losses(5, 4, 4.5, 4, 4.1), patience=3)
    assert epochs_until_finished(objective) == 5
    assert int(objective.best_epoch) == 2  # an equal loss is not a better one
    assert float(objective.best_loss) == 4
    objective.use_best()
    assert objective.head.bias.tolist() == [2, 2, 2]


def test_without_patience_it_never_stops(network):
    objective = objective_of(network, validate=losses(1, 2), patience=0)
    assert epochs_until_finished(objective) == 30
    objective.use_best()
    assert objective.head.bias.tolist() == [1, 1, 1]


def test_it_waits_until_every_layer_has_had_its_turn(network):
    objective = objective_of(network, validate=losses(1), patience=2, unfreeze=3, unfreeze_every=2)
    assert epochs_until_finished(objective) == 3 * 2 + 2
    assert int(objective.best_epoch) == 1


def test_without_a_validation_part_the_last_weights_stay(network):
    objective = objective_of(network, patience=1)
    assert objective.after_epoch() == {}
    assert epochs_until_finished(objective) == 30
    assert int(objective.epoch) == 31
    objective.use_best()
    assert objective.head.bias.tolist() == [30, 30, 30]


def test_what_is_best_is_part_of_the_state(network):
    one = objective_of(network, validate=losses(3, 2, 5), patience=9)
    for epoch in (1, 2, 3):
        with torch.no_grad():
            one.head.bias.fill_(epoch)
        logged = one.after_epoch()
    assert logged == {"validation_loss": 5, "more": 1.0}
    other = objective_of(network, validate=losses(), patience=9)
    other.load_state_dict(one.state_dict())
    other.use_best()
    assert other.head.bias.tolist() == [2, 2, 2]
    assert int(other.epoch) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unfreeze": "most"}, "unfreeze 'most'"),
        ({"unfreeze": 0}, "unfreeze is 0"),
        ({"augment": "loud"}, "augment 'loud'"),
        ({"head_start": "old"}, "head_start 'old'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seeds": 0}, "seeds is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"layer_decay": 0.0}, r"layer_decay is 0\.0"),
        ({"patience": -1}, "patience is -1"),
        ({"weight_decay": float("inf")}, "weight_decay is inf"),
        ({"validation": 1.0}, "validation and warm_up are shares"),
        ({"warm_up": -0.1}, "validation and warm_up are shares"),
        ({"crop_s": 0.0}, r"crop_s is 0\.0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes, message):
    with pytest.raises(OssicleError, match=message) as told:
        FinetuneSettings(**changes).check()
    assert "\n" not in str(told.value)


def test_settings_are_kept():
    settings = FinetuneSettings(unfreeze=3, crop_s=0.5, patience=0)
    assert settings.check() is settings
