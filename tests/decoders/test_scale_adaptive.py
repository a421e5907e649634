import torch

from unitok.decoders import ScaleAdaptiveDecoder


def decoder() -> ScaleAdaptiveDecoder:
    torch.manual_seed(0)
    return ScaleAdaptiveDecoder(latent_dim=6, dim=16, depth=1, num_heads=2, mlp_dim=24, position_grid=4)


def test_any_grid_is_served_and_the_trained_one_with_the_table_itself() -> None:
    room = decoder()
    assert room(torch.randn(2, 3, 5, 6)).shape == (2, 3, 5, 16)
    torch.testing.assert_close(room._positions(torch.Size([4, 4])).flatten(0, 1), room.positions)


def test_positions_of_a_coarser_grid_are_averages_of_the_neighbours() -> None:
    room = decoder()
    with torch.no_grad():  # a plane is resized to itself, but for the antialiased border
        room.positions.copy_(torch.arange(16.0)[:, None].expand(16, 16))
    resized = room._positions(torch.Size([2, 2]))[..., 0]
    assert resized[0, 0] < resized[0, 1] < resized[1, 0] < resized[1, 1]
    torch.testing.assert_close(resized.mean(), torch.tensor(7.5))


def test_positions_are_resized_in_float32_under_bfloat16_weights() -> None:
    room = decoder().bfloat16()
    assert room(torch.randn(1, 3, 3, 6).bfloat16()).dtype == torch.bfloat16
