import torch

from unitok.decoders import VQGANDecoder
from unitok.encoders import VQGANEncoder


@torch.no_grad()
def test_the_grid_follows_the_number_of_levels() -> None:
    encoder = VQGANEncoder(32, (1, 2, 1), dim=8)
    assert encoder.stride == 4
    assert encoder(torch.rand(2, 3, 16, 24)).shape == (2, 4, 6, 8)


@torch.no_grad()
def test_encoder_and_decoder_mirror_each_other() -> None:
    decoder = VQGANDecoder(32, (1, 2, 1), dim=8)
    assert decoder.stride == 4
    assert decoder(torch.randn(2, 4, 6, 8)).shape == (2, 3, 16, 24)
