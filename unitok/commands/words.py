"""`unitok words`: the word that each region of a photo became, printed and drawn over the photo."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from unitok.commands.photos import Device, load_on
from unitok.files import replacing
from unitok.hub import DEFAULT
from unitok.images import load_image, read_images, to_pil
from unitok.quantizers import TextAlignedQuantizer
from unitok.quantizers.words import Codebook, read_codebook
from unitok.tokenizer import Tokenizer


def words(
    photo: Path,
    tokenizer: str = DEFAULT,
    codebook: Path | None = None,
    scale: int = 3,
    output: Path = Path("words.png"),
    side: int = 1080,
    device: Device = "auto",
) -> None:
    """Print the nearest word of each region of a photo, and draw the words over the photo.

    Args:
        photo: the file; its middle square is used.
        tokenizer: a text-aligned one: a folder or a published checkpoint file.
        codebook: the file that `unitok codebook` wrote and the tokenizer was trained with; left out,
            codebook.safetensors in the tokenizer's folder.
        scale: 1 for the finest grid, 3 for the coarsest.
        output: the picture to write, a PNG.
        side: its width and height in pixels.
        device: where to run.

    Raises:
        FileNotFoundError: no photo, tokenizer or codebook file.
        ValueError: a tokenizer that is not text-aligned, or a codebook that is not its own or has no words; a side
            of no pixels.
    """
    if side < 1:
        raise ValueError(f"side={side} must be at least 1 pixel")
    loaded = load_on(tokenizer, "encode", device, "float32")
    book = _book(loaded, tokenizer, codebook)
    images = read_images(photo, loaded.image_size).to(next(loaded.parameters()).device)
    codes = loaded.encode(images, scale=scale)
    grid = [[book.words[code].strip() or "?" for code in row] for row in codes[0, 0].tolist()]
    width = max(len(word) for row in grid for word in row) + 2
    for row in grid:
        print("".join(f"{word:<{width}}" for word in row).rstrip())
    with replacing(output) as temporary:
        draw(to_pil(load_image(photo, side)), grid).save(temporary, format="PNG")
    print(f"{output}: {len(grid)} x {len(grid[0])} regions, {len(set(codes.flatten().tolist()))} different words")


def draw(photo: Image.Image, grid: list[list[str]]) -> Image.Image:
    """A photo under a grid of words, each shrunk to the width of its cell."""
    canvas = photo.convert("RGBA")
    layer = Image.new("RGBA", canvas.size)
    pen = ImageDraw.Draw(layer)
    height, width = photo.height / len(grid), photo.width / len(grid[0])
    for y, row in enumerate(grid):
        for x, word in enumerate(row):
            left, top = x * width, y * height
            pen.rectangle((left, top, left + width, top + height), outline=(255, 255, 255, 90))
            font = _font(word, width - 8, height * 0.32)
            middle = (left + width / 2, top + height / 2)
            box = pen.textbbox(middle, word, font=font, anchor="mm")
            pen.rounded_rectangle((box[0] - 4, box[1] - 3, box[2] + 4, box[3] + 3), 4, fill=(18, 18, 20, 165))
            pen.text(middle, word, font=font, anchor="mm", fill=(255, 255, 255, 255))
    return Image.alpha_composite(canvas, layer).convert("RGB")


def _font(word: str, width: float, height: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    size = min(height, 30.0)
    while size > 6 and ImageFont.load_default(size).getlength(word) > width:
        size *= 0.9
    return ImageFont.load_default(size)


def _book(loaded: Tokenizer, name: str, codebook: Path | None) -> Codebook:
    quantizer = loaded.quantizer
    if not isinstance(quantizer, TextAlignedQuantizer):
        raise ValueError(f"{name} is not text-aligned: its codes stand for no words")
    path = codebook or Path(name) / "codebook.safetensors"
    if codebook is None and not path.is_file():
        raise FileNotFoundError(f"no codebook file at {path}; name the one of unitok codebook with --codebook")
    book = read_codebook(path)
    if book.embedding.shape != quantizer.embedding.shape or not torch.allclose(
        book.embedding, quantizer.embedding.float().cpu(), atol=1e-2
    ):
        raise ValueError(f"{path} is not the codebook that {name} was trained with: their embeddings differ")
    if not book.words:
        raise ValueError(f"{path} has no words; write it again with unitok codebook --words")
    return book
