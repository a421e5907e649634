"""The README is true: its tree names every file, its commands parse, its Python runs where there are weights."""

import ast
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from unitok import cli
from unitok.commands.reconstruct import SAMPLE
from unitok.hub import ASSETS, DEFAULT, WEIGHTS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.S | re.M)


def sentence(path: Path) -> str:
    first = (ast.get_docstring(ast.parse(path.read_text())) or "").strip().split("\n\n")[0]
    return " ".join(first.split())


def tree() -> str:
    """One line for each file of the package: its name and the first paragraph of its docstring."""
    lines = []
    for path in sorted(
        (ROOT / "unitok").rglob("*.py"), key=lambda p: (p.parent.parts, p.name != "__init__.py", p.name)
    ):
        name = path.relative_to(ROOT).as_posix()
        if path.name == "__init__.py":
            lines.append(f"- **`{name.removesuffix('__init__.py')}`** {sentence(path)}")
        else:
            lines.append(f"  - `{path.name}` {sentence(path)}")
    return "\n".join(lines) + "\n"


def commands() -> str:
    rows = "".join(f"| `unitok {name}` | {help.replace('|', '/')} |\n" for name, (_, help) in cli.COMMANDS.items())
    return f"| command | does |\n|---|---|\n{rows}"


@pytest.mark.parametrize(("name", "generate"), [("tree", tree), ("commands", commands)])
def test_the_tree_and_the_commands_are_up_to_date(name, generate):
    """After a change: UPDATE_README=1 uv run pytest tests/test_readme.py."""
    part = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end of {name} -->)", re.S)
    if os.environ.get("UPDATE_README"):
        README.write_text(part.sub(lambda _: generate(), README.read_text()))
    written = part.search(README.read_text())
    assert written is not None
    assert written.group() == generate()


def test_every_file_says_in_one_sentence_what_it_is():
    assert all(sentence(path) for path in (ROOT / "unitok").rglob("*.py"))


def test_the_top_level_is_named():
    """What git tracks, and not what the README's own commands leave behind."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    entries = {path.split("/")[0] for path in listed.stdout.splitlines() if not path.startswith(".")}
    assert "pyproject.toml" in entries
    for name in entries:
        assert re.search(rf"`{re.escape(name)}/?`", README.read_text()), f"README.md does not name {name}"


def test_command_lines_parse():
    lines = [line for block in blocks("sh") for line in block.splitlines() if " unitok " in f" {line}"]
    assert lines
    for line in lines:
        words = shlex.split(line.split("#")[0].split("&&")[-1])
        words = words[words.index("unitok") + 1 :]
        name = cli._match(words)
        assert name in cli.COMMANDS, line
        target = cli.COMMANDS[name][0]
        if not target.endswith(":main"):
            cli._parse(name, cli._load(target), words[len(name.split()) :])


def test_python_blocks_parse():
    assert blocks("python")
    for block in blocks("python"):
        ast.parse(block)


@pytest.mark.skipif(not (ASSETS / DEFAULT / WEIGHTS).is_file(), reason="the trained default has not landed")
def test_the_first_python_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLE, tmp_path / "photo.jpg")
    exec(compile(blocks("python")[0], str(README), "exec"), {})
    assert (tmp_path / "copy.png").is_file()
