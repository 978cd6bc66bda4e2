"""Random cases and what the reference implementations answer: writes cases.json beside this file.

Run in an environment of its own; the libraries need older packages than the project:

    python -m venv witness
    witness/bin/pip install "sed_eval==0.2.1" "sed_scores_eval==0.0.4" "psds_eval==0.5.3" \\
        "pandas<3" "numpy<2.3" "setuptools<81" cython
    witness/bin/python tests/events/witness/make_witness.py

Seeded: the same versions write the same file. Times are whole microseconds, written in seconds;
those of the random cases lie on no collar and no share exactly (up to chance), those of the edge
cases do.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)

import psds_eval
import sed_eval
from sed_scores_eval import collar_based, intersection_based, segment_based
from sed_scores_eval.base_modules.precision_recall import (
    average_precision_from_intermediate_statistics,
)
from sed_scores_eval.base_modules.scores import create_score_dataframe

LIBRARIES = ("sed_eval", "sed_scores_eval", "psds_eval", "numpy", "pandas")
CLASSES = ("bark", "chirp", "drip", "engine")


def main() -> None:
    random = np.random.default_rng(20160525)
    cases = {
        "versions": {name: version(name) for name in LIBRARIES},
        "events": [event_case(random, i) for i in range(60)],
        "points": [point_case(random, i) for i in range(24)],
        "scores": [score_case(random, i) for i in range(30)],
        "edges": edge_cases(),
    }
    path = Path(__file__).with_name("cases.json")
    path.write_text(json.dumps(plain(cases), separators=(",", ":"), sort_keys=True) + "\n")


def plain(value):
    """Ready for JSON: NaN as null, floats to 12 digits, arrays as lists."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (np.bool_, bool)):
        return bool(value)
    if isinstance(value, (np.integer, int)):
        return int(value)
    if isinstance(value, (np.floating, float)):
        number = float(value)
        if math.isnan(number):
            return None
        if math.isinf(number):
            return "inf" if number > 0 else "-inf"
        return int(number) if number.is_integer() and abs(number) < 1e9 else float(f"{number:.13g}")
    return value


def draw_events(random, durations, classes, mean, *, apart):
    """Events [file, onset, offset, label]; apart: those of one class do not overlap."""
    rows = []
    for file, duration in durations.items():
        for _ in range(random.poisson(mean)):
            length = min(random.exponential(1.2) + 0.05, duration / 2)
            onset = random.uniform(0, duration - length)
            label = classes[random.integers(len(classes))]
            row = [file, round(onset, 6), round(onset + length, 6), label]
            if apart and any(meets(row, other) for other in rows):
                continue
            rows.append(row)
    return rows


def meets(one, other):
    """Whether two rows are of one file and class and overlap or touch."""
    return one[0] == other[0] and one[3] == other[3] and one[1] <= other[2] and other[1] <= one[2]


def blur(random, rows, durations, classes, *, apart, spread=0.15):
    """An estimate: the reference, moved, thinned, mislabelled, and with events of its own."""
    found = []
    for file, onset, offset, label in rows:
        if random.random() < 0.15:
            continue
        if random.random() < 0.15:
            label = classes[random.integers(len(classes))]
        onset = max(0.0, onset + random.normal(0, spread))
        offset = max(onset + 0.02, offset + random.normal(0, 2 * spread))
        row = [file, round(onset, 6), round(min(offset, durations[file]), 6), label]
        if row[2] <= row[1] or (apart and any(meets(row, other) for other in found)):
            continue
        found.append(row)
    for row in draw_events(random, durations, classes, 1.0, apart=False):
        if not (apart and any(meets(row, other) for other in found)):
            found.append(row)
    return found


