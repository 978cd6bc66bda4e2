"""The estimator for people who have files and labels: scikit-learn's verbs on sound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from ossicle import bundle
from ossicle.backbones import DEFAULT_BACKBONE
from ossicle.datasets.clips import Clips
from ossicle.errors import BundleError, DataError, OssicleError
from ossicle.features import Clip, as_clips, extract
from ossicle.model import Model, create_model
from ossicle.predict import MULTILABEL_THRESHOLD, predict
from ossicle.transfer.fit import fit_model


class AudioClassifier(ClassifierMixin, BaseEstimator):
    """Frozen network, every layer read out, a probe on top: ``fit(paths, labels, groups=...)``.

    X is a list of paths, of (samples, sample_rate) pairs with samples (N,) or (C, N), or a data
    frame with a column ``path`` (and ``onset`` and ``offset`` in seconds).

    Args:
        backbone: a name in ``ossicle.list_models()``.
        pretrained: with its published weights.
        layers: "all", "last", names, numbers, ranges; see ``Model.select_layers``.
        probe: "ridge", "logistic", "svm" or "mlp".
        choose_layers: choose among the layers on inner folds.
        workers: threads that read and embed.
        random_state: of random weights and inner folds.

    Attributes (after ``fit``):
        classes_: (K,) class labels, sorted; without those whose clips could all not be used.
        model_: the network with its head.
        skipped_: (row, path, reason) of training clips that could not be used.
    """

    def __init__(
        self,
        backbone: str = DEFAULT_BACKBONE,
        *,
        pretrained: bool = True,
        layers: str | Sequence[str | int] = "all",
        probe: str = "ridge",
        choose_layers: bool = False,
        workers: int = 1,
        random_state: int = 0,
    ) -> None:
        self.backbone = backbone
        self.pretrained = pretrained
        self.layers = layers
        self.probe = probe
        self.choose_layers = choose_layers
        self.workers = workers
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None) -> AudioClassifier:
        """Learn to tell the labels apart.

        Args:
            X: clips, see above.
            y: a label for each.
            groups: recording, speaker or site of each; choices are made across groups.

        Raises:
            DataError: lengths differ, one class only, or no clip can be used.
        """
        items = _items(X)
        labels = [label.item() if isinstance(label, np.generic) else label for label in y]
        if any(np.ndim(label) for label in labels):
            raise DataError("y must hold one label for each clip, not lists of labels")
        if any(label is None or label != label for label in labels):
            raise DataError("y holds None or NaN: leave out clips without a label")
        if len(items) != len(labels):
            raise DataError(f"{len(items)} clips and {len(labels)} labels: one label for each clip")
        if groups is not None and len(groups) != len(labels):
            raise DataError(f"{len(groups)} groups for {len(labels)} clips: one for each clip")
        classes = np.unique(np.asarray(labels))
        if not labels:
            raise DataError("no clips to learn from")
        if len(classes) < 2:
            raise DataError(f"there is one class only ({classes[0]}): nothing to tell apart")
        names = [str(label) for label in np.asarray(labels)]
        base = create_model(
            self.backbone,
            pretrained=self.pretrained,
            **({} if self.pretrained else {"seed": self.random_state}),
        )
        table = extract(base, items, layers=self.layers, workers=self.workers)
        heard = np.unique(np.asarray(labels)[table.index])
        if len(heard) < 2:
            raise DataError(f"{len(table.skipped)} clips cannot be used; one class is left")
        clips = _clips(names, groups, tuple(str(label) for label in classes))
        self.skipped_ = table.skipped
        self.model_ = fit_model(
            base, table, clips, probe=self.probe, choose=self.choose_layers, seed=self.random_state
        )
        self.classes_ = heard
        return self

    def predict(self, X: Any) -> np.ndarray:
        """(n,) most probable label of each clip.

        A loaded model of several labels a clip gives (n, K) 0/1, one of a regression (n,) numbers.

        Raises:
            DataError: a clip cannot be used; the message names it.
        """
        scores = self._scores(X)
        if self.model_.task == "regression":
            return scores[:, 0]
        if self.model_.task == "multilabel":
            return (scores >= MULTILABEL_THRESHOLD).astype(np.int64)
        return self.classes_[scores.argmax(1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n, K) probabilities in the order of ``classes_``.

        Raises:
            DataError: a clip cannot be used; the message names it.
            OssicleError: the model is of a regression.
        """
        scores = self._scores(X)
        if self.model_.task == "regression":
            raise OssicleError("a regression has no probabilities: use predict")
        return scores

    def _scores(self, X: Any) -> np.ndarray:
        """(n, K) float64 scores of all clips."""
        check_is_fitted(self, "model_")
        frame, skipped = predict(self.model_, _items(X), workers=self.workers)
        if skipped:
            _, path, reason = skipped[0]
            raise DataError(f"{path}: {reason} ({len(skipped)} of the clips cannot be used)")
        assert self.model_.head is not None
        return frame.iloc[:, -self.model_.head.sizes[-1] :].to_numpy(np.float64)

    def save(self, path: str | Path) -> Path:
        """Write the bundle that ``ossicle.load`` and ``ossicle predict`` read."""
        check_is_fitted(self, "model_")
        return bundle.save(self.model_, path)


def load(path: str | Path) -> AudioClassifier:
    """A classifier from a bundle; ``.model_`` is the network itself.

    Labels are strings, as they stand in the bundle.

    Raises:
        BundleError: it is no bundle, is broken, or its model has no head.
    """
    model = bundle.load(path)
    if model.head is None:
        raise BundleError(f"{path}: holds a network without a head; ossicle.bundle.load reads it")
    return from_model(model)


def from_model(model: Model) -> AudioClassifier:
    """A fitted classifier around a model with a head."""
    classifier = AudioClassifier(
        model.info.get("name", DEFAULT_BACKBONE), pretrained=bool(model.info.get("pretrained"))
    )
    classifier.model_ = model
    classifier.classes_ = np.array(model.classes, dtype=object)
    classifier.skipped_ = []
    return classifier


def _items(X: Any) -> Any:
    """What ``extract`` and ``predict`` take."""
    if isinstance(X, Clips):
        return X
    if isinstance(X, pd.DataFrame):
        return _read_frame(X)
    return as_clips(X) if not isinstance(X, np.ndarray) else as_clips(X.tolist())


def _read_frame(frame: pd.DataFrame) -> list[Any]:
    """Clips of a data frame with a column ``path``, and maybe ``onset`` and ``offset`` (s).

    Raises:
        DataError: there is no such column.
    """
    if "path" not in frame:
        raise DataError(f"the table has no column path (it has {', '.join(map(str, frame))})")

    def seconds(name: str) -> Iterable[float | None]:
        if name not in frame:
            return [None] * len(frame)
        return [None if pd.isna(value) else float(value) for value in frame[name]]

    rows = zip(frame["path"], seconds("onset"), seconds("offset"), strict=True)
    return [Clip(str(path), onset, offset) for path, onset, offset in rows]


def _clips(labels: list[str], groups: Any, classes: tuple[str, ...]) -> Clips:
    """A clips table that carries labels and groups alone."""
    n = len(labels)
    table = pd.DataFrame(
        {
            "path": [str(i) for i in range(n)],
            "label": labels,
            "onset": np.nan,
            "offset": np.nan,
            "group": [str(i) for i in range(n)] if groups is None else [str(g) for g in groups],
            "split": None,
            "fold": None,
        }
    )
    source = "each clip" if groups is None else "given"
    return Clips(table, "classes", classes, Path(), [], source)
