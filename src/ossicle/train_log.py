"""What a training run writes down as it goes: a file of JSON lines, and TensorBoard's."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from ossicle.record import replaced

LOG = "log.jsonl"


class Log:
    """JSON lines, and TensorBoard's file where it is installed; without a folder only in memory.

    Args:
        folder: of both files; None keeps neither.
        history: lines of the steps before.
        step: steps done before.

    Attributes:
        lines: all of them.
    """

    def __init__(self, folder: Path | None, history: list[dict[str, Any]], step: int) -> None:
        self.lines = list(history)
        self.path = None if folder is None else folder / LOG
        self.board: Any = None
        if folder is None or self.path is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        # Lines that a stopped run wrote after its checkpoint are of steps that come again.
        with replaced(self.path) as part:
            part.write_text("".join(f"{json.dumps(line)}\n" for line in history), encoding="utf-8")
        with suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step or None)

    def line(self, numbers: dict[str, Any]) -> None:
        """Write the numbers of a step, "step" among them."""
        self.lines.append(numbers)
        if self.path is None:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(numbers) + "\n")
        if self.board is not None:
            for name, value in numbers.items():
                if name != "step":
                    self.board.add_scalar(name, value, numbers["step"])
            self.board.flush()

    def close(self) -> None:
        """End TensorBoard's thread, which would outlive the run."""
        if self.board is not None:
            self.board.close()
