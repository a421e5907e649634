"""Small random de-tokenizers, and a pixel tokenizer of one codebook for them."""

import torch

from unitok.decoders import AutoregressiveDecoder, ViTaminDecoder
from unitok.decoders.prefix_transformer import PrefixTransformer
from unitok.encoders import ViTaminEncoder
from unitok.projectors import AttentionProjector
from unitok.quantizers import MultiCodebookQuantizer
from unitok.tokenizer import Tokenizer


def pixel_tokenizer(num_codebooks: int = 1, codebook_size: int = 32) -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(
        encoder=ViTaminEncoder((8, 16, 32), (1, 1), depth=1, num_heads=2),
        project_in=AttentionProjector(32, 16, num_heads=2),
        quantizer=MultiCodebookQuantizer(num_codebooks, codebook_size, latent_dim=16),
        project_out=AttentionProjector(16, 32, num_heads=2),
        decoder=ViTaminDecoder((8, 16, 32), (1, 1), depth=1, num_heads=2),
        image_size=64,
    ).eval()


def transformer(num_kv_heads: int | None = None, seed: int = 1, **options) -> PrefixTransformer:
    """Its weights are large, so that logits differ clearly from code to code."""
    torch.manual_seed(seed)
    made = PrefixTransformer(
        cond_dim=8, codebook_size=32, num_codes=9, max_condition=16, dim=16, depth=2, num_heads=4,
        num_kv_heads=num_kv_heads, mlp_dim=32, **options,
    )  # fmt: skip
    for parameter in made.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    return made.eval()


def decoder(num_kv_heads: int | None = None, **settings) -> AutoregressiveDecoder:
    return AutoregressiveDecoder(transformer(num_kv_heads), pixel_tokenizer(), **settings).eval()


def features(batch: int = 2, height: int = 4, width: int = 4, dim: int = 8) -> torch.Tensor:
    return torch.randn(batch, height, width, dim, generator=torch.Generator().manual_seed(2))
