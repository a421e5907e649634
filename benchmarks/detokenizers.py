"""What the tiny de-tokenizers make of photos nobody trained on, beside the pixel decoder that reads the same codes.

    python benchmarks/detokenizers.py ar [--held-out 100]

Needs the run of recipes/ta_tok/ar_tiny.yaml or diffusion_tiny.yaml. Figures, results/detokenizer_ar.json, are of
imagenette/eval; the picture beside them is of scikit-image's sample photos. `--show FILE` draws held-out photos, to
look at: those are not to be published.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors import safe_open
from timing import RESULTS, write_result
from torch import Tensor
from torch.nn import functional as F

import unitok
from unitok.decoders import AutoregressiveDecoder, FlowDecoder
from unitok.images import load_image, to_pil
from unitok.losses.reconstruction import psnr
from unitok.tokenizer import Tokenizer

SIDE, COARSE = 128, 16
SAMPLES = ("astronaut", "chelsea", "coffee", "rocket")
COLUMNS = {"unitok_tiny": "unitok-tiny decoder", "ar": "autoregressive", "diffusion": "diffusion"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["ar", "diffusion"], help="whose run, RUNS/NAME_tiny")
    parser.add_argument("--held-out", type=int, default=100, help="photos of imagenette/eval, evenly spaced")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--temperature", type=float, default=1.0, help="of the autoregressive draw")
    parser.add_argument("--top-k", type=int, default=0)
    parser.add_argument("--guidance", type=float, help="without it, the recipe's own")
    parser.add_argument("--steps", type=int, default=20, help="of diffusion")
    parser.add_argument("--show", type=Path, help="a picture of held-out photos, for your eyes only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizers = load(options)
    photos = sorted((options.data / "imagenette/eval").glob("*/*"))
    if options.show:
        some = photos[:: len(photos) // 8][:8]
        grid(tokenizers, [load_image(photo, SIDE) for photo in some]).save(options.show)
        return
    picture(tokenizers, RESULTS / f"detokenizer_{options.name}.png")
    chosen = photos[:: len(photos) // options.held_out][: options.held_out]
    write_result(
        f"detokenizer_{options.name}",
        measure(tokenizers, torch.stack([load_image(photo, SIDE) for photo in chosen]).float() / 255),
        data="imagenette/eval, evenly spaced over its classes; nobody was trained on it",
        protocol={
            "photos": len(chosen),
            "training_steps": {options.name: steps(options.runs / f"{options.name}_tiny/tokenizer")},
            "settings": {name: value for name, value in vars(options).items() if isinstance(value, int | float)},
            "what": "both decoders read the same 8 x 8 tokens of unitok_tiny; psnr_16: in dB, photo and image "
            "averaged down to 16 px, i.e. coarse structure and colour alone; psnr_64: likewise at 64 px; mean_colour: "
            "each photo's own mean colour everywhere; another_photo: the photo halfway round the list instead; "
            "seconds: of the process, for each image, one thread, batches of 20",
        },
    )


def load(options: argparse.Namespace) -> dict[str, Tokenizer]:
    """Two walks that share an encoder and codes, and differ in the decoder."""
    folder = options.runs / f"{options.name}_tiny/tokenizer"
    loaded = {"unitok_tiny": unitok.load_tokenizer(), options.name: unitok.load_tokenizer(folder)}
    guidance = {} if options.guidance is None else {"guidance": options.guidance}
    for tokenizer in loaded.values():
        decoder: Any = tokenizer.decoder
        if isinstance(decoder, AutoregressiveDecoder):
            draw = {"temperature": options.temperature, "top_k": options.top_k, **guidance}
            decoder.sampling = decoder.sampling._replace(**draw)
        elif isinstance(decoder, FlowDecoder):
            decoder.steps, decoder.guidance = options.steps, guidance.get("guidance", decoder.guidance)
    return loaded


def steps(folder: Path) -> int:
    """Training steps behind an exported tokenizer."""
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        return int(weights.metadata()["steps"])


def made(tokenizers: dict[str, Tokenizer], images: Tensor) -> tuple[dict[str, Tensor], dict[str, float]]:
    """(B, 3, H, W) photos -> images of each decoder, and seconds an image cost it; seeded."""
    codes = tokenizers["unitok_tiny"].encode(images)
    answers, seconds = {}, {}
    for name, tokenizer in tokenizers.items():
        start = time.process_time()
        options = {"generator": torch.Generator().manual_seed(0)} if name != "unitok_tiny" else {}
        answers[name] = torch.cat([tokenizer.decode(part, **options) for part in codes.split(20)])
        seconds[name] = (time.process_time() - start) / len(images)
    return answers, seconds


def measure(tokenizers: dict[str, Tokenizer], photos: Tensor) -> dict[str, Any]:
    """PSNR against the photos at 16 and 64 px, mean of each photo's, and of two answers that know less."""
    answers, seconds = made(tokenizers, photos)
    answers["mean_colour"] = photos.mean((2, 3), keepdim=True).expand_as(photos)
    answers["another_photo"] = photos.roll(len(photos) // 2, 0)
    figures: dict[str, Any] = {
        name: {f"psnr_{side}": round(distance(images, photos, side), 2) for side in (COARSE, 64)}
        for name, images in answers.items()
    }
    for name, value in seconds.items():
        figures[name]["seconds"] = round(value, 3)
    return figures


def distance(images: Tensor, photos: Tensor, side: int) -> float:
    return psnr(*(F.adaptive_avg_pool2d(batch, side) for batch in (images, photos))).item()


def picture(tokenizers: dict[str, Tokenizer], path: Path) -> None:
    from skimage import data

    photos = [load_image(getattr(data, name)(), SIDE) for name in SAMPLES]
    grid(tokenizers, photos).save(path, optimize=True)


def grid(tokenizers: dict[str, Tokenizer], photos: list[Tensor], tile: int = 176, gap: int = 8) -> Image.Image:
    """A row for each photo: the photo, then what each decoder makes of its codes."""
    images = torch.stack(photos).float() / 255
    answers, _ = made(tokenizers, images)
    columns = {"photo": images, **{COLUMNS[name]: answer for name, answer in answers.items()}}
    head, step = 34, tile + gap
    canvas = Image.new("RGB", (gap + step * len(columns), head + step * len(photos)), "#faf9f6")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(16)
    for x, (title, batch) in enumerate(columns.items()):
        pen.text((gap + x * step + tile / 2, head / 2), title, fill="#1c1c1e", font=font, anchor="mm")
        for y, image in enumerate(batch):
            shown = to_pil(image).resize((tile, tile), Image.Resampling.BICUBIC)
            canvas.paste(shown, (gap + x * step, head + y * step))
    return canvas


if __name__ == "__main__":
    main()