def event_case(random, i):
    """Decided events against sed_eval (and psds_eval, where it takes them)."""
    classes = list(CLASSES[: random.integers(1, 5)])
    durations = {f"f{k}": round(random.uniform(4, 20), 6) for k in range(random.integers(1, 4))}
    apart = i % 2 == 0
    dense = 0.05 if i % 5 == 4 else 0.15
    reference = draw_events(random, durations, classes, [2, 5, 12][i % 3], apart=apart)
    if not reference:
        reference = [["f0", 0.5, 1.25, classes[0]]]
    estimate = blur(random, reference, durations, classes, apart=apart, spread=dense)
    random.shuffle(estimate)
    segment = [1.0, 0.5, 0.25, 2.0][i % 4]
    collar, share = [(0.2, 0.2), (0.25, 0.5), (0.5, 0.0), (0.1, 1.0)][i % 4]
    case = {
        "classes": classes,
        "durations": durations,
        "reference": reference,
        "estimate": estimate,
        "segment_s": segment,
        "collar_s": collar,
        "offset_share": share,
        "sed_eval": {
            "segment": sed_segments(classes, durations, reference, estimate, segment),
            "optimal": sed_events(classes, durations, reference, estimate, collar, share),
            "greedy": sed_events(
                classes, durations, reference, estimate, collar, share, matching="greedy"
            ),
            "onset": sed_events(
                classes, durations, reference, estimate, collar, share, onset_only=True
            ),
        },
    }
    if apart:
        dtc, gtc, cttc = random.uniform(0.05, 0.95, 3).round(3)
        case |= {"dtc": dtc, "gtc": gtc, "cttc": cttc}
        case["psds_eval"] = psds_events(durations, reference, estimate, dtc, gtc, cttc)
    return case


def by_file(rows, file):
    """The events of one file as sed_eval wants them."""
    return [
        {"file": f, "event_onset": on, "event_offset": off, "event_label": label}
        for f, on, off, label in sorted(rows)
        if f == file
    ]


def sed_segments(classes, durations, reference, estimate, segment):
    metric = sed_eval.sound_event.SegmentBasedMetrics(
        event_label_list=classes, time_resolution=segment
    )
    metric.empty_system_output_handling = "zero_score"  # Its constructor does not take it.
    for file, duration in durations.items():
        metric.evaluate(by_file(reference, file), by_file(estimate, file), duration)
    return sed_results(metric)


def sed_events(
    classes, durations, reference, estimate, collar, share, *, matching="optimal", onset_only=False
):
    metric = sed_eval.sound_event.EventBasedMetrics(
        event_label_list=classes,
        t_collar=collar,
        percentage_of_length=share,
        evaluate_offset=not onset_only,
        event_matching_type=matching,
        empty_system_output_handling="zero_score",
    )
    for file in durations:
        rows = by_file(reference, file), by_file(estimate, file)
        if any(rows):
            metric.evaluate(*rows)
    return sed_results(metric)


def sed_results(metric):
    """Overall and class-wise results, flat; an error rate of a class without events is dropped."""
    overall = metric.results_overall_metrics()
    flat = {"micro": {**overall["f_measure"], **overall["error_rate"]}, "per_class": {}}
    for name, row in metric.results_class_wise_metrics().items():
        flat["per_class"][name] = {
            **row["f_measure"],
            **(row["error_rate"] if row["count"]["Nref"] else {}),
            "n_ref": row["count"]["Nref"],
            "n_sys": row["count"]["Nsys"],
        }
    average = metric.results_class_wise_average_metrics()
    if all(row["n_ref"] for row in flat["per_class"].values()):
        flat["macro"] = {**average["f_measure"], **average["error_rate"]}
    return flat


def table(rows):
    return pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"]).astype(
        {"onset": float, "offset": float, "filename": str, "event_label": str}
    )


def psds_evaluator(durations, reference, dtc, gtc, cttc):
    metadata = pd.DataFrame({"filename": list(durations), "duration": list(durations.values())})
    return psds_eval.PSDSEval(
        dtc, gtc, cttc, ground_truth=table(reference), metadata=metadata, duration_unit="hour"
    )


def psds_events(durations, reference, estimate, dtc, gtc, cttc):
    """Confusion counts and F1 of classes by intersection, of classes that the reference has."""
    names = sorted({row[3] for row in reference})
    estimate = [row for row in estimate if row[3] in names]
    evaluator = psds_evaluator(durations, reference, dtc, gtc, cttc)
    macro, per_class = evaluator.compute_macro_f_score(table(estimate))
    evaluator.add_operating_point(table(estimate))
    counts = evaluator.operating_points.counts[0]
    return {"names": names, "macro_f1": macro, "f1": per_class, "counts": counts}


