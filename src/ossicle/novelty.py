"""How unlike anything that was learnt from is a sound? A score beside the head's, and a verdict.

A classifier spreads 100 % over the classes that it knows, whatever it hears; what it has never
heard it may even be surest of. `Novelty` also looks at the read-out vector itself: how far it lies
from the classes of the training clips. The score is the sum of two parts, on one scale:

* the relative Mahalanobis distance (Ren et al. 2021, arXiv 2106.09022, section 2): that to the
  nearest class mean under the covariance within classes (Lee et al., NeurIPS 2018, section 2.1),
  less that to the mean of all under the covariance of all. What makes all sounds unusual alike, a
  microphone, a level, falls out of the difference. Both are computed in a subspace of r dimensions;
  what lies outside of it is added by its length (as in probabilistic PCA: Tipping & Bishop 1999, J.
  R. Statist. Soc. B 61, 611-622), since sounds of quite another kind lie there;
* the entropy of the head's answer: unheard sounds that are near the known ones lie between classes.

That a score of the features and one of the answer add up is the idea of ViM (Wang et al., CVPR
2022). Fitted by `transfer.novelty_fit`; docs/results/novelty.md compares it with others.

The score becomes a number in [0, 1): the share of known sounds, of groups that were held out, that
are less novel. It is one minus a conformal p-value (Bates et al. 2023, Annals of Statistics 51,
149-178): known sounds of new groups exceed 0.95 in about 5 % of cases.

Symbols: B batch, D dimensions of the read-out, d those looked at, r rank, M means, Q known scores,
n items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ossicle.errors import OssicleError

#: Known sounds that are accepted, as a share: beyond it the verdict is "unknown".
ACCEPT = 0.95
UNKNOWN = "unknown"
MAX_RANK = 64
# Only memory would be eaten beyond these.
_MOST = {"first": 10_000_000, "dims": 1_000_000, "rank": MAX_RANK, "means": 10_000, "known": 5000}


class Novelty(nn.Module):
    """The score; all that it needs are buffers, so that a bundle holds it like weights.

    Args:
        first: the first column of the read-out that it looks at.
        dims: d, how many from there.
        rank: r, at most ``MAX_RANK``.
        means: M, the classes (1: the distance to the mean of all, nothing subtracted).
        known: Q.

    Buffers: mean, scale (d,): z = (x - mean) scale; basis (d, r): orthonormal directions, u = z
    basis; whiten (r, r): |u whiten| is the distance within classes; centres (M, r): class means, so
    whitened; total (r, r): |u whiten total| is the distance from all; outside (1,): weight of the
    squared length of z outside of the basis; unsure (1,): weight of the answer's entropy; known
    (Q,): scores of known sounds.

    Raises:
        OssicleError: a size that none can have.
    """

    mean: Tensor
    scale: Tensor
    basis: Tensor
    whiten: Tensor
    centres: Tensor
    total: Tensor
    outside: Tensor
    unsure: Tensor
    known: Tensor

    def __init__(self, *, first: int, dims: int, rank: int, means: int, known: int) -> None:
        super().__init__()
        sizes = {"first": first, "dims": dims, "rank": rank, "means": means, "known": known}
        for name, size in sizes.items():
            if type(size) is not int or not (name != "first") <= size <= _MOST[name]:
                raise OssicleError(f"novelty.{name} is {ascii(size)[:40]}, which it cannot be")
        if rank > dims:
            raise OssicleError(f"novelty of rank {rank} in {dims} dimensions")
        self.sizes = sizes
        shapes = {
            **{"mean": (dims,), "scale": (dims,), "basis": (dims, rank), "whiten": (rank, rank)},
            **{"centres": (means, rank), "total": (rank, rank), "outside": (1,), "unsure": (1,)},
            "known": (known,),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    def config(self) -> dict[str, int]:
        """The constructor's arguments, for a bundle."""
        return dict(self.sizes)

    @classmethod
    def from_config(cls, value: Any, width: int) -> Novelty:
        """What `config` gave, for a read-out of D = ``width`` columns; its buffers are zero.

        Raises:
            OssicleError: a name or size that it cannot have, or columns beyond the read-out.
        """
        names = set(_MOST)
        if not isinstance(value, Mapping) or set(value) != names:
            raise OssicleError(f"novelty: needs {', '.join(sorted(names))} and nothing else")
        made = cls(**value)
        if made.end > width:
            raise OssicleError(f"novelty looks beyond the {width} columns of the read-out")
        return made

    @property
    def end(self) -> int:
        """One past the last column of the read-out that it looks at."""
        return self.sizes["first"] + self.sizes["dims"]

    def distance(self, vectors: Tensor) -> Tensor:
        """(B, D) read-outs -> (B,) squared distances, higher is less like the known."""
        z = (vectors[:, self.sizes["first"] : self.end] - self.mean) * self.scale
        u = z @ self.basis
        # Rounding may leave less than nothing outside of the basis.
        beyond = (z.square().sum(1) - u.square().sum(1)).clamp_min(0)
        v = u @ self.whiten
        nearest = (v[:, None] - self.centres).square().sum(2).amin(1)
        return nearest - (v @ self.total).square().sum(1) + self.outside * beyond

    def score(self, vectors: Tensor, entropy: Tensor | None = None) -> Tensor:
        """(B, D) read-outs and (B,) entropies of the answers, see `entropy` -> (B,) raw scores."""
        distance = self.distance(vectors)
        return distance if entropy is None else distance + self.unsure * entropy

    def forward(self, vectors: Tensor, entropy: Tensor | None = None) -> Tensor:
        """As `score` -> (B,) novelty in [0, 1): the share of known sounds below it."""
        below = (self.known < self.score(vectors, entropy)[:, None]).sum(1)
        return below / (len(self.known) + 1)


def entropy(logits: Tensor, task: str) -> Tensor | None:
    """(B, K) logits -> (B,) nats: of one answer, or the sum over labels; None of numbers."""
    if task == "regression":
        return None
    if task == "classes":
        log = logits.log_softmax(-1)
        return -(log.exp() * log).sum(-1)
    # p log p + q log q of a sigmoid, which is finite whatever the logit.
    p = logits.sigmoid()
    return (softplus(logits) - p * logits).sum(-1)


def unknown_label(classes: Sequence[str]) -> str:
    """ "unknown", or where a class is called so, "unknown (novel)"."""
    return UNKNOWN if UNKNOWN not in classes else f"{UNKNOWN} (novel)"


def verdict(
    labels: Sequence[str],
    novelty: np.ndarray,
    classes: Sequence[str] = (),
    *,
    accept: float = ACCEPT,
) -> list[str]:
    """The labels, those of sounds unlike anything known replaced by `unknown_label`.

    Args:
        labels: n labels.
        novelty: (n,) from `Novelty`; NaN (it could not be told) leaves the label.
        classes: what the model knows.
        accept: the share of known sounds to accept, in (0, 1): those above are unknown.

    Raises:
        OssicleError: lengths differ, or `accept` is no such share.
    """
    if not 0 < accept < 1:
        raise OssicleError(f"the share of known sounds to accept is in (0, 1), not {accept}")
    values = np.asarray(novelty, float)
    if values.shape != (len(labels),):
        raise OssicleError(f"{len(labels)} labels and novelty of shape {values.shape}")
    word = unknown_label(classes)
    return [word if value > accept else label for label, value in zip(labels, values, strict=True)]
