"""Speech synthesis in a process of its own, so that its crash is a lost word and no more.

The engine's library is never loaded by the process that asks: it gets WAV files.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ossicle import audio
from ossicle.errors import AudioError, OssicleError

SAMPLE_RATE = 16_000
# Enough that the engine speaks on while the last words are worked on; far from filling a pipe.
_AHEAD = 16


class Job(NamedTuple):
    """What to say, and how.

    Attributes:
        text: a word or a few.
        voice: the engine's name of it.
        speed: in words a minute, 175 being usual.
        pitch: 0 to 100, 50 being the voice's own.
        lift: how far the pitch moves, 0 to 100, 50 being the voice's own.
        seed: of the engine's noise.
    """

    text: str
    voice: str
    speed: int = 175
    pitch: int = 50
    lift: int = 50
    seed: int = 1


class Synthesiser:
    """A running engine; a context manager, which ends it.

    Args:
        command: what starts it: it reads jobs and answers as ``ossicle.corpus.speaker.serve`` does.
        processes: how many of it, which take jobs by turns; what comes out is the same.

    Raises:
        OssicleError: it cannot be started.
    """

    def __init__(self, command: list[str], processes: int = 1) -> None:
        self._asked = 0
        self._folder = tempfile.TemporaryDirectory(prefix="ossicle-speech-")
        self._errors = Path(self._folder.name) / "stderr"
        self._processes: list[subprocess.Popen[str]] = []
        try:
            with self._errors.open("wb") as errors:
                for _ in range(processes):
                    process = subprocess.Popen(
                        command,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=errors,
                        encoding="utf-8",
                    )
                    self._processes.append(process)
        except OSError as error:
            self.__exit__()
            raise OssicleError(f"{command[0]}: cannot be started ({error.strerror})") from error

    def __enter__(self) -> Synthesiser:
        return self

    def __exit__(self, *raised: object) -> None:
        for process in self._processes:
            if process.stdin and process.stdout:
                process.stdout.close()
                with contextlib.suppress(BrokenPipeError):  # where it had ended already
                    process.stdin.close()
        for process in self._processes:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.cleanup()

    def render(self, jobs: Iterable[Job]) -> Iterator[np.ndarray | None]:
        """Speak jobs, in order.

        Args:
            jobs: taken as they are spoken, up to 16 ahead of the last that came out.

        Yields:
            (N,) float32 at 16 kHz, or None for a job that failed, crashed or gave no samples.

        Raises:
            OssicleError: the engine's process has ended.
        """
        asked: deque[tuple[subprocess.Popen[str], Path]] = deque()
        for job in jobs:
            asked.append(self._ask(job))
            if len(asked) > _AHEAD:
                yield self._answer(*asked.popleft())
        while asked:
            yield self._answer(*asked.popleft())

    def _ask(self, job: Job) -> tuple[subprocess.Popen[str], Path]:
        process = self._processes[self._asked % len(self._processes)]
        path = Path(self._folder.name) / f"{self._asked}.wav"
        self._asked += 1
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"path": str(path), **job._asdict()}) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._ended(process) from None
        return process, path

    def _answer(self, process: subprocess.Popen[str], path: Path) -> np.ndarray | None:
        assert process.stdout is not None
        while True:
            line = process.stdout.readline()
            if not line:
                raise self._ended(process)
            reply = json.loads(line)
            # Answers to what an earlier, unfinished `render` asked are passed over.
            if reply["path"] == str(path):
                break
            Path(reply["path"]).unlink(missing_ok=True)
        try:
            if reply["error"]:
                return None
            return audio.load(path, sample_rate=SAMPLE_RATE).samples[0]
        except AudioError:
            return None
        finally:
            path.unlink(missing_ok=True)

    def _ended(self, process: subprocess.Popen[str]) -> OssicleError:
        process.wait()
        said = self._errors.read_text("utf-8", "replace").splitlines()
        last = " ".join(next((line for line in reversed(said) if line.strip()), "").split())
        return OssicleError(
            f"the speech engine ended with code {process.returncode} ({last or 'no word'}); "
            "run again: what is there is kept"
        )


def engine_command(module: str, *arguments: object) -> list[str]:
    """The command that runs an engine's module in this Python."""
    return [sys.executable, "-m", module, *map(str, arguments)]
