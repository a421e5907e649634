import inspect
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from unitok import cli
from unitok.cli import COMMANDS, main

HELP = """
import resource, sys
from unitok.cli import main
assert main(sys.argv[1:]) in (0, 2)
heavy = {"torch", "numpy", "PIL", "lightning", "timm"} & set(sys.modules)
used = resource.getrusage(resource.RUSAGE_SELF)
sys.exit(f"imported {heavy}" if heavy else f"{used.ru_utime:.2f} s" if used.ru_utime > 1 else 0)
"""


@pytest.mark.parametrize("words", [["--help"], [], ["--version"], ["encoed"]])
def test_help_needs_no_torch_and_less_than_a_second(words):
    done = subprocess.run([sys.executable, "-c", HELP, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [name for name, (target, _) in COMMANDS.items() if not target.endswith(":main")])
def test_every_command_has_a_parser_and_every_argument_a_help(name, capsys):
    function = cli._load(COMMANDS[name][0])
    assert set(cli._helps(function)) == set(inspect.signature(function).parameters)
    with pytest.raises(SystemExit) as stop:
        main([*name.split(), "--help"])
    assert stop.value.code == 0
    assert f"usage: unitok {name}" in capsys.readouterr().out


def show(
    photos: list[int], kind: str, output: str = "x", size: int | None = None, loud: bool = False, keys: str = ""
) -> int | None:
    """What was asked.

    Args:
        photos: some.
        kind: one.
        output: where.
        size: px.
        loud: or not.
        keys: a name that the parser's own namespace uses too.
    """
    if kind == "bad":
        raise ValueError("it is\n  bad")
    if kind == "gone":
        Path("/nowhere/at/all").read_text()
    if kind == "slow":
        warnings.warn("it is\n  slow", RuntimeWarning, stacklevel=2)
    print(photos, kind, output, size, loud)
    return 1 if kind == "half" else None


def passed_on(words: list[str]) -> int:
    print(words)
    return 7


passed_on.__name__ = "main"


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(cli, "COMMANDS", {"show": ("a:show", "s"), "eval big": ("a:show", "e"), "fit": ("a:main", "f")})
    monkeypatch.setattr(cli, "_load", lambda target: show if target == "a:show" else passed_on)


@pytest.mark.parametrize(
    ("words", "code", "printed"),
    [
        (["show", "1", "2", "k", "-o", "o", "--size", "3", "--loud"], 0, "[1, 2] k o 3 True\n"),
        (["show", "1", "half"], 1, "[1] half x None False\n"),
        (["eval", "big", "1", "k"], 0, "[1] k x None False\n"),
        (["fit", "--config", "a.yaml", "--help"], 7, "['fit', '--config', 'a.yaml', '--help']\n"),
    ],
)
def test_words_become_arguments(table, capsys, words, code, printed):
    assert main(words) == code
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["show", "1", "bad"], "unitok show: it is bad"),
        (["show", "1", "gone"], "unitok show: /nowhere/at/all: No such file or directory"),
        (["show", "1", "k", "--size", "big"], "unitok show: Parser key \"size\": Expected a <class 'int'>"),
        (["show", "1", "k", "--sise", "3"], "unitok show: unrecognized arguments: --sise"),
        (["show"], "unitok show: the following arguments are required: photos, kind"),
        (["shwo"], "unitok: no command 'shwo'; did you mean 'show'? (unitok --help lists them)"),
        (["eval", "bigg"], "unitok eval: no command 'bigg'; did you mean 'eval big'?"),
        (["--colour"], "unitok: no option '--colour'"),
    ],
)
def test_bad_words_give_one_line_and_code_2(table, capsys, words, line):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == 1


@pytest.mark.filterwarnings("default:it is")
def test_a_warning_is_one_line_and_no_place_in_the_code(table, capsys):
    shown = warnings.showwarning
    assert main(["show", "1", "slow"]) == 0
    assert capsys.readouterr().err == "warning: it is slow\n"
    assert warnings.showwarning is shown


def test_a_group_lists_its_commands(table, capsys):
    assert main(["eval", "--help"]) == 0
    out = capsys.readouterr().out
    assert "eval big" in out
    assert "show" not in out
