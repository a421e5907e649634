"""How long imports and `unitok --help` take: fresh interpreters, interleaved, medians."""

import subprocess
import sys

from timing import interleave, write_result

STATEMENTS = {
    "import torch": "import torch",
    "import unitok": "import unitok",
    "import torch, unitok": "import torch, unitok",
    "every public name": "from unitok import *",
    "unitok --help": "from unitok.cli import main; main(['--help'])",
}


def main() -> None:
    def run(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)

    seconds = interleave({name: lambda code=code: run(code) for name, code in STATEMENTS.items()}, repeats=5)
    figures = {name: round(value, 3) for name, value in seconds.items()}
    figures["import unitok / import torch"] = round(seconds["import unitok"] / seconds["import torch"], 3)
    figures["import torch, unitok / import torch"] = round(seconds["import torch, unitok"] / seconds["import torch"], 3)
    figures["every public name / import torch"] = round(seconds["every public name"] / seconds["import torch"], 3)
    write_result("start_up", figures, protocol="wall seconds of a fresh interpreter, median of 5 after 1 warm-up")


if __name__ == "__main__":
    main()
