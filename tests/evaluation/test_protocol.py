from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, PILToTensor, Resize

from unitok.evaluation.protocol import PIPELINES, Pipeline, Protocol, named_pipeline

PROTOCOL = Protocol("reconstruction", "ab", 10, 256, "bicubic", 256, "uint8, half up", {"net": "12"}, {"a": 1})


@pytest.mark.parametrize("name", ["bicubic-256", "bilinear-288", "lanczos-288"])
def test_pipelines_equal_torchvision_on_pil(name):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (301, 403, 3), dtype=np.uint8))
    side, mode = PIPELINES[name].resize, InterpolationMode(PIPELINES[name].filter)
    expected = Compose([Resize(side, mode), CenterCrop(256), PILToTensor()])(photo)
    assert (PIPELINES[name](photo) == expected).all()


def test_crop_only_keeps_pixels_and_refuses_small_photos():
    pixels = np.random.default_rng(0).integers(0, 255, (256, 300, 3), dtype=np.uint8)
    found = PIPELINES["crop-256"](Image.fromarray(pixels)).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found, pixels[:, 22:278])
    with pytest.raises(ValueError, match="255 x 300 pixels are fewer than the crop of 256"):
        PIPELINES["crop-256"](Image.new("RGB", (255, 300)))


def test_another_size_keeps_the_proportion():
    assert named_pipeline("bilinear-288", 128) == Pipeline(144, "bilinear", 128)
    assert named_pipeline("crop-256", 512).resize is None
    with pytest.raises(ValueError, match="'bicubic'"):
        named_pipeline("bicubic")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "zero-shot"}, {"data": "cd"}, {"count": 11}, {"resize": None}, {"filter": "lanczos"}, {"crop": 128},
        {"rounding": "none"}, {"networks": {"net": "13"}}, {"details": {"a": 2}},
    ],
)  # fmt: skip
def test_every_field_changes_the_id(change):
    assert replace(PROTOCOL, **change).id != PROTOCOL.id
    assert replace(PROTOCOL).id == PROTOCOL.id
