import torch
from torch.nn import functional as F

from unitok.quantizers import MultiCodebookQuantizer
from unitok.training.codebooks import replace_entries, sample_entries


def test_entries_are_chunks_of_the_latents_each_once():
    torch.manual_seed(0)
    quantizer = MultiCodebookQuantizer(num_codebooks=2, codebook_size=8, latent_dim=6)
    latents = torch.randn(1, 3, 4, 6)
    entries = sample_entries(latents, quantizer)
    assert entries.shape == (2, 8, 3)
    for book in range(2):
        chunks = F.normalize(latents.view(12, 2, 3)[:, book], dim=-1)
        same = (entries[book] @ chunks.T) > 1 - 1e-6
        assert same.sum(1).tolist() == [1] * 8
        assert same.sum(0).max() == 1


def test_fewer_tokens_than_entries_are_told_apart():
    quantizer = MultiCodebookQuantizer(num_codebooks=1, codebook_size=8, latent_dim=4)
    entries = sample_entries(torch.randn(1, 1, 3, 4), quantizer)[0]
    assert len(entries.unique(dim=0)) == 8
    torch.testing.assert_close(entries.norm(dim=-1), torch.ones(8))


def test_only_the_named_entries_are_replaced():
    quantizer = MultiCodebookQuantizer(num_codebooks=2, codebook_size=4, latent_dim=4)
    before = quantizer.codebooks.detach().clone()
    where = torch.zeros(2, 4, dtype=torch.bool)
    where[1, 2] = True
    entries = F.normalize(torch.randn(2, 4, 2), dim=-1)
    replace_entries(quantizer.codebooks, entries, where)
    assert torch.equal(quantizer.codebooks[~where], before[~where])
    torch.testing.assert_close(quantizer.codebooks[1, 2], entries[1, 2] * before.norm(dim=-1).mean())
