import math

import pytest
import torch

from tests.decoders.stand_ins import features
from unitok.decoders import FlowDecoder
from unitok.decoders.flow import draw_times, euler


def made(**settings) -> FlowDecoder:
    torch.manual_seed(3)
    decoder = FlowDecoder(8, image_size=32, patch_size=8, dim=16, depth=1, num_heads=2, **{"steps": 3, **settings})
    for parameter in decoder.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return decoder.eval()


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("grid", [(4, 4), (9, 9), (2, 3)])
def test_equal_seeds_equal_images(grid, guidance):
    decoder = made(guidance=guidance)
    first, again, other = (decoder(features(2, *grid), seeded(number)) for number in (0, 0, 1))
    assert first.shape == (2, 3, 32, 32)
    assert first.dtype == torch.float32
    assert 0 <= first.min() < first.max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_image_depends_on_condition_and_guidance():
    condition = features()
    assert not torch.allclose(made()(condition, seeded()), made()(-condition, seeded()))
    assert not torch.allclose(made()(condition, seeded()), made(guidance=3.0)(condition, seeded()))


def test_other_sizes_use_the_same_weights():
    wide = FlowDecoder(8, image_size=64, patch_size=8, dim=16, depth=1, num_heads=2, steps=2)
    wide.load_state_dict(made().state_dict())
    assert wide(features(), seeded()).shape == (2, 3, 64, 64)


def test_euler_ends_on_the_clean_image_and_follows_the_exact_path():
    noise, target = torch.randn(4, 3), torch.randn(4, 3)
    torch.testing.assert_close(euler(lambda now, time: target, noise, 7), target)
    # Gaussian data of deviation s: E[x | z] is linear, and the flow maps noise to s times noise.
    s = 0.4

    def clean(now, time):
        t = time[:, None]
        return t * s**2 / (t**2 * s**2 + (1 - t) ** 2) * now

    torch.testing.assert_close(euler(clean, noise, 1000), s * noise, atol=0.01, rtol=0.01)


def test_loss_is_the_velocity_error_and_dropping_is_zeros():
    decoder = made()
    images, condition = torch.rand(2, 3, 32, 32), features()
    loss = decoder.loss(condition, images, torch.tensor([False, True]), seeded())
    generator = seeded()
    time = draw_times(2, images.device, generator)
    noise = torch.randn(images.shape, generator=generator)
    expected = 0.0
    for b in range(2):
        x, t = images[b] * 2 - 1, time[b]
        z = t * x + (1 - t) * noise[b]
        clean = decoder.denoise(z[None], t[None], condition[b : b + 1] * (1 - b))[0]
        expected += ((clean - z) / (1 - t) - (x - noise[b])).square().mean() / 2  # no time here is near 1
    assert time.max() < 0.95
    torch.testing.assert_close(loss, expected)


def test_times_are_logit_normal():
    times = draw_times(100_000, torch.device("cpu"), seeded())
    logits = torch.logit(times)
    assert logits.mean().item() == pytest.approx(-0.8, abs=0.01)
    assert logits.std().item() == pytest.approx(0.8, abs=0.01)


def test_a_few_steps_of_training_learn_two_colours():
    torch.manual_seed(0)
    decoder = FlowDecoder(8, image_size=16, patch_size=8, dim=32, depth=1, num_heads=2, steps=4)
    condition = torch.stack([torch.ones(2, 2, 8) * sign * torch.linspace(-1, 1, 8) for sign in (1, -1)])
    images = torch.stack([torch.full((3, 16, 16), 0.1), torch.full((3, 16, 16), 0.9)])
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        decoder.loss(condition.repeat(4, 1, 1, 1), images.repeat(4, 1, 1, 1)).backward()
        optimizer.step()
    error = (decoder(condition, seeded()) - images).abs().mean()
    assert error < 0.1  # grey would be 0.4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 30}, "image_size=30 must be a multiple of patch_size=8"),
        ({"num_heads": 3}, "dim=16 of num_heads=3"),
        ({"steps": 0}, "steps=0"),
        ({"guidance": math.nan}, "guidance=nan"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        FlowDecoder(8, **{"image_size": 32, "patch_size": 8, "dim": 16, "num_heads": 2, **settings})


def test_features_of_another_width_are_refused():
    with pytest.raises(ValueError, match="cond_dim=8"):
        made()(features(dim=6))
