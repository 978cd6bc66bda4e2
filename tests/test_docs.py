"""The pages: their commands, options, links and snippets exist; no path of one machine anywhere."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from ossicle.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NEEDED = {
    *("index", "first-model", "data", "trust", "features", "probes", "bundle", "python"),
    *("backbones/yamnet", "backbones/choi_convnet", "backbones/efficientat_mn04"),
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# Written in parts, so that this file passes its own test. A bare name of the last two is a word
# about Unix; what lies below them is a place on one machine.
MACHINE = re.compile(r"(?<![\w.~$}-])/" + r"(?:work(?![\w-])|(?:root|tmp)/)")
REGISTRIES = ("pypi" + ".org", "python" + "hosted.org", "anaconda" + ".org", "npm" + "js.")
COMMAND = typer.main.get_command(app)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(text: str) -> str:
    """The page without its code blocks."""
    return FENCE.sub("", text)


def commands(text: str) -> list[tuple[str, bool]]:
    """(command, whether it must be complete): those in code blocks, then those within sentences."""
    found = []
    for _, block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"^\$ |^\S*/bin/(?=ossicle )", "", line.strip())
            if line.startswith("ossicle "):
                found.append((line, True))
    found += [(code, False) for code in re.findall(r"`(ossicle [^`]+)`", prose(text))]
    return found


def complaint(line: str, complete: bool) -> str | None:
    """What the command line itself would object to; None where it takes the arguments."""
    words = shlex.split(line, comments=True)[1:]
    command: Any = COMMAND
    path = "ossicle"
    while words and hasattr(command, "commands") and words[0] in command.commands:
        command, path = command.commands[words[0]], f"{path} {words[0]}"
        words = words[1:]
    if hasattr(command, "commands") and words and not words[0].startswith("-"):
        return f"{path} has no verb {words[0]!r}"
    if hasattr(command, "commands") and not words:
        return None
    try:
        command.make_context(path, words)
    except typer.Exit:  # --help
        return None
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        missing = type(error).__name__ == "MissingParameter"
        return None if missing and not complete else error.format_message()
    return None


def anchors(text: str) -> set[str]:
    """What a heading is called in links: lower case, spaces as hyphens, no other signs."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def test_all_pages_are_there_and_on_the_map():
    there = {p.relative_to(ROOT / "docs").with_suffix("").as_posix() for p in PAGES[1:]}
    assert there >= NEEDED
    links = set(LINK.findall((ROOT / "docs/index.md").read_text(encoding="utf-8")))
    assert {f"{page}.md" for page in NEEDED - {"index"}} <= links


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_name_verbs_and_options_that_exist(page: Path):
    found = [
        f"{line}: {objection}"
        for line, complete in commands(page.read_text(encoding="utf-8"))
        if (objection := complaint(line, complete)) is not None
    ]
    assert not found, "\n".join(found)


def test_commands_are_found_and_refused():
    text = "```\n$ ossicle evaluate x --quick  # all\nossicle trian x\n```\nRun `ossicle audit`.\n"
    assert [line for line, _ in commands(text)] == [
        "ossicle evaluate x --quick  # all",
        "ossicle trian x",
        "ossicle audit",
    ]
    assert complaint("ossicle evaluate x --quick  # all", True) is None
    assert complaint("ossicle audit", False) is None
    for wrong in ("trian x", "evaluate x --quik", "evaluate", "train x -o", "study layer x"):
        assert complaint(f"ossicle {wrong}", True) is not None, wrong
    assert complaint("ossicle evaluate --foolds a", False) is not None
    assert complaint("ossicle evaluate x --n-folds many", True) is not None


def test_every_verb_is_on_a_page():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    lines = [line for line, _ in commands(text)]
    for verb in COMMAND.commands:
        assert any(line.split()[1:2] == [verb] for line in lines), verb


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path):
    for link in LINK.findall(prose(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_snippets_compile(page: Path):
    snippets = [code for kind, code in FENCE.findall(page.read_text("utf-8")) if kind == "python"]
    for code in snippets:
        compile(code, name(page), "exec")
    assert snippets or page.stem != "python"


def test_pages_say_nothing_of_the_machine_or_a_registry():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("needs git and a checkout to know which files are the project's")
    wrong = []
    for file in (ROOT / part for part in listed.stdout.decode().split("\0") if part):
        try:
            text = file.read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if MACHINE.search(line) or any(host in line for host in REGISTRIES):
                wrong.append(f"{name(file)}:{number}: {line.strip()[:100]}")
    assert not wrong, "\n".join(wrong)


def test_the_picture_is_small():
    from PIL import Image

    picture = ROOT / "docs/images/report.png"
    assert picture.stat().st_size < 300_000
    with Image.open(picture) as image:
        assert 1000 <= image.width <= 1400