def draw_scores(random, reference, durations, classes, hop, i):
    """Frame scores {file: (K, T)} in thousandths, higher where something sounds."""
    scores = {}
    for file, duration in durations.items():
        frames = round(duration / hop)
        values = random.normal(-1.5, 1.0, (len(classes), frames))
        if i % 2:  # Smoother: longer runs.
            kernel = np.ones(5) / 5
            values = np.array([np.convolve(row, kernel, "same") for row in values]) * 2
        for name, onset, offset, label in reference:
            if name == file:
                onset, offset = onset + random.normal(0, hop), offset + random.normal(0, hop)
                low, high = sorted((max(0, round(onset / hop)), max(0, round(offset / hop))))
                values[classes.index(label), low:high] += random.uniform(0.5, 5)
        steps = [1000, 1000, 20][i % 3]  # 20: many equal scores.
        values = np.round(steps / (1 + np.exp(-values))) / steps
        scores[file] = np.round(1000 * values).astype(int)
    return scores


def every_class(random, durations, classes, rows):
    """At least one event of each class: two of the libraries refuse less."""
    for label in classes:
        if not any(row[3] == label for row in rows):
            file = list(durations)[random.integers(len(durations))]
            rows.append([file, 0.7, 1.9, label])
    return rows


def runs(scores, classes, hop, threshold):
    """The events of frames above a threshold, thousandths."""
    rows = []
    for file, values in scores.items():
        for label, row in zip(classes, values, strict=True):
            above = np.concatenate([[0], row > threshold, [0]]).astype(int)
            starts, ends = np.flatnonzero(np.diff(above) > 0), np.flatnonzero(np.diff(above) < 0)
            rows += [
                [file, round(a * hop, 6), round(b * hop, 6), label]
                for a, b in zip(starts, ends, strict=True)
            ]
    return rows


