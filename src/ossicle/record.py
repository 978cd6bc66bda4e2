"""What a run used: arguments, seed, versions, commit, machine kind, time, checksum of the data.

A record names no user, no host and no home folder, so that it can be published with a result.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import secrets
import subprocess
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ossicle.errors import DataError

# Those that numbers depend on; only the installed ones are listed.
_DISTRIBUTIONS = (
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "soundfile",
    "soxr",
    "safetensors",
    "pandas",
    "pyarrow",
    "tflite",
    "av",
)
_GIT_TIMEOUT_S = 5.0


def record(
    arguments: Mapping[str, Any],
    *,
    seed: int | None,
    data: Iterable[str | os.PathLike[str]] | None = None,
) -> dict[str, Any]:
    """Describe a run, ready for `write_json`.

    Args:
        arguments: the effective arguments by name; see `json_safe` for what becomes of them.
        seed: the run's seed, None where nothing is drawn.
        data: the files that the run read, or folders of them; None leaves them out.

    Returns:
        Keys ossicle (version), commit (of ossicle's source and whether it was modified, or None),
        python, platform (system, machine, cpu, logical_cores), versions (by distribution), time
        (UTC, ISO 8601), arguments, seed, data (see `data_checksum`, or None).

    Raises:
        DataError: a file of `data` cannot be read.
    """
    return {
        "ossicle": _version("ossicle"),
        "commit": source_commit(Path(__file__).parent),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": {
            "system": platform.system(),
            "machine": platform.machine(),
            "cpu": _cpu(),
            "logical_cores": os.cpu_count(),
        },
        "versions": {
            name: version for name in _DISTRIBUTIONS if (version := _version(name)) is not None
        },
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "arguments": json_safe(arguments),
        "seed": seed,
        "data": None if data is None else data_checksum(data),
    }


def data_checksum(data: Iterable[str | os.PathLike[str]]) -> dict[str, Any]:
    """One checksum over the names and contents of many files, wherever they lie.

    Names count from the files' common folder. The same files give the same checksum in any order,
    on any machine, in constant memory.

    Args:
        data: files; a folder stands for all files below it.

    Returns:
        {"files": count, "bytes": total, "sha256": hexadecimal}.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    files: set[Path] = set()
    for entry in map(Path, data):
        below = (path for path in entry.rglob("*") if path.is_file()) if entry.is_dir() else [entry]
        files.update(Path(os.path.abspath(path)) for path in below)  # noqa: PTH100 (keeps links)
    root = os.path.commonpath([path.parent for path in files]) if files else ""
    named = sorted(
        # Some file systems store accents decomposed; the same name must sort and hash alike.
        (unicodedata.normalize("NFC", path.relative_to(root).as_posix()), path)
        for path in files
    )
    total = hashlib.sha256()
    size = 0
    for name, path in named:
        try:
            with path.open("rb") as handle:
                content = hashlib.file_digest(handle, "sha256").hexdigest()
                length = handle.tell()
        except OSError as error:
            raise DataError(f"{path}: cannot be read for the record: {error.strerror}") from error
        size += length
        total.update(f"{name}\0{length}\0{content}\n".encode("utf-8", "surrogateescape"))
    return {"files": len(named), "bytes": size, "sha256": total.hexdigest()}


def json_safe(value: Any) -> Any:
    """The nearest value that JSON holds.

    Mappings, sequences, sets (sorted), arrays and dataclasses become dicts and lists; paths the
    text they were given as, with the home folder as "~"; NaN and infinities the texts "nan",
    "inf", "-inf"; anything else its `repr` without addresses.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, np.generic | np.ndarray):
        return json_safe(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return _without_home(value)
    if isinstance(value, os.PathLike):
        return _without_home(os.fsdecode(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_without_home(str(key)): json_safe(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(json_safe, value), key=str)
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray):
        return [json_safe(item) for item in value]
    return _without_home(re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value)))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON (UTF-8, two spaces, no NaN); the file appears whole or not at all.

    Raises:
        ValueError: the value holds NaN or infinity; pass it through `json_safe`.
        OSError: the folder is missing or cannot be written.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with replaced(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


@contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A name to write to, in the same folder, that takes the place of `path` if all goes well.

    The file at `path` is the old one or the new one, never half of either, also when several
    processes write it. When the body raises, what it wrote is removed.
    """
    path = Path(path)
    # Short, as the folder's limit on a name's length holds for this one too.
    part = path.with_name(f".{path.name[:32]}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def source_commit(folder: Path) -> dict[str, Any] | None:
    """The git commit of a source folder.

    Args:
        folder: holds source under version control, or an installed copy that is not.

    Returns:
        {"commit": hash, "modified": whether the folder differs from it}, or None where the folder
        is not tracked (a package inside some other project's checkout), or git is absent.
    """
    if not _git(folder, "ls-files", "."):
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", ".")
    return None if not commit else {"commit": commit, "modified": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    # A hook's GIT_DIR would answer for another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return model[1].strip() if model else platform.processor() or platform.machine()


def _without_home(text: str) -> str:
    try:
        home = str(Path.home())
    except RuntimeError:  # no home can be told
        return text
    if len(home) < 2:
        return text
    # Only where a path begins, so that /data/root/x keeps its name when home is /root.
    return re.sub(rf"(?<![\w.\-/\\]){re.escape(home)}(?=[/\\]|$)", "~", text)
