"""Multiplicative updates of non-negative matrix factorisation, as functions of tensors.

V (F, T), not negative, is told as W (F, K) @ H (K, T): W the bases, H how active each is when. What
is minimised, for all three divergences d, is::

    sum over f, t of d(V | WH)  +  sparsity * sum over k, t of ||W_k||_2 H_kt

which is an L1 norm of the activations of bases of unit length: `normalised` moves a basis' length
into its activations and changes neither term. The updates are minimisers of bounds from above
(majorisation-minimisation), so no update raises the objective: Lee & Seung, 2001, without
sparsity; Févotte & Idier, 2011, for the exponent of Itakura-Saito; Hoyer, 2002, for sparse
activations. With sparsity, the length of a basis is bounded by a parabola
(``||w|| <= (||w||^2 + ||v||^2) / 2||v||``), which makes the bound's minimum the root of a
polynomial for each entry of W.

The Euclidean length is no matter of taste. Were the columns to add up to 1, the updates of H for
Kullback-Leibler would end with all activations divided by 1 + sparsity, and no mask would change.
Le Roux, Weninger & Hershey, 2015 (MERL TR2015-023) discuss why the length must be in the objective.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ossicle.errors import OssicleError

DIVERGENCES = ("kl", "euclidean", "itakura_saito")
# Modelled values are at least this, so that nothing is divided by zero; spectra are around 1.
FLOOR = 1.1920929e-07
# Steps of Newton's method, from above, for a cubic; more change no bit of float32.
_NEWTON_STEPS = 8


def check_divergence(kind: str) -> str:
    """The name, if it is one of `DIVERGENCES`.

    Raises:
        OssicleError: it is not.
    """
    if kind not in DIVERGENCES:
        raise OssicleError(f"unknown divergence {kind!r}: choose one of {', '.join(DIVERGENCES)}")
    return kind


def model(bases: Tensor, activations: Tensor) -> Tensor:
    """W (F, K), H (K, T) -> WH (F, T), nowhere below `FLOOR`."""
    return (bases @ activations).clamp_min(FLOOR)


def divergence(spectrum: Tensor, modelled: Tensor, kind: str) -> Tensor:
    """How far V (F, T) is from what is said of it, summed over all bins.

    Half the squared difference; ``v log(v/m) - v + m``; ``v/m - log(v/m) - 1``.

    Args:
        spectrum: not negative.
        modelled: (F, T), above zero.
        kind: one of `DIVERGENCES`.
    """
    if kind == "euclidean":
        return 0.5 * (spectrum - modelled).square().sum()
    if kind == "kl":
        return (torch.xlogy(spectrum, spectrum / modelled) - spectrum + modelled).sum()
    ratio = spectrum.clamp_min(FLOOR) / modelled
    return (ratio - ratio.log() - 1).sum()


def objective(
    spectrum: Tensor, bases: Tensor, activations: Tensor, kind: str, sparsity: float = 0.0
) -> Tensor:
    """What the updates never raise: the module's formula. V (F, T), W (F, K), H (K, T) -> ()."""
    lengths = torch.linalg.vector_norm(bases, dim=0)
    penalty = sparsity * (lengths @ activations).sum()
    return divergence(spectrum, model(bases, activations), kind) + penalty


def updated_activations(
    spectrum: Tensor, bases: Tensor, activations: Tensor, kind: str, sparsity: float = 0.0
) -> Tensor:
    """One update of H. Frames do not know of each other: each column has its own update.

    Args:
        spectrum: V (F, T).
        bases: W (F, K); where there is sparsity, columns of Euclidean length 1.
        activations: H (K, T), above zero: what is zero stays so.
        kind: one of `DIVERGENCES`.
        sparsity: weight of the sum of H.

    Returns:
        (K, T).
    """
    modelled = model(bases, activations)
    if kind == "euclidean":
        above, below = bases.T @ spectrum, bases.T @ modelled
    elif kind == "kl":
        above, below = bases.T @ (spectrum / modelled), bases.sum(0)[:, None]
    else:
        inverse = modelled.reciprocal()
        above = bases.T @ (spectrum.clamp_min(FLOOR) * inverse * inverse)
        below = bases.T @ inverse
    factor = above / (below + sparsity).clamp_min(FLOOR)
    return activations * (factor.sqrt() if kind == "itakura_saito" else factor)


