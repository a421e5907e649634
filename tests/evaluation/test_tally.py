import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from unitok.evaluation.judges import FeatureNetwork, Judges
from unitok.evaluation.tally import Tally, round_trip

NOBODY = Judges(None, None, {})


class Noisy:
    """A rival that adds fixed noise and stores two books of four codes."""

    image_size, num_codebooks, codebook_size = 32, 2, 4

    def __init__(self, bad=None):
        self.bad = bad

    def encode(self, images):
        self.images = images
        return torch.tensor([[[[0, 1]], [[2, 2]]]]).expand(len(images), -1, -1, -1)

    def decode(self, stored):
        noise = torch.rand(self.images.shape, generator=torch.Generator().manual_seed(1)) * 0.3 - 0.15
        copies = self.images + noise
        if self.bad is not None:
            copies[0, 0, 0, 0] = self.bad
        return copies

    def bits(self, stored):
        return [8.0] * len(stored)


def photos(count=3):
    noise = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return (torch.nn.functional.interpolate(noise, 32, mode="bilinear") * 255).to(torch.uint8)


def test_psnr_ssim_and_l1_equal_scikit_image_on_the_saved_pixels(run):
    images, rival = photos(), Noisy()
    tally = Tally(rival, NOBODY)
    tally.add([2, 0, 1], images)
    figures, scores, _ = tally.figures(run.ranks, None)
    saved = (rival.decode(None).clamp(0, 1) * 255 + 0.5).floor().to(torch.uint8)
    pairs = [(a.permute(1, 2, 0).numpy(), b.permute(1, 2, 0).numpy()) for a, b in zip(images, saved, strict=True)]
    psnr = [peak_signal_noise_ratio(a, b) for a, b in pairs]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 2}
    ssim = [structural_similarity(a / 255, b / 255, data_range=1.0, **options) for a, b in pairs]
    assert figures["psnr"] == pytest.approx(np.mean(psnr), rel=1e-5)
    assert figures["ssim"] == pytest.approx(np.mean(ssim), rel=1e-4)
    assert figures["l1"] == pytest.approx(
        np.mean([np.abs(a.astype(float) - b).mean() / 255 for a, b in pairs]), rel=1e-5
    )
    assert scores == {2: pytest.approx(psnr[0]), 0: pytest.approx(psnr[1]), 1: pytest.approx(psnr[2])}


def test_bits_and_codebooks_by_hand(run):
    tally = Tally(Noisy(), NOBODY)
    tally.add([0, 1, 2], photos())
    figures, _, _ = tally.figures(run.ranks, None)
    assert figures["bits_per_image"] == 8
    assert figures["bits_per_pixel"] == 8 / 1024
    assert figures["compression_ratio"] == 24 * 1024 / 8
    assert figures["codebook_usage_each"] == [0.5, 0.25]
    assert figures["codebook_perplexity_each"] == pytest.approx([2, 1])


def test_one_codebook_is_a_list_of_one(run, monkeypatch):
    def encode(self, images):
        self.images = images
        return torch.zeros(3, 1, 2, 2, dtype=torch.int64)

    monkeypatch.setattr(Noisy, "encode", encode)
    monkeypatch.setattr(Noisy, "num_codebooks", 1)
    tally = Tally(Noisy(), NOBODY)
    tally.add([0, 1, 2], photos())
    figures, _, _ = tally.figures(run.ranks, None)
    assert (figures["codebook_usage_each"], figures["codebook_perplexity_each"]) == ([0.25], [1.0])


def test_batches_do_not_change_the_figures(run):
    images = photos(4)
    whole, parts = Tally(Noisy(), NOBODY), Tally(Noisy(), NOBODY)
    whole.add([0, 1], images[:2])
    whole.add([2, 3], images[2:])
    parts.add([2, 3], images[2:])
    parts.add([0, 1], images[:2])
    assert whole.figures(run.ranks, None) == parts.figures(run.ranks, None)


def test_an_exact_copy_counts_100_db(run, monkeypatch):
    monkeypatch.setattr(Noisy, "decode", lambda self, stored: self.images)
    tally = Tally(Noisy(), NOBODY)
    tally.add([0, 1, 2], photos())
    assert tally.figures(run.ranks, None)[0]["psnr"] == 100


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_reconstructions_are_an_error(bad):
    with pytest.raises(ValueError, match="NaN or infinity"):
        round_trip(Noisy(bad), photos())


def test_the_distance_is_torch_fidelitys_on_the_same_features(run):
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    network = FeatureNetwork("thumbs", "rFD-thumbs", 12, "", lambda images: images[:, :, ::16, ::16].flatten(1).float())
    images, rival = photos(40), Noisy()
    tally = Tally(rival, Judges(network, None, {}))
    tally.add(list(range(40)), images)
    found = tally.figures(run.ranks, None)[0]["rFD-thumbs"]
    copies, _ = round_trip(rival, images)
    stats = [fid_features_to_statistics(network.features(some).double()) for some in (images, copies)]
    assert found == pytest.approx(
        fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"], rel=1e-6
    )
