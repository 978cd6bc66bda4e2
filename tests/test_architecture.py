"""The package's shape: who imports whom, sizes, names, printing, docstrings, nothing executable."""

from __future__ import annotations

import ast
import json
import os
import resource
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import ossicle

PACKAGE = Path(ossicle.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# Low to high; a module imports only rows above its own in this list. A new one needs a place.
ROWS = [
    ["errors"],
    ["keywords"],
    ["download", "record"],
    ["headers", "tally", "fingerprint", "train_log", "events"],
    ["decode", "frontend"],
    ["audio", "metrics", "backbones", "heads", "train", "novelty", "calibrated"],
    ["augment", "datasets", "writer"],
    ["mix", "model", "separators"],
    ["detector"],
    ["card", "bundle_checks"],
    ["bundle_files", "separator_card"],
    ["bundle", "engine"],
    ["features", "hear_export"],
    ["predict", "store", "xares_export", "mteb_export"],
    ["embed", "leaks", "describe", "detect"],
    ["leaks_text", "transfer"],
    ["classifier"],
    ["pretrain"],
    ["finetune", "strong"],
    ["advise"],
    ["report"],
    ["study", "separate", "inspection"],
    ["denoise"],
    ["benchmark"],
    ["corpus"],
    ["line", "console"],
    ["cli_options", "cli_report"],
    [
        "cli_advise",
        "cli_bench",
        "cli_data",
        "cli_denoise",
        "cli_detect",
        "cli_event_scores",
        "cli_events",
        "cli_export",
        "cli_finetune",
        "cli_inspect",
        "cli_mix",
        "cli_networks",
        "cli_predict",
        "cli_pretrain",
        "cli_separate",
        "cli_separate_mix",
        "cli_separate_score",
        "cli_separate_train",
        "cli_strong",
        "cli_tune",
        "cli_picture",
        "cli_study_layers",
        "cli_study_preprocessing",
        "cli_study_training_size",
        "cli_study_transfer",
    ],
    ["cli_separation"],
    ["cli", "web"],
]
RANK = {name: rank for rank, row in enumerate(ROWS) for name in row}
HEAVY = ("torch", "pandas", "sklearn", "scipy", "matplotlib", "numpy")
FORBIDDEN = ("pickle.", "cloudpickle.", "dill.", "marshal.", "shelve.", "joblib.load", "yaml.")


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _unit(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    """The package's modules that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
            if node.module == "ossicle":
                names = [f"ossicle.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        parts = [name.split(".") for name in names]
        found |= {p[1] for p in parts if p[0] == "ossicle" and len(p) > 1}
    return found - {"__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_file_keeps_the_rules(path):
    text, tree = path.read_text(encoding="utf-8"), _tree(path)
    assert len(text.splitlines()) <= 400
    names = {*path.relative_to(PACKAGE).with_suffix("").parts} - {"__init__"}
    assert not names & {"utils", "helpers", "common", "misc", "manager", "factory"}
    assert not names & set(sys.stdlib_module_names), "named as a standard-library module"
    assert ast.get_docstring(tree), "no docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                assert not f"{module}{alias.name}.".startswith(FORBIDDEN), f"line {node.lineno}"
        if not isinstance(node, ast.Call):
            continue
        call = ast.unparse(node.func)
        if not path.name.startswith("cli") and path.name != "console.py":
            assert call not in ("print", "typer.echo", "rich.print"), f"line {node.lineno} prints"
        assert call not in ("eval", "exec", "compile", "__import__"), f"line {node.lineno}"
        assert not f"{call}.".startswith(FORBIDDEN), f"line {node.lineno}: {call}"
        if call.endswith("torch.load"):
            assert "weights_only=True" in ast.unparse(node), f"line {node.lineno}"
        if call in ("np.load", "numpy.load"):
            assert "allow_pickle=True" not in ast.unparse(node), f"line {node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downhill(path):
    unit = _unit(path)
    if unit == "__init__":
        assert not _imports(path)
        return
    assert unit in RANK, f"{unit} has no place: add it to ROWS in {Path(__file__).name}"
    for other in _imports(path) - {unit}:
        assert other in RANK, f"{other} has no place: add it to ROWS in {Path(__file__).name}"
        assert RANK[other] < RANK[unit], f"{unit} imports {other}, which is not below it"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_what_is_public_is_documented(path):
    def bare(node: ast.AST, inside: str = "") -> list[str]:
        found = []
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.FunctionDef | ast.ClassDef) or child.name.startswith("_"):
                continue
            if not ast.get_docstring(child):
                found.append(f"{inside}{child.name}")
            if isinstance(child, ast.ClassDef):
                found += bare(child, f"{child.name}.")
        return found

    assert not bare(_tree(path))


def test_every_public_name_is_there():
    assert all(getattr(ossicle, name) is not None for name in ossicle.__all__)
    assert set(ossicle.__all__) <= set(dir(ossicle))
    with pytest.raises(AttributeError, match="no_such_name"):
        ossicle.no_such_name  # noqa: B018


def test_public_names_are_not_hidden_by_modules():
    """Importing a module puts it into its package under its own name, over what was there."""
    code = (
        "import importlib, pkgutil, ossicle\n"
        "for module in pkgutil.walk_packages(ossicle.__path__, 'ossicle.'):\n"
        "    importlib.import_module(module.name)\n"
        "for name, (module, attribute) in ossicle._PUBLIC.items():\n"
        "    wanted = getattr(importlib.import_module(module), attribute)\n"
        "    if getattr(ossicle, name) is not wanted or not callable(wanted): print(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert not done.stdout.split()


def _loaded_after(code: str) -> set[str]:
    code += "\nimport sys, json; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return {name.split(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


def test_importing_and_asking_for_help_load_nothing_heavy():
    assert not _loaded_after("import ossicle") & set(HEAVY)
    ask = (
        "import sys; sys.argv = ['ossicle', '--help']\n"
        "import ossicle.cli\n"
        "try: ossicle.cli.main()\n"
        "except SystemExit: pass"
    )
    assert not _loaded_after(ask) & set(HEAVY)


def test_help_answers_at_once():
    command = Path(sysconfig.get_path("scripts")) / "ossicle"
    assert command.is_file(), "install the package: pip install -e ."
    taken = []
    for _ in range(3):  # the quickest counts: the machine may be busy
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [command, "--help"], capture_output=True, text=True, env={**os.environ, "COLUMNS": "99"}
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0
        assert "evaluate" in done.stdout
        assert not done.stderr
        taken.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(taken) < 0.5
