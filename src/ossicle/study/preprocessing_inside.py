"""What enters the networks of the preprocessing study, and what their first layer makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.stats import skew
from scipy.stats import t as student
from torch import nn

from ossicle.backbones.choi_convnet import ChoiConvNet
from ossicle.backbones.clip_policy import ClipPolicy
from ossicle.frontend import create_frontend
from ossicle.pretrain.waveforms import Waveforms
from ossicle.study.preprocessing_plan import FACTORS, SCALINGS, SETTINGS, WEIGHTINGS, Setting

BINS = 100


def first_layer(network: nn.Module) -> dict[str, float]:
    """Mean absolute weight and bias of the first convolution, as trained and as it acts.

    A batch norm follows it, which takes every constant away again, the bias too. As it acts is
    after both: ``shift`` is what is added, ``gain`` what multiplies the input.
    """
    modules = list(network.modules())
    conv = next(m for m in modules if isinstance(m, nn.Conv2d))
    norm = next(m for m in modules if isinstance(m, nn.BatchNorm2d))
    bias, mean, variance = conv.bias, norm.running_mean, norm.running_var
    assert bias is not None
    assert mean is not None
    assert variance is not None
    with torch.no_grad():
        factor = norm.weight / torch.sqrt(variance + norm.eps)
        shift = norm.bias + (bias - mean) * factor
        gain = conv.weight * factor[:, None, None, None]
        return {
            "bias": float(bias.abs().mean()),
            "weight": float(conv.weight.abs().mean()),
            "shift": float(shift.abs().mean()),
            "gain": float(gain.abs().mean()),
        }


def bias_ratio(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """How much larger the first layer's numbers are under x10 than under x1.

    Returns:
        For each of ``first_layer``'s: "by_seed" (S,), the mean over settings and folds under x10
        over that under x1; "value", their geometric mean; "low" and "high", 95 %, by Student's t
        on the logarithms over seeds (NaN with one seed). None where no network was given.
    """
    if not rows or any("bias" not in row for row in rows):
        return None
    factors = {s.name: s.factor for s in SETTINGS}
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    found: dict[str, Any] = {}
    for key in ("bias", "weight", "shift", "gain"):
        means = np.array(
            [
                [
                    np.mean([r[key] for r in rows if r["seed"] == s and factors[r["setting"]] == f])
                    for f in FACTORS
                ]
                for s in seeds
            ]
        )
        nan = float("nan")
        entry = {"x1": means[:, 0].tolist(), "x10": means[:, 1].tolist()}
        if not (means > 0).all():
            found[key] = {**entry, "by_seed": None, "value": nan, "low": nan, "high": nan}
            continue
        logs = np.log(means[:, 1] / means[:, 0])
        middle, reach = logs.mean(), nan
        if len(logs) > 1:
            reach = student.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
        found[key] = {
            **entry,
            "by_seed": np.exp(logs).tolist(),
            "value": float(np.exp(middle)),
            "low": float(np.exp(middle - reach)),
            "high": float(np.exp(middle + reach)),
        }
    return found


def magnitudes(
    waveforms: Waveforms, items: np.ndarray, excerpt_s: float, power: float = 1.0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What enters the network, over the first excerpt of some clips.

    Args:
        waveforms: decoded clips.
        items: (m,) of them.
        excerpt_s: seconds.
        power: of |STFT|.

    Returns:
        ``bands``: "frequencies" (96,) in Hz, and for each weighting the mean of each band (96,),
        log, x1. ``histograms``: for "log" and "linear", unweighted, "edges" (101,) from the
        least value to the 99.5 % quantile, "share" (100,) of all values, "skewness".
    """
    rate = waveforms.sample_rate
    policy = ClipPolicy(excerpt_s, excerpt_s, ChoiConvNet.clip["fill"])
    heard = [
        policy.filled(waveforms.read(i, 0, min(int(waveforms.lengths[i]), n)), rate)
        for n in [round(excerpt_s * rate)]
        for i in items
    ]
    batch = torch.from_numpy(np.stack(heard))
    pictures = {}
    for setting in SETTINGS:
        if setting.factor == 1 and (setting.scaling == "log" or setting.weighting == "none"):
            front = create_frontend(**{**ChoiConvNet.frontend, **setting.frontend(power)})
            with torch.inference_mode():
                pictures[setting] = front(batch)[:, 0].numpy()
    bands: dict[str, Any] = {"frequencies": getattr(front, "frequencies").tolist()}  # noqa: B009
    for w in WEIGHTINGS:
        values = pictures[Setting("log", w, 1.0)]
        bands[w] = values.mean(axis=(0, 2), dtype=np.float64).tolist()
    histograms = {}
    for s in SCALINGS:
        values = pictures[Setting(s, "none", 1.0)].ravel().astype(np.float64)
        edges = np.linspace(values.min(), np.quantile(values, 0.995), BINS + 1)
        share = np.histogram(values, edges)[0] / len(values)
        histograms[s] = {
            "edges": edges.tolist(),
            "share": share.tolist(),
            "skewness": float(skew(values)),
        }
    return bands, histograms
