import pytest
import torch

from unitok.decoders.sampling import Sampling
from unitok.mllm.depth_head import DepthHead


@pytest.fixture
def head():
    torch.manual_seed(0)
    made = DepthHead(hidden=12, num_codebooks=4, codebook_size=7, dim=16, depth=2, num_heads=2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.5)
    return made


STATES = torch.randn(5, 12, generator=torch.Generator().manual_seed(1))
CODES = torch.randint(7, (5, 4), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_teacher_forced_loss_is_the_sum_over_steps(head):
    total = torch.zeros(5)
    caches = [[] for _ in head.blocks]
    for k in range(4):
        logits = head._step(STATES, CODES, k, caches)
        total -= logits.log_softmax(-1)[torch.arange(5), CODES[:, k]]
    torch.testing.assert_close(head.loss(STATES, CODES).nats, total)


@torch.no_grad()
def test_probabilities_of_all_codes_sum_to_one():
    torch.manual_seed(0)
    head = DepthHead(hidden=12, num_codebooks=3, codebook_size=4, dim=16, depth=1, num_heads=2)
    every = torch.cartesian_prod(*[torch.arange(4)] * 3)
    nats = head.loss(STATES[:1].expand(64, -1), every).nats
    torch.testing.assert_close(nats.neg().exp().sum(), torch.tensor(1.0))


@torch.no_grad()
def test_a_code_does_not_see_itself_or_what_follows(head):
    before = head(STATES, CODES)
    for k in range(4):
        changed = CODES.clone()
        changed[:, k:] = (changed[:, k:] + 1) % 7
        after = head(STATES, changed)
        torch.testing.assert_close(after[:, : k + 1], before[:, : k + 1])
        if k < 3:
            assert not torch.allclose(after[:, k + 1], before[:, k + 1])


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=1), Sampling(0.7, top_k=3), Sampling(guidance=3.0)])
def test_cached_sampling_equals_uncached(head, sampling):
    drawn = [
        head.sample(STATES, sampling, torch.Generator().manual_seed(3), null=STATES.flip(0), cached=cached)
        for cached in (True, False)
    ]
    assert torch.equal(*drawn)
    assert drawn[0].shape == (5, 4)
    assert drawn[0].dtype == torch.int64


def test_greedy_takes_the_likeliest_code_at_each_step(head):
    codes = head.sample(STATES, Sampling(top_k=1))
    assert torch.equal(head(STATES, codes).argmax(-1), codes)


def test_frequencies_are_the_probabilities(head):
    state = STATES[:1]
    drawn = head.sample(state.expand(20000, -1), generator=torch.Generator().manual_seed(0))[:, 0]
    expected = head(state, CODES[:1])[0, 0].softmax(-1)
    frequencies = drawn.bincount(minlength=7) / 20000
    torch.testing.assert_close(frequencies, expected.detach(), atol=0.015, rtol=0)


def test_every_parameter_learns(head):
    loss = head.loss(STATES, CODES)
    (loss.nats.mean() + 1e-3 * loss.z).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


def test_z_is_the_squared_log_of_the_denominator(head):
    logits = head(STATES, CODES).double()
    expected = logits.exp().sum(-1).log().square().mean()
    torch.testing.assert_close(head.loss(STATES, CODES).z.double(), expected, rtol=1e-5, atol=1e-6)


def test_heads_must_divide():
    with pytest.raises(ValueError, match="dim=10"):
        DepthHead(8, 2, 4, dim=10, num_heads=4)


def test_codes_that_look_alike_start_alike(head):
    vectors = torch.randn(4, 7, 3, generator=torch.Generator().manual_seed(5))
    vectors[:, 1] = vectors[:, 0] + 1e-3
    scale = 0.02
    head.start_from(vectors)
    logits = head(STATES, CODES)
    torch.testing.assert_close(logits[..., 0], logits[..., 1], atol=1e-2, rtol=0)
    assert (logits[..., 0] - logits[..., 2]).abs().max() > 1e-2
    torch.testing.assert_close(head.embeddings[:, 0], head.embeddings[:, 1], atol=1e-3, rtol=0)
    assert head.outputs.std().item() == pytest.approx(scale, rel=0.3)
    with pytest.raises(ValueError, match=r"\(K, V\)=\(4, 7\), got \(4, 6, 3\)"):
        head.start_from(vectors[:, :6])
