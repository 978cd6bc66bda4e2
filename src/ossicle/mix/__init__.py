"""Soundscapes with known events, made from labelled clips and backgrounds.

One file a step: `parts` says which sources belong to train, valid and test; `sources` reads them
and `active` finds which stretch of a clip sounds; `plan` draws what a soundscape holds, `rooms`
the reverberation; `render` makes its samples; `write` the files and tables.
"""

from __future__ import annotations

from ossicle.mix.active import active_stretches
from ossicle.mix.plan import EventPlan, ScapePlan, draw_scape
from ossicle.mix.render import Rendered, render
from ossicle.mix.settings import PARTS, MixSettings
from ossicle.mix.write import Mixed, mix_soundscapes

__all__ = [
    "PARTS",
    "EventPlan",
    "MixSettings",
    "Mixed",
    "Rendered",
    "ScapePlan",
    "active_stretches",
    "draw_scape",
    "mix_soundscapes",
    "render",
]
