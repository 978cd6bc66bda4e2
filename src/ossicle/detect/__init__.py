"""What sounds when, in recordings of any length: from a model's scores to a table of events.

* `grid`, `blocks`: where windows stand, and what is heard at once.
* `scorers`, `window_pooling`, `averaging`: scores of frames, from clip models or detectors.
* `rules`, `median`, `decoder`, `tune`: from the scores of frames to events.
* `stream`, `journal`, `spool`: many recordings in order, and what a stopped run goes on from.
* `parameters`, `tables`, `run`: `ossicle detect` as one call.
"""
