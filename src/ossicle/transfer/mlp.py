"""One hidden layer, by scikit-learn, as in the HEAR benchmark; stopped where held-out clips say.

Turian et al. (HEAR, 2022, section 3.3) train a shallow network on frozen features and stop early
on validation clips. Here one network an inner fold is trained in step with the others; after each
epoch all clips have a held-out decision, and training stops when their loss has not fallen for
`patience` epochs. The network that is kept is trained on all clips for the best number of epochs.
Wide features are first rotated to their clips' coordinates (see `span`) and scaled to unit mean
variance; the rotation is folded into the first layer afterwards.

Axes: n clips, d dimensions, h hidden units, k classes, labels or outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier, MLPRegressor

from ossicle.transfer.calibrate import calibrate
from ossicle.transfer.estimator import ClassifierProbe, RegressorProbe, regression_loss
from ossicle.transfer.problem import Problem
from ossicle.transfer.span import Span, linear_decisions

Layers = list[tuple[np.ndarray, np.ndarray]]
DECAYS = (1e-4, 1e-1)


def _layers(model: Any) -> Layers:
    """[(h, d) weight and (h,) bias, (k, h) weight and (k,) bias] of a fitted network."""
    return [
        (w.T.astype(np.float64), b.astype(np.float64))
        for w, b in zip(model.coefs_, model.intercepts_, strict=True)
    ]


def _forward(layers: Layers, X: np.ndarray) -> np.ndarray:
    """(n, k) outputs before the last non-linearity: ReLU between the layers."""
    for weight, bias in layers[:-1]:
        X = np.maximum(linear_decisions(X, weight, bias), 0.0)
    return linear_decisions(X, *layers[-1])


def _train(
    make: Callable[[float], Callable[[np.ndarray], Callable[[], Layers]]],
    Z: np.ndarray,
    folds: np.ndarray,
    k: int,
    loss: Callable[[np.ndarray], float],
    decays: Sequence[float],
    max_epochs: int,
    patience: int,
) -> tuple[Layers, np.ndarray, dict[str, float], dict[tuple[float, int], float]]:
    """Choose weight decay and epochs in step over the folds, then train on all clips.

    Args:
        make: decay -> (clips to train on -> (train one epoch -> layers)).
        Z: (n, r) inputs.
        folds: (n,) inner folds.
        k: outputs.
        loss: of (n, k) held-out decisions.
        decays: weight decays to try.
        max_epochs, patience: when to stop.

    Returns:
        The layers, the (n, k) held-out decisions, the setting, and (decay, epoch) -> loss.
    """
    best: tuple[float, float, int, np.ndarray] | None = None
    losses: dict[tuple[float, int], float] = {}
    for decay in decays:
        steps = [(folds == fold, make(decay)(folds != fold)) for fold in np.unique(folds)]
        lowest, waited = np.inf, 0
        for epoch in range(1, max_epochs + 1):
            held_out = np.empty((len(Z), k))
            for out, step in steps:
                held_out[out] = _forward(step(), Z[out])
            losses[decay, epoch] = current = loss(held_out)
            if best is None or current < best[0]:
                best = (current, decay, epoch, held_out)
            lowest, waited = (current, 0) if current < lowest - 1e-6 else (lowest, waited + 1)
            if waited >= patience:
                break
    assert best is not None
    _, decay, epochs, held_out = best
    step = make(decay)(np.ones(len(Z), dtype=bool))
    layers = [step() for _ in range(epochs)][-1]
    return layers, held_out, {"decay": decay, "epochs": epochs}, losses


def _inputs(problem: Problem) -> tuple[Span, np.ndarray, float]:
    """The span, (n, r) float32 inputs of unit mean variance, and the factor that made it so."""
    span = Span(problem.X, problem.block_sizes)
    Z = span.coordinates()
    factor = 1.0 / max(float(np.sqrt(np.mean(Z**2))), 1e-12) if Z.size else 1.0
    return span, (Z * factor).astype(np.float32), factor


def _unfold(layers: Layers, span: Span, factor: float) -> Layers:
    """The same network for raw features."""
    (weight, bias), *rest = layers
    return [span.unscale(span.lift(weight.T * factor), bias), *rest]


class MLPProbe(ClassifierProbe):
    """A network of one hidden layer for classes and for multi-label targets.

    Args:
        hidden: units of the hidden layer.
        decays: weight decays to choose from.
        max_epochs: at most this many epochs.
        patience: epochs without a lower held-out loss before stopping.
        learning_rate: of Adam.
        class_weight, task, n_folds: as for `RidgeProbe`.
        random_state: draws the initial weights, the order of clips and the inner folds.
    """

    def __init__(
        self,
        hidden: int = 1024,
        *,
        decays: Sequence[float] = DECAYS,
        max_epochs: int = 200,
        patience: int = 10,
        learning_rate: float = 1e-3,
        class_weight: Any = None,
        task: str = "auto",
        n_folds: int = 5,
        random_state: Any = 0,
    ) -> None:
        self.hidden = hidden
        self.decays = decays
        self.max_epochs = max_epochs
        self.patience = patience
        self.learning_rate = learning_rate
        self.class_weight = class_weight
        self.task = task
        self.n_folds = n_folds
        self.random_state = random_state

    def _fit(self, problem: Problem) -> np.ndarray:
        span, Z, factor = _inputs(problem)
        k = problem.targets.shape[1]
        if problem.task == "classes":
            y, classes = problem.targets.argmax(axis=1), np.arange(k)
        elif k == 1:
            y, classes = problem.targets[:, 0].astype(int), np.arange(2)
        else:
            y, classes = problem.targets.astype(int), np.arange(k)
        paired = problem.task == "classes" and k == 2

        def make(decay: float) -> Callable[[np.ndarray], Callable[[], Layers]]:
            def start(inside: np.ndarray) -> Callable[[], Layers]:
                model = MLPClassifier(
                    hidden_layer_sizes=(self.hidden,),
                    alpha=decay,
                    learning_rate_init=self.learning_rate,
                    random_state=self.random_state,
                )
                inputs, target, weight = Z[inside], y[inside], problem.weight[inside]

                def epoch() -> Layers:
                    model.partial_fit(inputs, target, classes=classes, sample_weight=weight)
                    first, (w, b) = _layers(model)
                    if paired:  # one output for two classes: half of it for, half against
                        w, b = np.concatenate([-w, w]) / 2, np.concatenate([-b, b]) / 2
                    return [first, (w, b)]

                return epoch

            return start

        layers, held_out, self.chosen_, self.inner_losses_ = _train(
            make,
            Z,
            problem.folds,
            k,
            lambda d: calibrate(d, problem.targets, problem.weight, problem.task).loss,
            self.decays,
            self.max_epochs,
            self.patience,
        )
        self.layers_ = _unfold(layers, span, factor)
        return held_out

    def _decide(self, X: np.ndarray) -> np.ndarray:
        return _forward(self.layers_, X)

    def mlp_head(self) -> Layers:
        """[(h, d) weight and (h,) bias, (k, h) weight and (k,) bias], float32, for raw features.

        With ReLU between them they yield logits whose softmax (sigmoid if multi-label) is
        `predict_proba`: standardising and calibration are inside.
        """
        layers = [*self.layers_[:-1], self.calibration_.fold(*self.layers_[-1])]
        return [(w.astype(np.float32), b.astype(np.float32)) for w, b in layers]


class MLPRegressionProbe(RegressorProbe):
    """A network of one hidden layer for numbers.

    Args:
        hidden, decays, max_epochs, patience, learning_rate: as for `MLPProbe`.
        n_folds: inner folds.
        random_state: draws the initial weights, the order of clips and the inner folds.
    """

    def __init__(
        self,
        hidden: int = 1024,
        *,
        decays: Sequence[float] = DECAYS,
        max_epochs: int = 200,
        patience: int = 10,
        learning_rate: float = 1e-3,
        n_folds: int = 5,
        random_state: Any = 0,
    ) -> None:
        self.hidden = hidden
        self.decays = decays
        self.max_epochs = max_epochs
        self.patience = patience
        self.learning_rate = learning_rate
        self.n_folds = n_folds
        self.random_state = random_state

    def _fit(self, problem: Problem) -> np.ndarray:
        span, Z, factor = _inputs(problem)
        mean, deviation = problem.targets.mean(axis=0), problem.targets.std(axis=0)
        deviation = np.where(deviation > 0, deviation, 1.0)
        y = (problem.targets - mean) / deviation
        single = y.shape[1] == 1

        def make(decay: float) -> Callable[[np.ndarray], Callable[[], Layers]]:
            def start(inside: np.ndarray) -> Callable[[], Layers]:
                model = MLPRegressor(
                    hidden_layer_sizes=(self.hidden,),
                    alpha=decay,
                    learning_rate_init=self.learning_rate,
                    random_state=self.random_state,
                )
                inputs, target = Z[inside], y[inside, 0] if single else y[inside]

                def epoch() -> Layers:
                    model.partial_fit(inputs, target)
                    return _layers(model)

                return epoch

            return start

        layers, held_out, self.chosen_, self.inner_losses_ = _train(
            make,
            Z,
            problem.folds,
            y.shape[1],
            lambda predicted: regression_loss(predicted, y),
            self.decays,
            self.max_epochs,
            self.patience,
        )
        *front, (weight, bias) = _unfold(layers, span, factor)
        self.layers_ = [*front, (weight * deviation[:, None], bias * deviation + mean)]
        return held_out * deviation + mean

    def _decide(self, X: np.ndarray) -> np.ndarray:
        return _forward(self.layers_, X)

    def mlp_head(self) -> Layers:
        """[(h, d) weight and (h,) bias, (k, h) weight and (k,) bias], float32: the predictions."""
        return [(w.astype(np.float32), b.astype(np.float32)) for w, b in self.layers_]