def updated_bases(
    spectrum: Tensor, bases: Tensor, activations: Tensor, kind: str, sparsity: float = 0.0
) -> Tensor:
    """One update of W, which may have columns of any length.

    Args:
        spectrum: V (F, T).
        bases: W (F, K), no column all zero.
        activations: H (K, T).
        kind: one of `DIVERGENCES`.
        sparsity: as in `objective`.

    Returns:
        (F, K); give it to `normalised`.
    """
    modelled = model(bases, activations)
    # The parabola that bounds the penalty is curve / 2 * w ** 2 for each entry w.
    lengths = torch.linalg.vector_norm(bases, dim=0).clamp_min(FLOOR)
    curve = sparsity * activations.sum(1) / lengths
    if kind == "euclidean":
        below = modelled @ activations.T + curve * bases
        return bases * (spectrum @ activations.T) / below.clamp_min(FLOOR)
    if kind == "kl":
        # -a log w + b w + curve / 2 w ** 2 is least at a root of a square.
        a = bases * ((spectrum / modelled) @ activations.T)
        b = activations.sum(1)
        return 2 * a / (b + (b * b + 4 * a * curve).sqrt()).clamp_min(FLOOR)
    # a / w + b w + curve / 2 w ** 2: of a cubic.
    inverse = modelled.reciprocal()
    a = bases.square() * ((spectrum.clamp_min(FLOOR) * inverse * inverse) @ activations.T)
    b = (inverse @ activations.T).clamp_min(FLOOR)
    w = (a / b).sqrt()
    if sparsity:
        for _ in range(_NEWTON_STEPS):
            value = (curve * w + b) * w * w - a
            w = w - value / ((3 * curve * w + 2 * b) * w).clamp_min(FLOOR)
    return w.clamp_min(0)


def normalised(bases: Tensor, activations: Tensor) -> tuple[Tensor, Tensor]:
    """W, H with columns of W of Euclidean length 1 and the same WH; empty columns stay."""
    lengths = torch.linalg.vector_norm(bases, dim=0)
    lengths = torch.where(lengths > 0, lengths, torch.ones_like(lengths))
    return bases / lengths, activations * lengths[:, None]


def factorised(
    spectrum: Tensor,
    bases: Tensor,
    kind: str,
    sparsity: float = 0.0,
    *,
    n_iterations: int,
    tolerance: float = 0.0,
    check_every: int = 10,
) -> tuple[Tensor, Tensor, list[float]]:
    """Learn bases from a spectrum.

    Args:
        spectrum: V (F, T).
        bases: (F, K) to start from; what is zero stays so.
        kind: one of `DIVERGENCES`.
        sparsity: as in `objective`.
        n_iterations: at most; each updates H, then W.
        tolerance: it ends where the objective sinks by less than this share of itself within
            ``check_every`` iterations; 0: never.
        check_every: iterations between looks at the objective.

    Returns:
        W (F, K) with columns of length 1, H (K, T), and the objective at each look.
    """
    lengths = torch.linalg.vector_norm(bases, dim=0).clamp_min(FLOOR)
    bases = bases / lengths
    # On the scale of the frames, all alike.
    level = spectrum.sum(0, keepdim=True) / bases.sum().clamp_min(FLOOR)
    activations = level.clamp_min(FLOOR).expand(bases.shape[1], -1)
    history: list[float] = []
    for number in range(n_iterations):
        activations = updated_activations(spectrum, bases, activations, kind, sparsity)
        bases = updated_bases(spectrum, bases, activations, kind, sparsity)
        bases, activations = normalised(bases, activations)
        if (number + 1) % check_every == 0:
            history.append(float(objective(spectrum, bases, activations, kind, sparsity)))
            if len(history) > 1 and history[-2] - history[-1] < tolerance * history[-2]:
                break
    return bases, activations, history
