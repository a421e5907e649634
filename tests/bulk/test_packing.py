import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitok.bulk import packing
from unitok.bulk.packing import bits_of, pack, packed_bytes, unpack


def _by_hand(codes: list[int], bits: int) -> bytes:
    """The same stream through one big integer."""
    value = sum(code << (place * bits) for place, code in enumerate(codes))
    return value.to_bytes(-(-len(codes) * bits // 8), "little")


def test_twelve_bits_by_hand():
    packed = pack(np.array([[0xABC, 0x123]]), 12)
    assert packed.tobytes() == bytes([0xBC, 0x3A, 0x12])


@given(st.integers(1, 32), st.integers(1, 40), st.integers(0, 5), st.randoms(use_true_random=False))
def test_any_width_equals_one_big_integer(bits: int, length: int, count: int, draw):
    codes = [[draw.randrange(2**bits) for _ in range(length)] for _ in range(count)]
    array = np.array(codes, np.int64).reshape(count, length)
    packed = pack(array, bits)
    assert packed.shape == (count, packed_bytes(length, bits))
    assert [row.tobytes() for row in packed] == [_by_hand(row, bits) for row in codes]
    assert np.array_equal(unpack(packed, length, bits), array)


def test_many_blocks_equal_one(monkeypatch: pytest.MonkeyPatch):
    codes = np.random.default_rng(0).integers(0, 4096, (50, 33), dtype=np.uint16)
    whole = pack(codes, 12)
    monkeypatch.setattr(packing, "BLOCK_CODES", 100)
    assert np.array_equal(pack(codes, 12), whole)
    assert np.array_equal(unpack(whole, 33, 12), codes)


def test_an_image_of_unitok_fills_3072_bytes():
    assert packed_bytes(8 * 16 * 16, bits_of(4096)) == 3072


def test_bits():
    assert [bits_of(v) for v in (1, 2, 3, 4096, 4097, 65536, 2**32)] == [1, 1, 2, 12, 13, 16, 32]
    for size in (0, -1, 2**32 + 1):
        with pytest.raises(ValueError, match=f"codebook_size={size}"):
            bits_of(size)
