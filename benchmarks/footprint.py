"""Memory and start-up, each figure from a fresh process: quantize, half a model, and `import unitok`."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch
from timing import write_result

from unitok.hub import save_tokenizer
from unitok.models.unitok import unitok

# not ru_maxrss, which a process inherits from the one that started it
PEAK = "int(next(line for line in open('/proc/self/status') if 'VmHWM' in line).split()[1]) * 1024"

BARE = f"import torch; print({PEAK})"

LOAD = f"""
import time, torch, unitok
start = time.process_time()
tokenizer = unitok.load_tokenizer({{folder!r}}, parts={{parts!r}})
seconds = time.process_time() - start
touched = sum(float(parameter.detach().sum()) for parameter in tokenizer.parameters())
print([{PEAK}, seconds])
"""

QUANTIZE = f"""
import torch
from unitok.quantizers import MultiCodebookQuantizer
quantizer = MultiCodebookQuantizer(8, 4096, 64).eval()
quantizer.quantize(torch.randn(1, 4, 4, 64))
latents = torch.randn(64, 16, 16, 64)
open("/proc/self/clear_refs", "w").write("5")  # the peak starts again at what is resident now
before = {PEAK}
codes = quantizer.quantize(latents)
print({PEAK} - before)
"""

IMPORT = "import time; start = time.process_time(); import {name}; print(time.process_time() - start)"
PUBLIC = "unitok, unitok.hub"


def fresh(program: str) -> object:
    """What the program printed, run in a process of its own."""
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    bare = fresh(BARE)
    figures = {"peak extra MB of quantize, 16384 tokens of 8 x 4096": fresh(QUANTIZE) / 1e6}
    with tempfile.TemporaryDirectory() as folder:
        with torch.device("meta"):
            tokenizer = unitok()
        tokenizer.to_empty(device="cpu")
        for parameter in tokenizer.parameters():
            torch.nn.init.zeros_(parameter)
        save_tokenizer(tokenizer, Path(folder))
        del tokenizer
        for parts in ("encode", "decode", "all"):
            peak, seconds = fresh(LOAD.format(folder=folder, parts=parts))
            figures[f'GB above import torch, load_tokenizer(parts="{parts}")'] = (peak - bare) / 1e9
            figures[f'CPU seconds, load_tokenizer(parts="{parts}")'] = seconds
    names = {"torch": "torch", "unitok": "unitok", "unitok with its model rooms": PUBLIC}
    times = {name: [] for name in names}
    for _ in range(3):
        for name, modules in names.items():
            times[name].append(fresh(IMPORT.format(name=modules)))
    seconds = {name: median(values) for name, values in times.items()}
    figures["CPU seconds of import"] = seconds
    figures["import unitok / import torch"] = seconds["unitok"] / seconds["torch"]
    figures["import unitok.hub / import torch"] = seconds["unitok with its model rooms"] / seconds["torch"]
    write_result(
        "footprint",
        figures,
        data="UniTok-Large, zero weights, converted folder of 3.3 GB",
        protocol="peak resident memory (VmHWM) of fresh processes, all weights touched; imports: CPU s, median of 3",
    )


if __name__ == "__main__":
    main()
