"""The command line: a table of functions, each of whose plain typed signature is its interface.

`unitok --help` prints the table and imports nothing else; a command's module is imported when it is called for.
"""

import inspect
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Literal, get_args, get_origin, get_type_hints

COMMANDS: dict[str, tuple[str, str]] = {  # command -> (module:function, one line of help)
    "list": ("unitok.commands.tokenizers:list_", "the tokenizers this library knows"),
    "info": ("unitok.commands.tokenizers:info", "what a tokenizer consists of"),
    "reconstruct": ("unitok.commands.reconstruct:reconstruct", "photos there and back, side by side in one picture"),
    "encode": ("unitok.commands.codes:encode", "photos and folders -> one file of codes"),
    "decode": ("unitok.commands.codes:decode", "a file of codes -> photos"),
    "codebook": ("unitok.commands.codebook:codebook", "a language model's embedding -> a text-aligned codebook"),
    "words": ("unitok.commands.words:words", "the word of each region of a photo, drawn over it"),
    "convert": ("unitok.commands.tokenizers:convert", "a published checkpoint -> a folder that loads fast and safely"),
    "tokenize": (
        "unitok.bulk.tokenize:tokenize",
        "millions of photos -> shards of codes; goes on where it was stopped",
    ),
    "merge": ("unitok.bulk.merging:merge", "outputs of tokenize, made by one tokenizer -> one"),
    "eval reconstruction": ("unitok.evaluation.reconstruction:reconstruction", "rFID, PSNR, SSIM, LPIPS, usage, bits"),
    "eval zero-shot": ("unitok.evaluation.zero_shot:zero_shot", "accuracy by class names, or recall of captions"),
    "eval probe": ("unitok.evaluation.probe:probe", "kNN and linear probe: what quantization costs"),
    "eval speed": ("unitok.evaluation.throughput:speed", "images/s, latency, memory, GFLOPs, beside another tokenizer"),
    "eval compare": ("unitok.evaluation.tables:compare", "reports side by side, where their protocols are alike"),
    "report": ("unitok.evaluation.page:report", "reports -> one HTML page, and the README's tables"),
    "fit": ("unitok.training.cli:main", "train, from a recipe"),
    "validate": ("unitok.training.cli:main", "run a recipe's validation"),
    "test": ("unitok.training.cli:main", "run a recipe's test"),
}
"""A function called `main` gets the command and its words as they are; any other gets a parser made from its signature.

In that parser a list without default is a positional of one word or more, a sequence whose default is empty one of any
number, another parameter without default a positional (or, keyword-only, an option that must be given), a parameter
with default an option, and `output` is always an option, also called -o.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Words of a command line -> exit code: 0, 1 where a part of the work failed, 2 on bad input (and one line why)."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = _match(words)
    if name not in COMMANDS:
        return _without_command(name, words)
    rest = words[len(name.split()) :]
    try:
        target = _load(COMMANDS[name][0])
        if target.__name__ == "main":
            return int(target([name, *rest]) or 0)
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            return int(target(**_parse(name, target, rest)) or 0)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, ImportError) as error:
        return _refuse(name, _one_line(error))


def _match(words: list[str]) -> str:
    """The longest command, or group of commands, that the words begin with; "" where they begin with none."""
    known = {" ".join(command.split()[:length]) for command in COMMANDS for length in (1, 2, 3)}
    return next((" ".join(words[:n]) for n in (3, 2, 1) if len(words) >= n and " ".join(words[:n]) in known), "")


def _without_command(group: str, words: list[str]) -> int:
    rest = words[len(group.split()) :]
    if rest and not rest[0].startswith("-"):
        near = get_close_matches(" ".join(words[: len(group.split()) + 1]), COMMANDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return _refuse(group, f"no command {rest[0]!r}{hint} ({_prog(group)} --help lists them)")
    if not group and rest[:1] == ["--version"]:
        from unitok import __version__

        print(f"unitok {__version__}")
        return 0
    if rest and rest[0] not in ("-h", "--help"):
        return _refuse(group, f"no option {rest[0]!r} ({_prog(group)} --help lists the commands)")
    listed = {name: help for name, (_, help) in COMMANDS.items() if name.startswith(group)}
    print(f"usage: {_prog(group)} COMMAND ...\n\nImages to discrete codes and back.\n\ncommands:")
    for name, help in listed.items():
        print(f"  {name:<{max(map(len, listed)) + 2}}{help}")
    print("\nunitok COMMAND --help says more about one of them")
    return 0


def _load(target: str) -> Callable[..., Any]:
    module, _, function = target.partition(":")
    return getattr(import_module(module), function)


def _parse(name: str, function: Callable[..., Any], words: list[str]) -> dict[str, Any]:
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(prog=_prog(name), exit_on_error=False, description=COMMANDS[name][1])
    helps = _helps(function)
    hints = get_type_hints(function)
    for parameter in inspect.signature(function).parameters.values():
        flags, options = _argument(parameter, hints[parameter.name])
        parser.add_argument(*flags, help=helps.get(parameter.name, ""), **options)
    try:
        return parser.parse_args(words).as_dict()
    except ArgumentError as error:
        raise ValueError(f"{error} ({_prog(name)} --help says more)") from error


def _argument(parameter: inspect.Parameter, hint: Any) -> tuple[list[str], dict[str, Any]]:
    """A parameter -> the flags and options of its argument."""
    flag, default = "--" + parameter.name.rstrip("_").replace("_", "-"), parameter.default  # from_ is --from
    named = {"dest": parameter.name} if parameter.name.endswith("_") else {}
    if get_origin(hint) is not Literal and type(None) in get_args(hint):  # X | None: None is said by leaving it out
        hint = next(kind for kind in get_args(hint) if kind is not type(None))
    if get_origin(hint) is not Literal and str in get_args(hint) and get_origin(hint) not in (list, Sequence):
        hint = str  # a name or the thing itself: words can only name it
    several = get_origin(hint) in (list, Sequence)
    kind = get_args(hint)[0] if several else hint
    flags = ["-o", flag] if parameter.name == "output" else [flag]
    if default is parameter.empty and (parameter.kind is parameter.KEYWORD_ONLY or parameter.name == "output"):
        return flags, {"type": kind, "required": True, **named}
    if default is parameter.empty:
        return [parameter.name], {"type": kind, **({"nargs": "+"} if several else {})}
    if several and default is not None and not default:
        return [parameter.name], {"type": kind, "nargs": "*", "default": []}
    if hint is bool and default is False:
        return [flag], {"action": "store_true"}
    return flags, {"type": kind, "default": default, **named, **({"nargs": "+"} if several else {})}


def _helps(function: Callable[..., Any]) -> dict[str, str]:
    from docstring_parser import parse

    return {
        entry.arg_name: " ".join((entry.description or "").split()) for entry in parse(function.__doc__ or "").params
    }


def _prog(name: str) -> str:
    return f"unitok {name}".strip()


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _warn(message: Warning | str, *where: Any, **more: Any) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def _refuse(name: str, reason: str) -> int:
    print(f"{_prog(name)}: {reason}", file=sys.stderr)
    return 2
