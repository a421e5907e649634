import pytest
import torch

from unitok.mllm.code_embedding import CodeEmbedding, code_vectors
from unitok.models import ta_tok
from unitok.models.unitok import tiny


@pytest.mark.parametrize("build", [tiny, ta_tok.tiny])
def test_vectors_make_the_tokenizers_latents(build):
    tokenizer = build()
    vectors = code_vectors(tokenizer)
    codes = torch.randint(tokenizer.codebook_size, (2, tokenizer.num_codebooks, 3, 2))
    parts = [vectors[k][codes[:, k]] for k in range(tokenizer.num_codebooks)]
    torch.testing.assert_close(torch.cat(parts, dim=-1), tokenizer.quantizer.dequantize(codes))


def test_embedding_is_the_mlp_of_the_latent():
    torch.manual_seed(0)
    tokenizer = tiny()
    embedding = CodeEmbedding.of(tokenizer, 12)
    codes = torch.randint(32, (1, 2, 2, 3))
    rows = codes.permute(0, 2, 3, 1)
    expected = embedding.mlp(tokenizer.quantizer.dequantize(codes))
    torch.testing.assert_close(embedding(rows), expected)
    assert embedding.bfloat16()(rows).dtype == torch.bfloat16
    assert {name for name, _ in embedding.named_parameters()} == {
        "mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias",
    }  # fmt: skip


def test_vectors_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(K, V, d\)"):
        CodeEmbedding(torch.zeros(3, 4), 8)
