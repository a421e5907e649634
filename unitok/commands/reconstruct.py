"""`unitok reconstruct`: photos there and back, measured and drawn."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from unitok.commands.comparison import Comparison, draw
from unitok.commands.photos import Device, Dtype, Photos, device_of, load_on, seeded, shape_wanted
from unitok.files import replacing
from unitok.hub import ASSETS, DEFAULT
from unitok.tokenizer import Tokenizer

SAMPLE = ASSETS / "astronaut.jpg"
MOST_ROWS = 16


def reconstruct(
    photos: Sequence[Path] = (),
    output: Path = Path("reconstruction.png"),
    tokenizer: str = DEFAULT,
    size: int | None = None,
    own_shape: bool = False,
    seed: int = 0,
    device: Device = "auto",
    dtype: Dtype = "float32",
    strict: bool = False,
) -> int:
    """Photos -> codes -> photos, with PSNR, SSIM and bits per pixel, printed and drawn side by side.

    Args:
        photos: files and folders; left out, the sample photo that comes with the package.
        output: a .png, with one row for each photo; or a folder, with one .png for each.
        tokenizer: a name of the catalogue, a folder, a published checkpoint file, or owner/name on the Hub.
        size: shorter side and centre square, in pixels; left out, the size the tokenizer was trained on.
        own_shape: keep each photo's own shape (cut to whole tokens).
        seed: of a generative decoder; a pixel decoder draws nothing.
        device: where to compute; auto takes CUDA where there is one.
        dtype: bfloat16 is faster and changes some codes.
        strict: stop at the first photo that cannot be read.
    """
    one_picture = output.suffix.lower() == ".png"
    model = load_on(tokenizer, "all", device, dtype)
    reader = Photos(photos or [SAMPLE], *shape_wanted(model, size, own_shape), strict)
    if one_picture and len(reader.paths) > MOST_ROWS:
        raise ValueError(f"{len(reader.paths)} photos make too tall a picture: give a folder with --output FOLDER")
    (output.absolute().parent if one_picture else output).mkdir(parents=True, exist_ok=True)
    name = Path(tokenizer).name
    rows: list[Comparison] = []
    print(f"{'photo':<28} {'pixels':>11} {'PSNR dB':>8} {'SSIM':>6} {'bits/px':>8} {'bytes of codes':>15}")
    for path, photo in reader:
        rows.append(compare(model, path.name, photo, seed))
        print(_line(rows[-1]))
        if not one_picture:
            _save(model, name, [rows.pop()], output / f"{path.name}.png")
    if one_picture:
        _save(model, name, rows, output)
    print(f"wrote {output}")
    return reader.exit_code


def compare(tokenizer: Tokenizer, name: str, photo: Tensor, seed: int = 0) -> Comparison:
    """(3, H, W) uint8 photo -> the photo, its reconstruction in 8 bits, and what lies between them."""
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    images = photo[None].to(device_of(tokenizer)).float() / 255
    codes = tokenizer.encode(images)
    decoded = tokenizer.decode(codes, seeded(tokenizer, seed)).mul(255).round().to(torch.uint8)[0].cpu()
    if decoded.shape != photo.shape:
        raise ValueError(f"{name}: a photo of {_pixels(photo)} px came back with {_pixels(decoded)} px")
    pair = decoded[None].float() / 255, photo[None].float() / 255
    return Comparison(
        name,
        photo,
        decoded,
        psnr=float(peak_signal_noise_ratio(*pair, data_range=1.0)),
        ssim=float(structural_similarity_index_measure(*pair, data_range=1.0)),  # type: ignore[arg-type]
        code_bits=tokenizer.bits_per_token * codes[0, 0].numel(),
    )


def _line(row: Comparison) -> str:
    figures = f"{row.psnr:>8.2f} {row.ssim:>6.3f} {row.bits_per_pixel:>8.4g} {row.code_bits / 8:>15,.0f}"
    name = row.name if len(row.name) <= 28 else f"{row.name[:16]}...{row.name[-9:]}"
    return f"{name:<28} {_pixels(row.photo):>11} {figures}"


def _pixels(photo: Tensor) -> str:
    return f"{photo.shape[2]} x {photo.shape[1]}"


def _save(tokenizer: Tokenizer, title: str, rows: list[Comparison], path: Path) -> None:
    books, entries = tokenizer.num_codebooks, tokenizer.codebook_size
    cost = f"each token is {books} codes out of {entries} = {tokenizer.bits_per_token:g} bits"
    picture = draw(rows, title, cost)
    with replacing(path) as temporary:
        picture.save(temporary)
