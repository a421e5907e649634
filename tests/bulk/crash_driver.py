"""A process that forks runs of `tokenize` and kills them; a fork costs milliseconds where a start costs seconds.

Reads commands from standard input, one JSON object each, and answers each with one line:
{"output", "world", "kill_after": seconds | null, "victims": [rank, ...], "die_at": operation | null}
-> {"codes": [exit code or minus signal of each rank], "seconds"}
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from tests.bulk.inputs import tiny_tokenizer
from unitok.bulk import tokenize

SETTINGS = {"batch_size": 4, "workers": 2, "device": "cpu"}


def main() -> None:
    torch.set_num_threads(1)
    tokenizer = tiny_tokenizer()
    print("ready", flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        start = time.monotonic()
        children = [_fork(command, tokenizer, rank) for rank in range(command["world"])]
        if command["kill_after"] is not None:
            time.sleep(command["kill_after"])
            for rank in command["victims"]:
                os.kill(children[rank], signal.SIGKILL)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps({"codes": codes, "seconds": time.monotonic() - start}), flush=True)


def _fork(command: dict, tokenizer, rank: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(command["world"]), "LOCAL_RANK": str(rank)}
        if command["die_at"] is not None:
            _die_at(command["die_at"])
        code = tokenize(command["inputs"], command["output"], tokenizer, **SETTINGS)
    finally:
        os._exit(code)


def _die_at(operation: int) -> None:
    """Kill this process at its n-th operation on files: before it, or in the middle of it where it writes."""
    left = [operation]

    def mortal(function, halve=False):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                if halve:
                    function(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for name in ("fsync", "replace", "link", "unlink"):
        setattr(os, name, mortal(getattr(os, name)))
    Path.write_bytes = mortal(Path.write_bytes, halve=True)


if __name__ == "__main__":
    random.seed(0)
    main()
