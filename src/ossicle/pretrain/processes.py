"""The processes of a run, and what they raise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ossicle.errors import OssicleError
from ossicle.pretrain.settings import Settings
from ossicle.train import TrainingError


def create_fabric(s: Settings) -> Any:
    """What runs one process or several.

    Raises:
        OssicleError: Lightning is not there, or there is no such device or precision.
    """
    try:
        from lightning.fabric import Fabric
    except ImportError as error:
        raise OssicleError('training needs Lightning: pip install "ossicle[train]"') from error
    settings: dict[str, Any] = {
        "accelerator": s.accelerator,
        "devices": s.devices,
        "precision": s.precision,
        "strategy": "auto" if s.devices == 1 else "ddp_spawn",
    }
    try:
        return Fabric(**settings)
    except (ValueError, RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OssicleError(
            f"accelerator {s.accelerator!r}, devices {s.devices}, precision {s.precision!r}: "
            f"{reason}"
        ) from error


@contextmanager
def errors_of_processes() -> Iterator[None]:
    """What a process raised, as if it had been raised here."""
    from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

    try:
        yield
    except ProcessRaisedException as error:
        # A traceback as text; its last line is the error's.
        name, _, message = str(error).strip().splitlines()[-1].partition(": ")
        if name.endswith("KeyboardInterrupt"):
            raise KeyboardInterrupt from None
        if name.startswith("ossicle."):
            raise TrainingError(message) from None
        raise
    except ProcessExitedException as error:
        raise TrainingError(f"a process of the run ended: {error}") from error
