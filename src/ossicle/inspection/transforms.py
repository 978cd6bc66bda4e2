"""Exhibits of the end-to-end system: the analysis and synthesis that took the Fourier's place."""

from __future__ import annotations

import numpy as np

from ossicle.inspection.decoders import SECTION, columns_exhibit, decoder_outputs
from ossicle.inspection.exhibit import Exhibit
from ossicle.inspection.filters import filter_table
from ossicle.inspection.waveform_filters import waveform_exhibits
from ossicle.separators.end_to_end import AdaptiveTransform, EndToEnd

ANALYSIS, SYNTHESIS = "The learnt analysis", "The learnt synthesis"


def analysis_filters(separator: EndToEnd) -> np.ndarray:
    """(D, L) impulse responses of the analysis; torch correlates, so they are turned in time."""
    return _rows(separator.transform.filters)[:, ::-1]


def synthesis_filters(separator: EndToEnd) -> np.ndarray:
    """(D, L) impulse responses of the synthesis; where tied, those of the analysis, turned."""
    own = separator.transform.synthesis
    return _rows(separator.transform.filters if own is None else own)


def transform_exhibits(separator: EndToEnd) -> list[Exhibit]:
    """Filters of analysis and synthesis; of the kind with autoencoders also their latents."""
    transform, settings = separator.transform, separator.config()
    start = None
    if settings["filters"] == "fourier":
        fresh = AdaptiveTransform(
            len(transform.filters),
            transform.filter_length,
            transform.hop_length,
            transform.smoother.shape[-1],
            True,
            "fourier",
        )
        start = _rows(fresh.filters)
    rate = separator.sample_rate
    exhibits = waveform_exhibits(
        analysis_filters(separator),
        rate,
        name="analysis",
        section=ANALYSIS,
        what="analysis filters",
        start=None if start is None else start[:, ::-1],
    )
    if transform.synthesis is not None:
        exhibits += waveform_exhibits(
            synthesis_filters(separator),
            rate,
            name="synthesis",
            section=SYNTHESIS,
            what="synthesis filters",
            start=start,
        )
    if separator.autoencoders is not None:
        table = filter_table(analysis_filters(separator), rate)
        order = table["filter"].to_numpy()
        columns = {name: part[order] for name, part in decoder_outputs(separator).items()}
        shown = columns_exhibit(
            np.maximum.accumulate(table["centre_hz"].to_numpy()),
            columns,
            None,
            "decoder",
            "decoded latents, by the centres of the filters",
        )
        exhibits.append(shown._replace(section=SECTION))
    return exhibits


def _rows(parameter: object) -> np.ndarray:
    """(D, 1, L) -> (D, L) float64."""
    return parameter.detach().cpu().double().numpy()[:, 0]  # type: ignore[attr-defined, no-any-return]
