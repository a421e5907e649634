import logging
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitok.metrics.codebook_usage import Usage
from unitok.models.unitok import tiny
from unitok.training.tokenizer_task import Codebooks, TokenizerTask, Weights, to_floats


class Batch(NamedTuple):
    images: Tensor
    text_ids: Tensor | None


PLAIN = Weights(perceptual=0.0, adversarial=0.0)
PIXELS = Weights(perceptual=0.0, adversarial=0.0, contrastive=0.0)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
    text = torch.randint(1, 1000, (4, 77), generator=generator)
    text[:, 9] = 49407
    return Batch(images, text)


def build(weights, tokenizer=None, **options):
    torch.manual_seed(0)
    return TokenizerTask(tokenizer or tiny(), weights, **options)


def never():
    raise AssertionError("a network of weight 0 was built")


def test_objective_is_the_papers_sum(batch):
    task = build(PLAIN)
    losses = task.losses(batch)
    losses.backward.backward()
    found = {name: p.grad.clone() for name, p in task.tokenizer.named_parameters() if p.grad is not None}

    task.zero_grad()
    images = batch.images.float() / 255
    walk = task.tokenizer(images)
    difference = 2 * (walk.images - images)
    contrast = task.tokenizer.contrast
    image, text = contrast.embed_image(walk.features, True), contrast.embed_text(batch.text_ids, True)
    logits, target = contrast.logit_scale.exp() * image @ text.T, torch.arange(4)
    clip = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    (0.2 * difference.abs().mean() + difference.square().mean() + walk.quantizer_loss + clip).backward()
    wanted = {name: p.grad for name, p in task.tokenizer.named_parameters() if p.grad is not None}

    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4, msg=name)
    assert losses.terms["l1"].detach().item() == pytest.approx(difference.detach().abs().mean().item())
    assert losses.terms["contrastive"].detach().item() == pytest.approx(clip.detach().item(), rel=1e-5)


def test_weight_zero_builds_nothing_and_needs_no_text(batch):
    task = build(PIXELS, perceptual=never, discriminator=never, teacher=never)
    task.losses(Batch(batch.images, None)).backward.backward()
    assert all(p.grad is None for p in task.tokenizer.contrast.parameters())
    assert all(p.grad is not None for _, p in task.trained_parameters())


def test_contrastive_only_needs_no_decoder(batch):
    tokenizer = tiny()
    tokenizer.decoder = None
    task = build(Weights(l1=0.0, l2=0.0, perceptual=0.0, adversarial=0.0), tokenizer)
    losses = task.losses(batch)
    losses.backward.backward()
    assert losses.terms.keys() == {"quantizer", "contrastive"}
    assert all(p.grad is not None for _, p in task.trained_parameters())


def test_only_the_first_part_is_decoded(batch):
    task = build(PLAIN, decoded_fraction=0.5)
    seen = []
    task.tokenizer.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    task.losses(batch)
    assert seen == [2]


def test_alignment_terms(batch):
    class Teacher(nn.Module):
        num_features = 5

        def forward(self, images):
            return images.mean(1, keepdim=True).repeat(1, 5, 1, 1)[:, :, ::8, ::8].permute(0, 2, 3, 1)

    weights = Weights(perceptual=0.0, adversarial=0.0, contrastive=0.0, alignment=1.0, spatial_alignment=0.5)
    task = build(weights, teacher=Teacher)
    losses = task.losses(batch)
    losses.backward.backward()
    assert {"alignment", "spatial_alignment"} <= losses.terms.keys()
    assert all(p.grad is not None for p in task.align.parameters())


def test_codebooks_start_from_data_and_the_dead_are_drawn_anew(batch):
    task = build(PIXELS, codebooks=Codebooks(from_data=True, restart=True, window=1))
    task.losses(batch)
    latents = task.tokenizer.project_in(task.tokenizer.encoder(to_floats(batch.images)))
    chunks = F.normalize(latents.reshape(16, 2, 8), dim=-1)
    books = task.tokenizer.quantizer.unit_codebooks
    nearest = torch.einsum("nkd,kvd->kvn", chunks, books).amax(-1)
    assert nearest.min() > 0.99  # 16 tokens for 32 entries: each is a token, give or take the noise
    before = books.clone()
    task.batches_seen, task.log = 1, lambda *args, **options: None
    task.usage.reset()
    task.usage.update(torch.zeros(1, 2, 4, 4, dtype=torch.int64))  # all but entry 0 are dead
    task.losses(batch)
    after = task.tokenizer.quantizer.unit_codebooks
    torch.testing.assert_close(after[:, 0], before[:, 0])
    assert not torch.allclose(after[:, 1:], before[:, 1:])


def test_alarm(caplog):
    task = build(PIXELS, codebooks=Codebooks(alarm=0.5))
    task.log = lambda *args, **options: None
    use = Usage(torch.tensor([0.9, 0.2]), torch.ones(2), torch.ones(2, 32, dtype=torch.bool))
    with caplog.at_level(logging.WARNING):
        task._report("train", use)
    assert "90.0%, 20.0% falls under alarm=0.5" in caplog.text


def test_only_named_rooms_learn(batch):
    task = build(PIXELS, trained=["decoder"])
    assert all(name.startswith("tokenizer.decoder.") for name, _ in task.trained_parameters())
    with pytest.raises(ValueError, match="no room 'decodr'"):
        build(PIXELS, trained=["decodr"])


def test_a_tokenizer_that_was_loaded_is_trained_in_training_mode():
    assert build(PIXELS, tiny().eval()).tokenizer.quantizer.training


def test_impossible_combinations():
    with pytest.raises(ValueError, match=r"weights.perceptual=1.0 needs perceptual to be given"):
        build(Weights(adversarial=0.0))
    with pytest.raises(ValueError, match="needs discriminator to be given"):
        build(Weights(perceptual=0.0))
    with pytest.raises(ValueError, match="use_entropy=True"):
        build(Weights(perceptual=0.0, adversarial=0.0, entropy=0.1))
    with pytest.raises(ValueError, match="decoded_fraction=0"):
        build(PLAIN, decoded_fraction=0)
    blind = tiny()
    blind.contrast.text = None
    with pytest.raises(ValueError, match="needs a tokenizer with a text tower"):
        build(PLAIN, blind)


def test_contrastive_weight_without_text(batch):
    with pytest.raises(ValueError, match=r"weights.contrastive=1.0 needs texts"):
        build(PLAIN).losses(Batch(batch.images, None))


def test_a_checkpoint_of_another_architecture():
    task, other = build(PIXELS), build(PIXELS)
    checkpoint = {"state_dict": other.state_dict()}
    other.on_save_checkpoint(checkpoint)
    task.on_load_checkpoint(checkpoint)  # its own kind is taken
    checkpoint["state_dict"]["tokenizer.decoder.out_conv.weight"] = torch.zeros(3, 9, 3, 3)
    with pytest.raises(ValueError, match=r"another architecture, 1 tensors differ: .*\(3, 9, 3, 3\) instead of"):
        task.on_load_checkpoint(checkpoint)
    with pytest.raises(ValueError, match="written by another program"):
        task.on_load_checkpoint({"state_dict": {}})
