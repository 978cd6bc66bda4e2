"""Multiplicative updates against scikit-learn's, slow sums, and what no update may do."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn import decomposition

from ossicle.errors import OssicleError
from ossicle.separators.multiplicative import (
    DIVERGENCES,
    check_divergence,
    divergence,
    factorised,
    normalised,
    objective,
    updated_activations,
    updated_bases,
)

NAMES = {"kl": "kullback-leibler", "euclidean": "frobenius", "itakura_saito": "itakura-saito"}
F, T, K = 33, 50, 5


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    spectrum = rng.gamma(0.7, size=(F, T)) + 1e-3
    return spectrum, rng.uniform(0.1, 1, (F, K)), rng.uniform(0.1, 1, (K, T))


def tensors(*arrays, dtype=torch.float64):
    return [torch.from_numpy(array).to(dtype) for array in arrays]


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_divergence_is_the_sum_written_out(problem, kind):
    spectrum, bases, activations = problem
    total = 0.0
    for f in range(F):
        for t in range(T):
            v = spectrum[f, t]
            m = sum(bases[f, k] * activations[k, t] for k in range(K))
            if kind == "euclidean":
                total += (v - m) ** 2 / 2
            elif kind == "kl":
                total += v * np.log(v / m) - v + m
            else:
                total += v / m - np.log(v / m) - 1
    v, w, h = tensors(*problem)
    assert float(divergence(v, w @ h, kind)) == pytest.approx(total, rel=1e-10)
    length = np.sqrt((bases**2).sum(0))
    penalty = 0.7 * sum(length[k] * activations[k, t] for k in range(K) for t in range(T))
    assert float(objective(v, w, h, kind, 0.7)) == pytest.approx(total + penalty, rel=1e-10)


@pytest.mark.parametrize("kind", DIVERGENCES)
@pytest.mark.parametrize("n_iterations", [1, 7])
def test_both_updates_are_those_of_scikit_learn(problem, kind, n_iterations):
    spectrum, bases, activations = problem
    other = decomposition.NMF(
        K,
        init="custom",
        solver="mu",
        beta_loss=NAMES[kind],
        max_iter=n_iterations,
        tol=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it did not converge: it was not to
        theirs = other.fit_transform(spectrum, W=bases.copy(), H=activations.copy())
    v, w, h = tensors(*problem)
    for _ in range(n_iterations):  # its order: first W, then H
        w = updated_bases(v, w, h, kind)
        h = updated_activations(v, w, h, kind)
    np.testing.assert_allclose(w.numpy(), theirs, rtol=1e-6)
    np.testing.assert_allclose(h.numpy(), other.components_, rtol=1e-6)
    told = np.sqrt(2 * float(divergence(v, w @ h, kind)))
    assert told == pytest.approx(other.reconstruction_err_, rel=1e-6)


@pytest.mark.parametrize("kind", DIVERGENCES)
@pytest.mark.parametrize("sparsity", [0.0, 0.4])
def test_activations_of_fixed_bases_are_those_of_scikit_learn(problem, kind, sparsity):
    """Transposed, H is what scikit-learn calls W; its penalty is alpha times the features."""
    spectrum, bases, _ = problem
    bases = bases / np.sqrt((bases**2).sum(0))
    start = np.full((T, K), 0.5)
    # With H fixed, scikit-learn 1.9 adds its penalty anew to a sum that it keeps, each time: of its
    # sparse KL only the first update is what its documentation says.
    n_iterations = 1 if kind == "kl" and sparsity else 12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, _, _ = decomposition.non_negative_factorization(
            spectrum.T,
            W=start,
            H=bases.T.copy(),
            n_components=K,
            init="custom",
            update_H=False,
            solver="mu",
            beta_loss=NAMES[kind],
            max_iter=n_iterations,
            tol=0,
            alpha_W=sparsity / F,
            l1_ratio=1.0,
        )
    # With H fixed it starts from the mean's root whatever is given.
    v, w = tensors(spectrum, bases)
    h = torch.full((K, T), float(np.sqrt(spectrum.mean() / K)), dtype=torch.float64)
    for _ in range(n_iterations):
        h = updated_activations(v, w, h, kind, sparsity)
    np.testing.assert_allclose(h.numpy().T, theirs, rtol=1e-6)


@pytest.mark.parametrize("kind", DIVERGENCES)
@pytest.mark.parametrize("sparsity", [0.0, 0.05, 1.0, 20.0])
def test_no_update_raises_the_objective(problem, kind, sparsity):
    v, w, h = tensors(*problem)
    w, h = normalised(w, h)
    now = float(objective(v, w, h, kind, sparsity))
    first = now
    for _ in range(60):
        h = updated_activations(v, w, h, kind, sparsity)
        after_h = float(objective(v, w, h, kind, sparsity))
        w = updated_bases(v, w, h, kind, sparsity)
        after_w = float(objective(v, w, h, kind, sparsity))
        w, h = normalised(w, h)
        after = float(objective(v, w, h, kind, sparsity))
        assert after_h <= now * (1 + 1e-12)
        assert after_w <= after_h * (1 + 1e-12)
        assert after == pytest.approx(after_w, rel=1e-9)
        now = after
    assert now < first
    used = w.sum(0) > 0  # so much sparsity that nothing is told at all is a minimum, too
    np.testing.assert_allclose(torch.linalg.vector_norm(w[:, used], dim=0).numpy(), 1, rtol=1e-12)
    assert (w >= 0).all() and (h >= 0).all()


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_where_updates_end_the_gradient_is_none(problem, kind):
    """Complementary slackness: no slope along any entry that is not zero."""
    v, w, h = tensors(*problem)
    w, h = w[:, :2], h[:2]
    w, h, _ = factorised(v, w, kind, 0.3, n_iterations=20_000)
    h.requires_grad_(True)
    w.requires_grad_(True)
    objective(v, w, h, kind, 0.3).backward()
    scale = float(v.sum()) / K
    for entries in (w, h):
        assert float((entries.detach() > 1e-6).double().mean()) > 0.5
        assert float((entries.grad * entries).detach().abs().max()) < 1e-6 * scale


def test_sparser_is_sparser(problem):
    v, w, _ = tensors(*problem)
    sums = []
    for sparsity in (0.0, 0.5, 5.0):
        bases, activations, _ = factorised(v, w, "kl", sparsity, n_iterations=300)
        sums.append(float(activations.sum()))
        np.testing.assert_allclose(torch.linalg.vector_norm(bases, dim=0).numpy(), 1, rtol=1e-12)
    assert sums[0] > sums[1] > sums[2]


def test_columns_that_add_up_to_one_would_make_sparsity_of_no_effect(problem):
    """Why bases have Euclidean length 1: with sum 1, KL activations are scaled, shares stay."""
    v, w, h = tensors(*problem)
    w = w / w.sum(0)
    plain = sparse = h
    for _ in range(30):
        plain = updated_activations(v, w, plain, "kl", 0.0)
        sparse = updated_activations(v, w, sparse, "kl", 2.0)
    np.testing.assert_allclose(sparse.numpy() * 3, plain.numpy(), rtol=1e-9)


def test_kl_models_have_the_sums_of_the_frames(problem):
    """A fixed point without sparsity keeps each frame's sum; one update of H suffices for sum 1."""
    v, w, h = tensors(*problem)
    w = w / w.sum(0)
    h = updated_activations(v, w, h, "kl")
    np.testing.assert_allclose((w @ h).sum(0).numpy(), v.sum(0).numpy(), rtol=1e-12)


def test_learning_ends_where_it_gains_nothing_more(problem):
    v, w, _ = tensors(*problem)
    *_, short = factorised(v, w, "kl", n_iterations=5000, tolerance=1e-2)
    *_, long = factorised(v, w, "kl", n_iterations=5000, tolerance=1e-4)
    assert len(short) < len(long) < 500
    assert long[-1] < short[-1]


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_silence_and_float32_stay_finite(kind):
    spectrum = torch.rand(F, T, generator=torch.Generator().manual_seed(0)).square()
    spectrum[:, :10] = 0
    spectrum[:5] = 0
    bases = torch.rand(F, K, generator=torch.Generator().manual_seed(1)) + 0.01
    w, h, history = factorised(spectrum, bases, kind, 0.1, n_iterations=200)
    assert all(torch.isfinite(x).all() for x in (w, h)) and np.isfinite(history).all()
    assert history == sorted(history, reverse=True)


def test_an_unknown_divergence_is_told():
    with pytest.raises(OssicleError, match="kl, euclidean"):
        check_divergence("hellinger")
