"""What every network costs: `python bench/networks.py` writes docs/results/networks.*."""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ossicle.backbones import BACKBONES
from ossicle.heads import count_parameters
from ossicle.model import create_model
from ossicle.record import record, write_json

ROOT = Path(__file__).resolve().parents[1]
# Also the narrow ones that fit a small machine.
VARIANTS = [(name, {}) for name in sorted(BACKBONES)] + [
    ("nfnet_f0", {"width": 0.125}),
    ("slowfast_nfnet_f0", {"width": 0.25}),
    ("slowfast_nfnet_f0", {"width": 0.125}),
    ("resnet18", {"multiscale": True}),
    ("densenet121", {"multiscale": True}),
]
ABOUT = """A forward pass is `Model.clip_features` of 10 s of noise (or the network's shortest clip,
where that is longer): front end, network, pooling of all layers. A training step is front end,
forward and backward of the network, and Adam, on four clips of 4 s (or that shortest). The quickest
of some runs, as a multiple of real time and as a ratio to YAMNet in the same run. Multiply-adds
are what torch's FlopCounterMode counts, for a second of audio; Fourier transforms, and with them
the time convolution of cldnn, are not among them. Random weights."""
CLIP_S, TRAIN_S, TRAIN_BATCH = 10.0, 4.0, 4


def shortest(function: Callable[[], object], repeats: int) -> float:
    """Seconds of the quickest of some calls; the first one warms up."""
    function()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return min(taken)


def measure(name: str, config: dict, repeats: int) -> dict:
    """One row."""
    model = create_model(name, **config)
    rng = np.random.default_rng(0)
    rate = model.sample_rate
    seconds = max(CLIP_S, model.clip.min_s)
    clip = (0.1 * rng.standard_normal(round(seconds * rate))).astype(np.float32)
    forward = shortest(lambda: model.clip_features(clip), repeats)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.backbone(model.frontend(torch.from_numpy(clip)[None]))
    row = {
        "network": name,
        "config": config,
        "parameters": count_parameters(model.backbone),
        "layers": len(model.layers),
        "mega_multiply_adds_per_second": counter.get_total_flops() / 2e6 / seconds,
        "forward_times_real_time": seconds / forward,
        "training_times_real_time": None,
    }
    if not row["parameters"]:
        return row
    train_s = max(TRAIN_S, model.clip.min_s)
    batch = 0.1 * torch.randn(TRAIN_BATCH, round(train_s * rate))
    network = model.backbone.requires_grad_(True).train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-5)

    def step() -> None:
        with torch.no_grad():
            picture = model.frontend(batch)
            if picture.dim() == 4:
                picture = picture.contiguous(memory_format=torch.channels_last)
        maps = network(picture)
        loss = maps[next(reversed(maps))].square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    row["training_times_real_time"] = TRAIN_BATCH * train_s / shortest(step, max(1, repeats // 2))
    return row


def table(rows: list[dict]) -> str:
    """Markdown."""
    (yamnet,) = [row for row in rows if row["network"] == "yamnet"]
    lines = [
        "| network | parameters | layers | Mega multiply-adds / s of audio | forward, x real time "
        "| ratio to yamnet | training step, x real time | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        config = ", ".join(f"{k}={v}" for k, v in row["config"].items())
        forward, training = row["forward_times_real_time"], row["training_times_real_time"]
        ratio = f"{training / yamnet['training_times_real_time']:.2f}" if training else "-"
        lines.append(
            f"| {row['network']}{f' ({config})' if config else ''} | {row['parameters']:,} "
            f"| {row['layers']} | {row['mega_multiply_adds_per_second']:,.0f} | {forward:,.0f} "
            f"| {forward / yamnet['forward_times_real_time']:.2f} "
            f"| {f'{training:,.0f}' if training else '-'} | {ratio} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure all networks and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for name, config in VARIANTS:
        rows.append(measure(name, config, arguments.repeats))
        print(rows[-1], flush=True)
    result = {"rows": rows, "record": record(vars(arguments), seed=0)}
    out = ROOT / "docs" / "results"
    write_json(out / "networks.json", result)
    machine = result["record"]["platform"]
    text = (
        "# What every network costs\n\n"
        f"`python bench/networks.py`, one core of {machine['cpu']}, torch "
        f"{result['record']['versions']['torch']}, seed 0. {' '.join(ABOUT.split())}\n\n"
    )
    (out / "networks.md").write_text(text + table(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
