"""Labels and pairs at once, and all objectives of this kind in two processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from ossicle.errors import OssicleError
from ossicle.model import create_model
from ossicle.pretrain.joint import Joint
from ossicle.pretrain.views import Views
from ossicle.train import Batch, Step


def at(size: int) -> Step:
    generator = torch.Generator().manual_seed(0)
    return Step(0, 10, generator, size, slice(0, size), lambda x: x)


def batch_of(crops: torch.Tensor, targets: torch.Tensor | None) -> Batch:
    n = len(crops)
    return Batch(crops, [str(i) for i in range(n)], slice(0, n), n, None, targets)


def noise(items: int, seed: int = 0, n_samples: int = 8000) -> torch.Tensor:
    return 0.3 * torch.randn(items, 2, n_samples, generator=torch.Generator().manual_seed(seed))


def objective(seed: int = 0, **options) -> Joint:
    torch.manual_seed(seed)
    model = create_model("slowfast_nfnet_f0", width=1 / 8, drop_rate=0.0)
    return Joint(model.backbone, Views(model.frontend), 3, projection=(16, 8), **options).eval()


def slow_nt_xent(first: np.ndarray, second: np.ndarray, temperature: float) -> float:
    """2002.05709, equation 1, a pair at a time."""
    z = np.concatenate([first, second])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    n, losses = len(first), []
    for i in range(2 * n):
        exps = [np.exp(z[i] @ z[k] / temperature) for k in range(2 * n)]
        losses.append(-np.log(exps[(i + n) % (2 * n)] / (sum(exps) - exps[i])))
    return float(np.mean(losses))


def embeddings(net: Joint, crops: torch.Tensor) -> list[np.ndarray]:
    """(n, C) of each view, from the front end, the network and the mean over time."""
    with torch.no_grad():
        maps = [net.backbone(net.views.frontend(crops[:, v]))["final"] for v in range(2)]
    return [map_.mean(-1).double().numpy() for map_ in maps]


@pytest.mark.parametrize("task", ["classes", "multilabel"])
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_the_loss_is_the_sum_of_both(task, weight):
    net, crops = objective(task=task, weight=weight), noise(4)
    net.projector.train()
    nan = float("nan")
    labels = [[1.0, 0, 1], [nan, nan, nan], [0, 0, 0], [nan, nan, nan]]
    targets = torch.tensor([2, -1, 0, -1]) if task == "classes" else torch.tensor(labels)
    with torch.no_grad():
        loss, numbers = net(batch_of(crops, targets), at(4))
    state = {name: value.double().numpy() for name, value in net.state_dict().items()}
    features = embeddings(net, crops)
    # The batch norm between sees both views together.
    hidden = np.concatenate(features) @ state["projector.0.weight"].T + state["projector.0.bias"]
    hidden = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5)
    hidden = np.maximum(hidden * state["projector.1.weight"] + state["projector.1.bias"], 0)
    projected = hidden @ state["projector.3.weight"].T
    contrastive = slow_nt_xent(projected[:4], projected[4:], 0.1)
    parts = []
    for x in features:  # items 0 and 2 have labels
        logits = (x @ state["head.weight"].T + state["head.bias"])[[0, 2]]
        if task == "classes":
            parts.append(-log_softmax(logits, 1)[[0, 1], [2, 0]].mean())
        else:
            chance = 1 / (1 + np.exp(-logits))
            true = np.array(labels)[[0, 2]]
            parts.append(-(true * np.log(chance) + (1 - true) * np.log(1 - chance)).mean())
    assert float(numbers["contrastive"]) == pytest.approx(contrastive, rel=1e-4)
    assert float(numbers["supervised"]) == pytest.approx(np.mean(parts), rel=1e-4)
    assert float(loss) == pytest.approx(contrastive + weight * np.mean(parts), rel=1e-4)
    assert 0 <= float(numbers["found"]) <= 1


def test_without_labels_it_is_the_contrastive_part():
    net, crops = objective(), noise(3)
    loss, numbers = net(batch_of(crops, torch.full((3,), -1)), at(3))
    assert torch.equal(loss.detach(), numbers["contrastive"])
    loss.backward()
    assert not net.head.weight.grad.any()
    assert net.projector[0].weight.grad.any()


def test_what_an_unlabelled_clip_would_be_called_does_not_matter():
    """Only labelled clips move the head, and all of them the projector."""
    net, crops = objective(), noise(4)
    gradients = []
    for other in (noise(4), noise(4, seed=1)):
        mixed = torch.cat([crops[:2], other[2:]])
        net.zero_grad()
        net(batch_of(mixed, torch.tensor([0, 2, -1, -1])), at(4))[0].backward()
        gradients.append([net.head.weight.grad.clone(), net.projector[0].weight.grad.clone()])
    assert torch.allclose(gradients[0][0], gradients[1][0], atol=1e-7)
    assert not torch.allclose(gradients[0][1], gradients[1][1], atol=1e-4)


def test_adaptive_clipping_leaves_head_and_projector_alone():
    net = objective()
    assert {id(p) for p in net.clipped()} == {id(p) for p in net.backbone.parameters()}
    assert net.num_views == 2


def test_the_state_is_all_there_is():
    net, twin, batch = objective(), objective(seed=1), batch_of(noise(3), torch.tensor([0, 1, -1]))
    want = net(batch, at(3))[0]
    assert not torch.equal(twin(batch, at(3))[0], want)
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin(batch, at(3))[0], want)


def test_half_precision_gives_the_loss_in_full():
    net, batch = objective(), batch_of(noise(3), torch.tensor([0, 1, -1]))
    with torch.no_grad():
        full, _ = net(batch, at(3))
        with torch.autocast("cpu", torch.bfloat16):
            half, numbers = net(batch, at(3))
    assert half.dtype == numbers["contrastive"].dtype == torch.float32
    assert float(half) == pytest.approx(float(full), rel=0.1)


def test_a_weight_below_zero_is_refused():
    with pytest.raises(OssicleError, match="weight"):
        objective(weight=-1.0)


# --- two processes ---------------------------------------------------------------------------

SCRIPT = """
import sys
import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_gather
from torch.nn.parallel import DistributedDataParallel
from ossicle.model import create_model
from ossicle.pretrain.cpc import CPC
from ossicle.pretrain.joint import Joint
from ossicle.pretrain.supervised import Supervised
from ossicle.pretrain.views import Views
from ossicle.train import Batch, Step

