from types import SimpleNamespace

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip_train import zero_shot as open_clips

from unitok.evaluation.classes import read_classes
from unitok.evaluation.photos import batches, find_photos
from unitok.evaluation.protocol import Pipeline
from unitok.evaluation.rivals import OpenClip
from unitok.evaluation.zero_shot import classify, wilson

PIPELINE = Pipeline(64, "bicubic", 64)


@pytest.fixture
def clip():
    torch.manual_seed(0)
    vision = CLIPVisionCfg(layers=1, width=32, head_width=16, patch_size=16, image_size=64)
    text = CLIPTextCfg(context_length=77, vocab_size=49408, width=32, heads=2, layers=1)
    model = CLIP(16, vision, text).eval()
    model.visual.preprocess_cfg = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
    return model


@pytest.fixture
def many(folder, tmp_path):
    """A class for each photo, so that top-1 and top-5 differ."""
    for index, path in enumerate(sorted(folder.rglob("*.png"))):
        (tmp_path / "many" / f"animal_{index}").mkdir(parents=True)
        path.rename(tmp_path / "many" / f"animal_{index}" / "photo.png")
    return tmp_path / "many"


def hits(output, target, topk):
    pred = output.topk(max(topk), 1, True, True)[1].t()
    correct = pred.eq(target.view(1, -1).expand_as(pred))
    return [float(correct[:k].sum()) for k in topk]


def oracle(model, photos, run, preprocess):
    """open_clip's own evaluation loop and class vectors."""
    names = [f"animal {index}" for index in range(len(photos))]
    loader = [
        (preprocess(batch.images.float() / 255), torch.tensor(batch.indices))
        for batch in batches(photos, PIPELINE, run)
    ]
    tokenizer, templates = open_clip.get_tokenizer("ViT-B-32"), open_clip.OPENAI_IMAGENET_TEMPLATES
    classifier = open_clip.build_zero_shot_classifier(model, tokenizer, names, templates, device="cpu")
    with pytest.MonkeyPatch.context() as patch:  # its counting stumbles over this numpy; the formula is its own
        patch.setattr(open_clips, "accuracy", hits)
        return open_clips.run(model, classifier, loader, SimpleNamespace(device="cpu", precision="fp32", batch_size=3))


def test_an_open_clip_model_scores_as_in_open_clips_own_loop(clip, many, run):
    photos = find_photos(many)
    rival = OpenClip(clip, open_clip.get_tokenizer("ViT-B-32"))
    report = classify("clip", rival, photos, read_classes(photos), "openai-imagenet", PIPELINE, run)
    mean, std = torch.tensor(clip.visual.preprocess_cfg["mean"]), torch.tensor(clip.visual.preprocess_cfg["std"])
    top1, top5 = oracle(clip, photos, run, lambda images: (images - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    assert (report.figures["top1"], report.figures["top5"]) == pytest.approx((top1, top5))
    assert 0 < top5 < 1  # chance would make an equality of zeros or ones prove nothing


def test_a_tokenizer_scores_as_in_open_clips_own_loop(tokenizer, many, run):
    photos = find_photos(many)

    class AsClip(torch.nn.Module):
        def forward(self, image):
            return (tokenizer.encode_image(image, normalize=True),)

        def encode_text(self, texts, normalize):
            return tokenizer.encode_text(texts, normalize=normalize)

    report = classify("tiny", tokenizer, photos, read_classes(photos), "openai-imagenet", PIPELINE, run)
    top1, top5 = oracle(AsClip(), photos, run, lambda images: images)
    assert (report.figures["top1"], report.figures["top5"]) == pytest.approx((top1, top5))
    assert report.figures["bits_per_image"] == 4 * 4 * 2 * 5
    assert report.figures["chance"] == pytest.approx(1 / 7)
    assert len(report.figures["top1_each"]) == 7
    assert len(report.protocol["details"]["templates"]) == 80


def test_wilson_by_hand():
    low, high = wilson(8, 10)
    assert (low, high) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert wilson(0, 10)[0] == pytest.approx(0, abs=1e-12)


def test_broken_embeddings_and_missing_towers_are_errors(tokenizer, folder, run, monkeypatch):
    photos = find_photos(folder)
    monkeypatch.setattr(tokenizer, "encode_image", lambda images, normalize: torch.full((len(images), 16), torch.nan))
    with pytest.raises(ValueError, match="NaN"):
        classify("tiny", tokenizer, photos, read_classes(photos), "plain", PIPELINE, run)
    tokenizer.contrast = None
    with pytest.raises(ValueError, match="no text tower"):
        classify("tiny", tokenizer, photos, read_classes(photos), "plain", PIPELINE, run)
