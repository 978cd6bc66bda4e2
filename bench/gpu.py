"""Pre-training at full width on a GPU: `python bench/gpu.py` writes docs/results/gpu.json and .md.

SlowFast NFNet-F0 at width 1, SimCLR and BYOL on pairs of noises in memory, in float32 and in bf16;
steps/s, memory, the share of time that the GPU was at work as its driver sees it, and the waiting
for data. Without a GPU it says so and ends well.
"""

from __future__ import annotations

import argparse
import subprocess
import threading
import time
from pathlib import Path

import torch
from byol_step import CROP_S, RATE, noise
from lightning.fabric import Fabric

from ossicle.model import create_model
from ossicle.pretrain.crops import CropBatches
from ossicle.pretrain.optimiser import clip_adaptively, create_optimiser
from ossicle.pretrain.settings import OBJECTIVES, RECIPES
from ossicle.pretrain.views import create_views
from ossicle.record import record, write_json
from ossicle.train import fit

ROOT = Path(__file__).resolve().parents[1]
QUERY = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]


class Watch(threading.Thread):
    """Asks the driver for its utilisation, in percent, twice a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: list[float] = []
        self.over = threading.Event()

    def run(self) -> None:
        """Until ``over`` is set."""
        while not self.over.wait(0.5):
            done = subprocess.run(QUERY, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                self.seen.append(float(done.stdout.split()[0]))


def measure(objective: str, precision: str, width: float, batch: int, steps: int) -> dict:
    """One run."""
    fabric = Fabric(accelerator="cuda", devices=1, precision=precision)
    model = create_model("slowfast_nfnet_f0", width=width)
    views = create_views(model.frontend, round(CROP_S * RATE), RECIPES[objective], 512)
    trained = OBJECTIVES[objective](model.backbone, views)
    batches = CropBatches(
        noise(2 * batch), batch_size=batch, crop_s=CROP_S, partners=views.needs_partners
    )
    optimiser = create_optimiser(trained, "adamw", 1e-3, 1e-2)
    clipped = trained.clipped()
    torch.cuda.reset_peak_memory_stats()
    watch = Watch()
    marks: list[float] = []

    def mark(done: int, total: int, seconds: float) -> None:
        if done == steps // 4:  # what comes before warms up
            torch.cuda.synchronize()
            marks.append(time.perf_counter())
            watch.start()

    run = fit(
        trained,
        batches,
        optimiser,
        steps=steps,
        fabric=fabric,
        before_update=lambda: clip_adaptively(clipped, 0.05),
        loaders=4,
        progress=mark,
    )
    torch.cuda.synchronize()
    watch.over.set()
    watch.join()
    speed = (steps - steps // 4) / (time.perf_counter() - marks[0])
    return {
        "objective": objective,
        "precision": precision,
        "width": width,
        "pairs a batch": batch,
        "steps/s": speed,
        "pairs/s": speed * batch,
        "memory_gb": torch.cuda.max_memory_allocated() / 1e9,
        "utilisation_percent": sum(watch.seen) / max(1, len(watch.seen)),
        "waiting": run.waiting,
        "loss": run.history[-1]["loss"],
    }


def main() -> None:
    """Measure and write; without a GPU say so."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here: nothing measured (docs/results/gpu.md is written where there is one)")
        return
    rows = [
        measure(objective, precision, arguments.width, arguments.batch, arguments.steps)
        for objective in ("simclr", "byol")
        for precision in ("32-true", "bf16-mixed")
    ]
    about = record(vars(arguments), seed=0)
    result = {"device": torch.cuda.get_device_name(), "rows": rows, "record": about}
    out = ROOT / "docs" / "results"
    write_json(out / "gpu.json", result)
    lines = [
        "# Pre-training on a GPU",
        "",
        f"`python bench/gpu.py`, {result['device']}, torch {about['versions']['torch']}, seed 0.",
        "",
        "| " + " | ".join(rows[0]) + " |",
        "|---" * len(rows[0]) + "|",
    ]
    for row in rows:
        cells = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()]
        lines.append("| " + " | ".join(cells) + " |")
    (out / "gpu.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
