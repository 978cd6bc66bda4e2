"""The twelve tasks of HARES (Wang et al. 2022, arXiv 2111.12124), and the folder of each set."""

from __future__ import annotations

from ossicle.benchmark.hares_suite import (
    audioset,
    birdsong,
    esc50,
    fluent_speech,
    magnatagatune,
    nsynth,
    speech_commands,
    tut18,
    voxceleb1,
    voxforge,
)

HARES = {
    task.name: task
    for task in (
        audioset.TASK,
        birdsong.TASK,
        tut18.TASK,
        esc50.TASK,
        *speech_commands.TASKS,
        fluent_speech.TASK,
        voxforge.TASK,
        voxceleb1.TASK,
        *nsynth.TASKS,
        magnatagatune.TASK,
    )
}
# Below --data; both tasks of NSynth read one set.
FOLDERS = {name: "nsynth" if name.startswith("nsynth") else name for name in HARES}
