"""Recordings in, a denoiser out; all that is chosen is chosen without a clean recording."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ossicle.denoise.choosing import alignment, choose
from ossicle.denoise.data import Decoded, RecordingBatches, Recordings, decode, pairs, stretch
from ossicle.denoise.objective import PartitionedTraining
from ossicle.denoise.settings import AutoencoderSettings, GateSettings
from ossicle.denoise.teacher import foregrounds
from ossicle.features import Progress, as_clips, one_thread
from ossicle.pretrain.waveforms import key
from ossicle.record import json_safe
from ossicle.separate.training import Schedule, train_separator
from ossicle.separators.base import Separator
from ossicle.separators.partitioned_autoencoder import PartitionedAutoencoder
from ossicle.separators.spectral_gate import KINDS, SpectralGate

Steps = Callable[[int, int, float], None]
Decoding = Callable[[Progress], None]
# What of each recording of noise alone a profile is learnt from, at most.
_PROFILE_S = 30.0
# Batches that band means are taken over.
_FIRST = 8
EXPONENTS = (2.0, 1.0, 3.0)
# The forms' own sizes; frames in seconds.
_FORMS: dict[str, dict[str, Any]] = {
    "bands": {
        "n_fft_s": 0.0464,
        "hop_s": 0.0232,
        "n_bands": 64,
        "n_foreground": 32,
        "n_background": 32,
        "kernel": 5,
        "depth": 4,
    },
    "paper": {
        "n_fft_s": 0.0058,
        "hop_s": 0.0029,
        "n_bands": 32,
        "n_foreground": 3,
        "n_background": 3,
        "kernel": 9,
        "depth": 0,
    },
}


def build_autoencoder(settings: AutoencoderSettings) -> PartitionedAutoencoder:
    """An untrained autoencoder.

    Raises:
        OssicleError: a setting is out of range.
    """
    s = settings.check()
    sizes = {
        name: getattr(s, name) if getattr(s, name) > (-1 if name == "depth" else 0) else value
        for name, value in _FORMS[s.form].items()
    }
    n_fft = 2 * round(sizes.pop("n_fft_s") * s.sample_rate / 2)
    hop_length = min(max(1, round(sizes.pop("hop_s") * s.sample_rate)), n_fft // 2)
    if s.form == "bands":
        sizes |= {"scale": "mel", "compression": "sqrt", "decoder_bias": False, "quiet": 0.2}
        sizes |= {"own_level": True, "whiten": s.whiten}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(s.seed)
        return PartitionedAutoencoder(
            s.sample_rate,
            n_fft=n_fft,
            hop_length=hop_length,
            width=s.width,
            output="mask" if s.output == "auto" else s.output,
            floor_db=s.floor_db,
            **sizes,
        )


def fit_partitioned_autoencoder(
    recordings: Recordings,
    settings: AutoencoderSettings,
    *,
    folder: Path | None = None,
    workers: int = 1,
    decoding: Decoding | None = None,
    progress: Steps | None = None,
) -> PartitionedAutoencoder:
    """Train on noisy recordings and on noise alone.

    Weights, the masks' exponent and gate, and where it is left open the kind of output, are those
    of the best `alignment` on the validation part.

    Args:
        recordings: in two parts.
        settings: how.
        folder: of checkpoint and log; a stopped run goes on from them.
        workers: threads of decoding.
        decoding: called after each recording that was decoded.
        progress: called after each step with steps done, all steps, and seconds of audio heard.

    Raises:
        DataError: recordings cannot be used.
        OssicleError: a setting is out of range.
        TrainingError: a loss is not finite, or the folder holds another run.
    """
    begun = time.perf_counter()
    net = build_autoencoder(settings)
    s = settings
    train, valid = decode(recordings, s.sample_rate, workers=workers, progress=decoding)
    batches = RecordingBatches(
        train,
        batch_size=s.batch_size,
        crop_s=s.crop_s,
        gain_db=s.gain_db,
        match=s.match,
        seed=s.seed,
    )
    noisy, noise = pairs(valid, s.n_valid, s.valid_s, s.seed)

    def judge(separator: Separator) -> float:
        return alignment(separator, noisy, noise)

    taught = s.teacher != "none" and s.remix > 0
    teacher: Separator | None = None
    if taught:
        kinds = KINDS if s.teacher == "gate" else (s.teacher,)
        gate = GateSettings(s.sample_rate, kinds=kinds, n_valid=s.n_valid, seed=s.seed)
        teacher = fit_spectral_gate(recordings, gate)
    rounds = s.rounds if taught else 1
    total = rounds * s.steps
    with one_thread():
        _set_band_statistics(net, batches, remix=s.remix > 0)
        best: dict[str, Any] = {}
        weights: dict[str, torch.Tensor] = {}
        told: list[float] = []
        for number in range(rounds):
            if teacher is not None:
                batches.foregrounds = foregrounds(teacher, train.noisy)
            net.output, net.exponent, net.gate = "mask", EXPONENTS[0], 0.0
            objective = PartitionedTraining(
                net,
                penalty=s.penalty,
                remix=s.remix,
                even=s.even,
                taught=taught,
                colour_db=s.colour_db,
                weight_decay=s.weight_decay,
                validate=judge,
            )
            net.requires_grad_(True)
            schedule = Schedule(
                steps=s.steps,
                learning_rate=s.learning_rate,
                warm_up=s.steps // 20,
                clip_norm=1.0,
                judge_every=s.judge_every,
                seed=s.seed + number,
            )
            batches.seed = s.seed + number
            train_separator(
                objective,
                batches,
                schedule,
                key=[asdict(s), number, _key(recordings, s.sample_rate)],
                folder=None if folder is None else folder / f"round_{number + 1}",
                progress=progress and _later(progress, number * s.steps, total),
            )
            net.floor_db = s.floor_db
            found = _chosen_answer(net, judge, s.output, s.gates)
            teacher = net
            told.append(found["alignment"])
            if found["alignment"] >= max(told):
                best = {**found, "round": number + 1}
                weights = {name: value.clone() for name, value in net.state_dict().items()}
    net.load_state_dict(weights)
    net.output, net.exponent, net.gate = best["output"], best["exponent"], best["gate"]
    best["alignment_of_rounds"] = told
    net.info = _label("partitioned_autoencoder", recordings, asdict(s), best)
    net.info |= {"steps": total, "rounds": rounds}
    net.info |= {"seconds": round(time.perf_counter() - begun, 1)}
    return net


def _later(progress: Steps, before: int, total: int) -> Steps:
    """Progress of one round as that of all."""

    def tell(done: int, _: int, seconds: float) -> None:
        progress(before + done, total, seconds * (before + done) / done)

    return tell


def fit_spectral_gate(
    recordings: Recordings,
    settings: GateSettings,
    *,
    folder: Path | None = None,
    workers: int = 1,
    decoding: Decoding | None = None,
    progress: Steps | None = None,
) -> SpectralGate:
    """The gate of the best `alignment` on the validation part, among all kinds that are named.

    Args:
        recordings: in two parts; the noise's profile is learnt from the first.
        settings: what to try.
        folder: not used: nothing here takes long enough to be gone on with.
        workers: threads of decoding.
        decoding: called after each recording that was decoded.
        progress: called after each gate that was judged with their number, all, and 0.

    Raises:
        DataError: recordings cannot be used.
        OssicleError: a setting is out of range.
    """
    begun = time.perf_counter()
    s = settings.check()
    train, valid = decode(recordings, s.sample_rate, workers=workers, progress=decoding)
    noisy, noise = pairs(valid, s.n_valid, s.valid_s, s.seed)
    spectra: list[torch.Tensor] = []
    n_fft = 2 * round(s.n_fft_s * s.sample_rate / 2)
    hop_length = min(max(1, round(s.hop_s * s.sample_rate)), n_fft // 2)

    def build(chosen: dict[str, Any]) -> SpectralGate:
        gate = SpectralGate(s.sample_rate, n_fft=n_fft, hop_length=hop_length, **chosen)
        if gate.profile:
            if not spectra:
                spectra.extend(_noise_spectra(gate, train, s.seed))
            gate.learn(spectra)
        return gate.eval().requires_grad_(False)

    shared: list[tuple[str, tuple[Any, ...]]] = [
        ("slope_db", s.slopes_db),
        ("smooth_hz", s.smooth_hz),
        ("smooth_ms", s.smooth_ms),
        ("release_ms", s.release_ms),
        ("floor_db", s.floors_db),
    ]
    ways: list[tuple[dict[str, Any], list[tuple[str, tuple[Any, ...]]]]] = []
    if "stationary" in s.kinds:
        for profile in s.profiles:
            first: list[tuple[str, tuple[Any, ...]]] = [("threshold", s.thresholds)]
            first += [] if profile else [("quiet", s.quiet)]
            ways.append(({"kind": "stationary", "profile": profile}, first))
    if "running" in s.kinds:
        ways.append(
            (
                {"kind": "running"},
                [("time_constant_s", s.time_constants_s), ("threshold", s.running_thresholds)],
            )
        )
    total = sum(1 + sum(len(values) - 1 for _, values in own + shared) for _, own in ways)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, total), total, 0.0)

    found: list[tuple[float, dict[str, Any]]] = []
    tried: list[dict[str, Any]] = []
    for fixed, own in ways:
        start = fixed | {name: values[0] for name, values in [*own, *shared]}
        best, these = choose(
            build, [*own, *shared], lambda gate: alignment(gate, noisy, noise), start, tick
        )
        tried += these
        found.append((max(one["alignment"] for one in these), best))
    score, best = max(found, key=lambda one: one[0])
    gate = build(best)
    chosen = {**best, "alignment": score, "tried": tried}
    gate.info = _label("spectral_gate", recordings, asdict(s), chosen)
    gate.info |= {"seconds": round(time.perf_counter() - begun, 1)}
    return gate


def _set_band_statistics(
    net: PartitionedAutoencoder, batches: RecordingBatches, *, remix: bool
) -> None:
    """Mean and standard deviation of each band over what training hears at first."""
    with torch.no_grad():
        seen = []
        for step in range(_FIRST):
            waveforms = batches.batch(step).waveforms
            heard = waveforms.sum(1) if remix else waveforms[:, 0]
            seen.append(net.bands(net.fourier.analyse(heard)))
        bands = torch.cat(seen).transpose(0, 1).flatten(1)
        net.band_mean.copy_(bands.mean(1))
        # A band without sound varies by nothing, which nothing is to be divided by.
        spread = bands.std(1)
        net.band_std.copy_(spread.clamp(min=1e-3 * float(spread.max()) + 1e-8))


def _chosen_answer(
    net: PartitionedAutoencoder,
    judge: Callable[[Separator], float],
    output: str,
    gates: Sequence[float],
) -> dict[str, Any]:
    """Set the output, the masks' exponent and their gate that do best; and what they were."""
    options: list[tuple[str, float, float]] = []
    if output in ("auto", "mask"):
        options += [("mask", exponent, gate) for exponent in EXPONENTS for gate in gates]
    if output in ("auto", "decoded"):
        options += [("decoded", EXPONENTS[0], 0.0)]
    tried: list[dict[str, Any]] = []
    for option in options:
        net.output, net.exponent, net.gate = option
        about = dict(zip(("output", "exponent", "gate"), option, strict=True))
        tried.append({**about, "alignment": judge(net)})
    best = max(tried, key=lambda one: one["alignment"])
    net.output, net.exponent, net.gate = best["output"], best["exponent"], best["gate"]
    return {**best, "tried": tried}


