"""All recipes of the open suite, by name."""

from __future__ import annotations

from ossicle.benchmark.open_suite.drums import DRUMS
from ossicle.benchmark.open_suite.effects import EFFECTS
from ossicle.benchmark.open_suite.languages import LANGUAGES
from ossicle.benchmark.open_suite.rhythm import RHYTHM
from ossicle.benchmark.open_suite.soundfonts import SOUNDFONTS
from ossicle.benchmark.open_suite.speech_music import SPEECH_MUSIC
from ossicle.benchmark.open_suite.voices import VOICES
from ossicle.benchmark.open_suite.words import WORDS

RECIPES = {
    recipe.name: recipe
    for recipe in (
        *EFFECTS,
        *SPEECH_MUSIC,
        *VOICES,
        *WORDS,
        *LANGUAGES,
        *DRUMS,
        *SOUNDFONTS,
        *RHYTHM,
    )
}
