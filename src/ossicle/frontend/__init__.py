"""Front ends: waveform in, picture of the sound out.

``FRONTENDS`` names them; ``create_frontend`` builds one from its name and the keywords that
``config()`` of an earlier one returned. To add one: a file here with a subclass of ``FrontEnd``,
a line in ``FRONTENDS``, a line in ``tests/frontend/test_contract.py``.
"""

from __future__ import annotations

from typing import Any

from ossicle.errors import OssicleError
from ossicle.frontend.base import FrontEnd
from ossicle.frontend.mel import LogMel
from ossicle.frontend.mfcc import MFCC
from ossicle.frontend.stft import STFT
from ossicle.frontend.waveform import Waveform

FRONTENDS: dict[str, type[FrontEnd]] = {
    "log_mel": LogMel,
    "mfcc": MFCC,
    "stft": STFT,
    "waveform": Waveform,
}


def create_frontend(name: str, **config: Any) -> FrontEnd:
    """Build the front end called ``name``.

    Args:
        name: a key of ``FRONTENDS``.
        config: keywords of its constructor, such as an earlier front end's ``config()``.

    Raises:
        OssicleError: the name is unknown, or a keyword is unknown, missing or out of range.
    """
    if name not in FRONTENDS:
        raise OssicleError(f"unknown front end {name!r}: choose one of {', '.join(FRONTENDS)}")
    try:
        return FRONTENDS[name](**config)
    except TypeError as error:  # an unknown or a missing keyword
        raise OssicleError(f"front end {name!r}: {error}") from error


__all__ = ["FRONTENDS", "MFCC", "STFT", "FrontEnd", "LogMel", "Waveform", "create_frontend"]