def _noise_spectra(gate: SpectralGate, part: Decoded, seed: int) -> list[torch.Tensor]:
    noise = part.noise
    rng = np.random.default_rng(seed)
    most = round(_PROFILE_S * noise.sample_rate)
    sizes = [min(most, int(length)) for length in noise.lengths]
    return [
        gate.fourier.analyse(torch.from_numpy(stretch(noise, item, size, rng)))
        for item, size in enumerate(sizes)
    ]


def _key(recordings: Recordings, sample_rate: int) -> str:
    """The same for the same recordings in the same parts."""
    files = [key(as_clips(clips), sample_rate) for clips in (recordings.noisy, recordings.noise)]
    rows = [side.tolist() for side in (*recordings.train, *recordings.valid)]
    return hashlib.sha256(json.dumps([files, rows]).encode()).hexdigest()


def _label(
    system: str, recordings: Recordings, settings: dict[str, Any], chosen: dict[str, Any]
) -> dict[str, Any]:
    tables = {"noisy": recordings.noisy, "noise": recordings.noise}
    groups = {f"{name}_groups": len(set(table.groups())) for name, table in tables.items()}
    tried = chosen.pop("tried", [])
    return {
        "title": recordings.noisy.root.name,
        "system": system,
        "trained_on": {
            "noisy_recordings": len(recordings.train[0]),
            "noise_recordings": len(recordings.train[1]),
            "kept_to_choose_by": len(recordings.valid[0]) + len(recordings.valid[1]),
            **groups,
        },
        "settings": json_safe(settings),
        "chosen": json_safe(chosen),
        "tried": json_safe(tried),
        "validation": {"alignment_without_clean_recordings": chosen["alignment"]},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "licence": "that of the recordings it was trained on",
    }


FITS: dict[str, tuple[type, Callable[..., Separator]]] = {
    "partitioned_autoencoder": (AutoencoderSettings, fit_partitioned_autoencoder),
    "spectral_gate": (GateSettings, fit_spectral_gate),
}