torch.set_num_threads(1)
SIZE = 4
CROPS = 0.3 * torch.randn(SIZE, 2, 4000, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([1, 0, 2, -1])


def objective(kind):
    torch.manual_seed(0)
    model = create_model("cpc_encoder", width=1 / 64)
    options = {"negatives": 8, "steps_ahead": 3} if kind is CPC else {"num_classes": 3}
    return kind(model.backbone, Views(model.frontend), **options)


def gradients(net, rows, gather):
    owner = getattr(net, "module", net)
    views = CROPS[rows, : owner.num_views]
    names = [str(i) for i in range(SIZE)[rows]]
    batch = Batch(views, names, rows, SIZE, None, TARGETS[rows])
    step = Step(0, 1, torch.Generator().manual_seed(0), SIZE, rows, gather)
    net(batch, step)[0].backward()
    return torch.cat([p.grad.flatten() for p in owner.parameters()])


def main(rank, folder):
    # Each process knows the other through a file, so that no port is taken.
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    rows = slice(2 * rank, 2 * rank + 2)
    for kind in (Supervised, Joint, CPC):
        both = gradients(
            DistributedDataParallel(objective(kind)), rows, lambda x: torch.cat(all_gather(x))
        )
        if rank == 0:
            parts = [slice(0, 2), slice(2, 4)] if kind is CPC else [slice(0, 4)]
            alone = sum(gradients(objective(kind), part, lambda x: x) for part in parts)
            error = (both - alone / len(parts)).abs().max() / alone.abs().max()
            print(kind.__name__, float(error), float(alone.abs().max()))
    dist.barrier()


if __name__ == "__main__":
    import os

    child = os.fork()
    main(int(child == 0), sys.argv[1])
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_two_processes_learn_what_one_would(tmp_path: Path):
    """CPC's negatives are each process's own: two halves of a batch, averaged."""
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, *_ in lines] == ["Supervised", "Joint", "CPC"]
    for name, error, size in lines:
        assert float(error) < 1e-4, name
        assert float(size) > 0, name
