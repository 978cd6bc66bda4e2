"""Exhibits of filters on waveforms: responses in time and frequency, widths beside the ear's."""

from __future__ import annotations

import numpy as np

from ossicle.backbones.gammatone import erb_hz
from ossicle.inspection import drawings
from ossicle.inspection.exhibit import Exhibit
from ossicle.inspection.filters import filter_table, power_responses, relative_db

CURVES = 16


def waveform_exhibits(
    filters: np.ndarray,
    sample_rate: float,
    *,
    name: str,
    section: str,
    what: str,
    start: np.ndarray | None = None,
) -> list[Exhibit]:
    """Three pictures of (K, N) impulse responses.

    Args:
        filters: in the order of time.
        sample_rate: Hz.
        name: that file names begin with.
        section: heading.
        what: they are, in a few words: "filters of tconv.conv".
        start: (K, N) what they were before training, where that is known.
    """
    table = filter_table(filters, sample_rate)
    order = table["filter"].to_numpy()
    frequencies, power = power_responses(filters, sample_rate)
    centre, width = table["centre_hz"].to_numpy(), table["bandwidth_hz"].to_numpy()
    low, high = np.nanmin(centre), np.nanmax(centre)
    count, length = filters.shape
    groups = [(what, centre, width)]
    moved = ""
    if start is not None:
        before = filter_table(start, sample_rate).set_index("filter").loc[order].reset_index()
        change = np.linalg.norm(filters - start, axis=1) / np.linalg.norm(start, axis=1)
        table["change"] = change[order]
        table["centre_before_hz"] = before["centre_hz"]
        moved = (
            f" Training has moved them by {np.median(change):.1%} of their norm (median; most "
            f"{change.max():.1%})."
            if change.max() > 1e-6
            else " They are as they were before any training."
        )
        if change.max() > 1e-6:
            fresh = before["centre_hz"].to_numpy(), before["bandwidth_hz"].to_numpy()
            groups = [("before training", *fresh), ("now", centre, width)]
    picked = np.unique(np.linspace(0, count - 1, min(CURVES, count)).round().astype(int))
    line = np.geomspace(40.0, sample_rate / 2, 200)
    titles = [f"{order[i]}: {centre[i]:.0f} Hz" for i in picked]
    narrower = int((width < table["ear_hz"].to_numpy()).sum())
    span = f"{low:.0f} to {high:.0f} Hz"
    return [
        Exhibit(
            f"{name}_impulses",
            section,
            f"Impulse responses of the {what}",
            f"{len(picked)} of {count}, evenly spread over centre frequency ({span}); "
            f"{length} samples, {1000 * length / sample_rate:.3g} ms. Each in its own range.",
            f"{len(picked)} small curves of impulse responses, centre frequencies {span}.",
            lambda: drawings.curves(
                1000 * np.arange(length) / sample_rate,
                filters[order[picked]],
                titles,
                "time (ms)",
                "weight",
            ),
        ),
        Exhibit(
            f"{name}_responses",
            section,
            f"Frequency responses of the {what}",
            f"All {count}, one row each, by rising centre frequency (where a filter passes "
            f"most).{moved}",
            f"Heat map of {count} frequency responses in the order of their centres, from {span}.",
            lambda: drawings.responses(
                frequencies, relative_db(power[order]), "filter, by centre frequency", 30.0
            ),
            table,
        ),
        Exhibit(
            f"{name}_widths",
            section,
            f"Centres and bandwidths of the {what}",
            f"Equivalent rectangular bandwidth against centre. {narrower} of {count} are narrower "
            "than the ear's filter at their centre. A filter of "
            f"{1000 * length / sample_rate:.3g} ms cannot be much narrower than "
            f"{sample_rate / length:.3g} Hz.",
            f"Scatter of {count} bandwidths over centre frequency, with the ear's as a line.",
            lambda: drawings.widths(groups, (line, erb_hz(line))),
        ),
    ]
