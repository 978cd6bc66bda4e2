"""A BYOL step, ours and by the published definition: `python bench/byol_step.py`.

The same network (SlowFast NFNet-F0, 1/8 width), batch and optimiser. "Published" is written as
BYOL's and BYOL-A's descriptions have it (arXiv 2006.07733, algorithm 1; 2204.07402, section III):
each augmentation clip by clip, the target updated tensor by tensor. Both losses must agree before
anything is timed. Also prints the share of a step that the network takes, and what waiting for data
takes of a whole run of ours. Writes docs/results/byol_step.json and .md.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ossicle.model import create_model
from ossicle.pretrain.byol import BYOL
from ossicle.pretrain.crops import CropBatches
from ossicle.pretrain.objective import embedding
from ossicle.pretrain.optimiser import create_optimiser
from ossicle.pretrain.views import create_views
from ossicle.pretrain.waveforms import Waveforms
from ossicle.record import record, write_json
from ossicle.train import Step, fit

ROOT = Path(__file__).resolve().parents[1]
CROP_S, RATE = 1.28, 16_000


def noise(n_clips: int, seconds: float = 4.0) -> Waveforms:
    """Coloured noises in memory, as if they had been decoded."""
    rng = np.random.default_rng(0)
    size = round(seconds * RATE)
    clips = []
    for _ in range(n_clips):
        x = np.cumsum(rng.standard_normal(size)) - 0.5
        x = np.diff(x, prepend=0) + rng.uniform(0, 2) * np.sin(np.arange(size) * rng.uniform(0, 1))
        clips.append(np.round(9000 * x / np.abs(x).max()).astype(np.int16))
    lengths = np.full(n_clips, size)
    names = tuple(f"{i}.wav" for i in range(n_clips))
    starts = size * np.arange(n_clips)
    return Waveforms(np.concatenate(clips), np.arange(n_clips), starts, lengths, names, [], RATE)


class Published(nn.Module):
    """BYOL as its algorithm 1 reads, on given pictures."""

    def __init__(self, ours: BYOL, decay: float) -> None:
        super().__init__()
        self.online = nn.ModuleList(
            copy.deepcopy(m) for m in (ours.backbone, ours.projector, ours.predictor)
        )
        self.target = nn.ModuleList(
            copy.deepcopy(m) for m in (ours.target_backbone, ours.target_projector)
        )
        self.decay = decay

    def loss(self, pictures: list[torch.Tensor]) -> torch.Tensor:
        """The symmetrised distance ()."""
        backbone, projector, predictor = self.online
        q = [F.normalize(predictor(projector(embedding(backbone(x)))), dim=1) for x in pictures]
        with torch.no_grad():
            encode, project = self.target
            z = [F.normalize(project(embedding(encode(x))), dim=1) for x in pictures]
        return (2 - 2 * (q[0] * z[1]).sum(1)).mean() + (2 - 2 * (q[1] * z[0]).sum(1)).mean()

    @torch.no_grad()
    def follow(self) -> None:
        """The moving average, tensor by tensor."""
        pairs = zip(self.target, self.online, strict=False)
        for target, online in pairs:
            for a, x in zip(target.parameters(), online.parameters(), strict=True):
                a.copy_(self.decay * a + (1 - self.decay) * x)
            for a, x in zip(target.buffers(), online.buffers(), strict=True):
                a.copy_(self.decay * a + (1 - self.decay) * x if a.is_floating_point() else x)


def main() -> None:
    """Compare, time, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = create_model("slowfast_nfnet_f0", width=0.125, drop_rate=0.0)
    views = create_views(model.frontend, round(CROP_S * RATE), "byol", 512)
    ours = BYOL(model.backbone, views).train()
    theirs = Published(ours, 0.99).train()
    batches = CropBatches(noise(2 * arguments.batch), batch_size=arguments.batch, crop_s=CROP_S)
    optimisers = [create_optimiser(m, "adamw", 1e-3, 1e-2) for m in (ours, theirs)]
    spent = {"views, ours": 0.0, "views, clip by clip": 0.0, "network": 0.0, "ours": 0.0}
    spent |= {"published": 0.0}
    apart = 0.0
    for number in range(arguments.steps + 1):
        if number == 1:  # the first warms up
            spent = dict.fromkeys(spent, 0.0)
        batch = batches.batch(number)
        seed = torch.Generator().manual_seed(number)
        step = Step(number, arguments.steps, seed, arguments.batch, batch.rows, lambda x: x)
        start = time.perf_counter()
        pictures = views(batch, step)
        spent["views, ours"] += time.perf_counter() - start
        # One clip after the other, as data loaders of one process do it.
        start = time.perf_counter()
        for i in range(arguments.batch):
            one = batch._replace(waveforms=batch.waveforms[i : i + 1], size=1, rows=slice(0, 1))
            views.eval()(one, Step(number, 1, seed, 1, slice(0, 1), lambda x: x))
            views.train()
        spent["views, clip by clip"] += time.perf_counter() - start
        ours.views = Given(pictures)
        start = time.perf_counter()
        loss, _ = ours(batch, step)
        optimisers[0].zero_grad(set_to_none=True)
        loss.backward()
        spent["network"] += time.perf_counter() - start
        optimisers[0].step()
        ours.after_update(step)
        spent["ours"] += time.perf_counter() - start
        ours.views = views
        start = time.perf_counter()
        other = theirs.loss(pictures)
        optimisers[1].zero_grad(set_to_none=True)
        other.backward()
        optimisers[1].step()
        theirs.follow()
        spent["published"] += time.perf_counter() - start
        apart = max(apart, abs(float(loss.detach()) - float(other.detach())))
    mean = {name: seconds / arguments.steps for name, seconds in spent.items()}
    whole = mean["views, ours"] + mean["ours"]
    reference = mean["views, clip by clip"] + mean["published"]
    fresh = create_model("slowfast_nfnet_f0", width=0.125)
    objective = BYOL(
        fresh.backbone, create_views(fresh.frontend, round(CROP_S * RATE), "byol", 512)
    )
    optimiser = create_optimiser(objective, "adamw", 1e-3, 1e-2)
    run = fit(objective, batches, optimiser, steps=arguments.steps)
    result = {
        "largest difference of the losses": apart,
        "steps/s, ours": 1 / whole,
        "steps/s, published": 1 / reference,
        "ratio": reference / whole,
        "share of our step in forward and backward": mean["network"] / whole,
        "share of a run spent waiting for data": run.waiting,
        "seconds a step": mean,
        "record": record(vars(arguments), seed=0),
    }
    out = ROOT / "docs" / "results"
    write_json(out / "byol_step.json", result)
    about = result["record"]
    lines = [
        "# A BYOL step",
        "",
        f"`python bench/byol_step.py`: SlowFast NFNet-F0 at 1/8 width, {arguments.batch} pairs of "
        f"{CROP_S} s, {arguments.threads} threads of {about['platform']['cpu']}, torch "
        f"{about['versions']['torch']}, seed 0, mean of {arguments.steps} steps. Published: by the "
        "definition, augmentations clip by clip, the moving average tensor by tensor; the losses "
        f"of the two differ by at most {apart:.1e}.",
        "",
        "| what | value |",
        "|---|---|",
        *[f"| {k} | {v:.4g} |" for k, v in result.items() if isinstance(v, float)],
    ]
    (out / "byol_step.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines[4:]))


class Given(nn.Module):
    """Views that are already there."""

    def __init__(self, pictures: list[torch.Tensor]) -> None:
        super().__init__()
        self.pictures = pictures

    def forward(self, batch: object, step: object) -> list[torch.Tensor]:
        """The pictures."""
        return self.pictures


if __name__ == "__main__":
    main()