def point_case(random, i):
    """PSDS of a few operating points against psds_eval."""
    classes = list(CLASSES[: random.integers(2, 5)])
    hop = [0.1, 0.25][i % 2]
    durations = {f"f{k}": 10 for k in range(random.integers(2, 4))}
    reference = draw_events(random, durations, classes, 4, apart=True)
    reference = every_class(random, durations, classes, reference)
    scores = draw_scores(random, reference, durations, classes, hop, i)
    thresholds = sorted(random.choice(np.arange(50, 950), 6, replace=False).tolist())
    options = {
        "dtc": round(random.uniform(0.05, 0.75), 3),
        "gtc": round(random.uniform(0.05, 0.75), 3),
        "cttc": round(random.uniform(0.05, 0.5), 3),
        "alpha_ct": [0.0, 0.5, 1.0][i % 3],
        "alpha_st": [0.0, 1.0][(i // 3) % 2],
        "e_max": [100.0, 1000.0, 4000.0][(i // 2) % 3],
    }
    evaluator = psds_evaluator(
        durations, reference, options["dtc"], options["gtc"], options["cttc"]
    )
    for threshold in thresholds:
        evaluator.add_operating_point(table(runs(scores, classes, hop, threshold)))
    value = evaluator.psds(options["alpha_ct"], options["alpha_st"], options["e_max"]).value
    return {
        "classes": classes,
        "durations": durations,
        "hop": hop,
        "reference": reference,
        "scores": {file: values.tolist() for file, values in scores.items()},
        "thresholds": thresholds,
        "options": options,
        "psds_eval": value,
    }


def score_case(random, i):
    """All thresholds against sed_scores_eval."""
    classes = list(CLASSES[: random.integers(2, 4)])
    hop = [0.1, 0.064, 0.25][i % 3]
    frames = [60, 90, 40][i % 3]
    durations = {f"f{k}": round(frames * hop, 6) for k in range(random.integers(2, 4))}
    reference = draw_events(random, durations, classes, [2, 4, 9][(i // 2) % 3], apart=True)
    reference = every_class(random, durations, classes, reference)
    scores = draw_scores(random, reference, durations, classes, hop, i)
    frames_of = {
        file: create_score_dataframe(
            values.T / 1000, np.round(np.arange(values.shape[1] + 1) * hop, 6), classes
        )
        for file, values in scores.items()
    }
    truth = {
        file: [(on, off, label) for f, on, off, label in reference if f == file]
        for file in durations
    }
    collar, share = [(0.2, 0.2), (0.4, 0.5), (0.3, 0.0)][(i // 3) % 3]
    options = {
        "dtc": round(random.uniform(0.05, 0.9), 3),
        "gtc": round(random.uniform(0.05, 0.9), 3),
        "cttc": round(random.uniform(0.05, 0.5), 3),
        "alpha_ct": [0.0, 0.5][i % 2],
        "alpha_st": [0.0, 1.0, 0.5][i % 3],
        "e_max": [100.0, 1000.0, 5000.0][(i // 2) % 3],
    }
    if i == 0:
        options |= {"dtc": 0.7, "gtc": 0.7, "cttc": 0.3}
    collars = {"onset_collar": collar, "offset_collar": collar, "offset_collar_rate": share}
    shares = {"dtc_threshold": options["dtc"], "gtc_threshold": options["gtc"]}
    answer = {
        "collar": threshold_free(collar_based, frames_of, truth, collars, curves=i % 3 == 0),
        "intersection": threshold_free(
            intersection_based, frames_of, truth, shares, curves=i % 3 == 1
        ),
        "segment": threshold_free(
            segment_based, frames_of, truth, {"audio_durations": durations, "segment_length": 0.5}
        ),
    }
    value, per_class, _, _ = intersection_based.psds(
        frames_of,
        truth,
        durations,
        **shares,
        cttc_threshold=options["cttc"] if options["alpha_ct"] else None,
        alpha_ct=options["alpha_ct"],
        alpha_st=options["alpha_st"],
        max_efpr=options["e_max"],
    )
    answer["psds"] = {"value": value, "per_class": per_class}
    return {
        "classes": classes,
        "durations": durations,
        "hop": hop,
        "reference": reference,
        "scores": {file: values.tolist() for file, values in scores.items()},
        "collar_s": collar,
        "offset_share": share,
        "segment_s": 0.5,
        "options": options,
        "sed_scores_eval": answer,
    }


def threshold_free(module, scores, truth, options, *, curves=False):
    """Best F1, average precision, and for some cases all counts at all thresholds."""
    f1, precision, recall, threshold, _ = module.best_fscore(scores, truth, **options)
    statistics, _ = module.accumulated_intermediate_statistics(scores, truth, **options)
    area, _ = average_precision_from_intermediate_statistics(statistics)
    answer = {
        "f1": f1,
        "precision": precision,
        "recall": recall,
        "threshold": threshold,
        "average_precision": area,
    }
    if curves:
        answer["curves"] = {
            name: {
                "below": np.round(below * 1000, 6),
                "tps": counts["tps"],
                "fps": counts["fps"],
            }
            for name, (below, counts) in statistics.items()
        }
    return answer


def edge_cases():
    """Small cases in which the libraries disagree, or float rounding decides."""
    cases = {}

    def events(name, reference, estimate, duration=4.0, classes=("bark", "chirp"), segment=1.0):
        durations = {"f0": duration}
        cases[name] = {
            "classes": list(classes),
            "durations": durations,
            "reference": [["f0", *row] for row in reference],
            "estimate": [["f0", *row] for row in estimate],
            "segment_s": segment,
            "sed_eval": {},
        }
        case = cases[name]
        rows = case["classes"], durations, case["reference"], case["estimate"]
        for handling in (None, "zero_score"):
            results = case["sed_eval"][handling or "default"] = {}
            for kind in ("segment", "event"):
                results[kind] = edge_results(kind, handling, *rows, segment)

    events("onset on the collar", [[0.7, 1.7, "bark"]], [[0.9, 1.7, "bark"]])
    events("onset on the collar, exact", [[0.5, 1.7, "bark"]], [[0.7, 1.7, "bark"]])
    events("class never estimated", [[0, 1, "bark"], [2, 3, "chirp"]], [[0, 1, "bark"]])
    events("class not in the reference", [[0, 1, "bark"]], [[0, 1, "bark"], [2, 3, "chirp"]])
    events("nothing in either for a class", [[0, 1, "bark"]], [[0, 1, "bark"]])
    events("segment border", [[0.3, 0.6, "bark"]], [[0.31, 0.59, "bark"]], 1.0, segment=0.1)
    events(
        "matching",
        [[1.0, 10.0, "bark"], [1.1, 11.0, "bark"]],
        [[1.0, 11.5, "bark"], [1.15, 8.5, "bark"]],
        12.0,
    )
    events(
        "substitutions",
        [[1.0, 2.0, "bark"], [1.15, 2.0, "chirp"]],
        [[1.1, 2.0, "engine"], [1.3, 2.0, "drip"]],
        classes=CLASSES,
    )
    return cases | psds_edges()


def edge_results(kind, handling, classes, durations, reference, estimate, segment):
    if kind == "segment":
        metric = sed_eval.sound_event.SegmentBasedMetrics(
            event_label_list=classes, time_resolution=segment
        )
        metric.empty_system_output_handling = handling
        metric.evaluate(by_file(reference, "f0"), by_file(estimate, "f0"), durations["f0"])
    else:
        metric = sed_eval.sound_event.EventBasedMetrics(
            event_label_list=classes,
            t_collar=0.2,
            percentage_of_length=0.2,
            empty_system_output_handling=handling,
        )
        metric.evaluate(by_file(reference, "f0"), by_file(estimate, "f0"))
    overall = metric.results_overall_metrics()
    average = metric.results_class_wise_average_metrics()
    return {
        "micro": {**overall["f_measure"], **overall["error_rate"]},
        "macro": {**average["f_measure"], **average["error_rate"]},
    }


def psds_edges():
    """A detection that meets dtc exactly, but not in binary; PSDS of one class and of two."""
    durations = {"f0": 10.0}
    reference = [["f0", 8.3, 9.0, "bark"], ["f0", 5.0, 6.0, "chirp"]]
    estimate = [["f0", 8.3, 9.3, "bark"], ["f0", 5.0, 6.0, "chirp"]]
    evaluator = psds_evaluator(durations, reference, 0.7, 0.7, 0.3)
    macro, per_class = evaluator.compute_macro_f_score(table(estimate))
    truth = {"f0": [(on, off, label) for _, on, off, label in reference]}
    edges = np.round(np.arange(101) * 0.1, 6)
    values = np.zeros((100, 2))
    for _, on, off, label in estimate:
        values[round(on * 10) : round(off * 10), ["bark", "chirp"].index(label)] = 1
    f1, *_ = intersection_based.fscore(
        {"f0": create_score_dataframe(values, edges, ["bark", "chirp"])},
        truth,
        threshold=0.5,
        dtc_threshold=0.7,
        gtc_threshold=0.7,
    )
    exact = {
        "durations": durations,
        "reference": reference,
        "estimate": estimate,
        "psds_eval": {"macro_f1": macro, "f1": per_class},
        "sed_scores_eval": f1,
    }
    stairs = {"durations": {"f0": 3600.0}}
    for classes in (("bark",), ("bark", "chirp")):
        truth = [["f0", 10.0 * k, 10.0 * k + 1, name] for k in range(4) for name in classes]
        points = psds_evaluator(stairs["durations"], truth, 0.5, 0.5, 0.3)
        tables = []
        for hits, alarms in ((1, 10), (3, 50)):
            starts = [10.0 * k for k in range(hits)] + [100.0 + 10 * k for k in range(alarms)]
            rows = [["f0", start, start + 1, name] for start in starts for name in classes]
            tables.append(rows)
            points.add_operating_point(table(rows))
        stairs[" ".join(classes)] = {
            "reference": truth,
            "estimates": tables,
            "step": points.psds(0.0, 0.0, 100.0).value,
        }
    return {"share met exactly": exact, "stairs": stairs}


if __name__ == "__main__":
    main()
