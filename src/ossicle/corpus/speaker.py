"""The inside of a process that speaks: jobs come as JSON lines, sounds go out as WAV files.

Standard library only, as it is started often and holds a library of others.
"""

from __future__ import annotations

import json
import os
import signal
import wave
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any

Speak = Callable[[Mapping[str, Any]], tuple[bytes, int]]

LONGEST_S = 20


def serve(speak: Speak, requests: Iterable[str], replies: IO[str]) -> None:
    """Answer each job with a WAV file and one JSON line, in order, until the requests end.

    Each job is spoken by a fork of this process. So a crash costs one word, and what a word sounds
    like does not depend on those before it: engines keep the state of their noise and flutter.

    Args:
        speak: from a job to its samples, 16-bit integers little-endian of one channel, and their
            rate in Hz. What it raises, or its taking longer than `LONGEST_S`, fails the job.
        requests: a JSON object a line; its `path` says where the WAV file goes, the rest is
            `speak`'s.
        replies: gets {"path", "error"} a line; error "" where the file is there.
    """
    for line in requests:
        job = json.loads(line)
        child = os.fork()
        if not child:
            _speak_and_leave(speak, job)
        _, status = os.waitpid(child, 0)
        error = ""
        if os.WIFSIGNALED(status):
            error = f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
        elif status:
            error = "failed"
        replies.write(json.dumps({"path": job["path"], "error": error}) + "\n")
        replies.flush()


def _speak_and_leave(speak: Speak, job: Mapping[str, Any]) -> None:
    # _exit, whatever happens: the buffers and handlers are the parent's.
    try:
        signal.alarm(LONGEST_S)
        pcm, sample_rate = speak(job)
        with wave.open(job["path"], "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(sample_rate)
            file.writeframes(pcm)
        os._exit(0)
    finally:
        os._exit(1)
