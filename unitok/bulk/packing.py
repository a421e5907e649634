"""Codes as a stream of bits: (n, m) integers below 2**bits <-> (n, bytes), in plain numpy."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[Any]
BLOCK_CODES = 2**17  # worked on at a time, so that a block stays in the processor's cache


def bits_of(codebook_size: int) -> int:
    """V -> the bits that hold every code in [0, V), at least 1.

    Raises:
        ValueError: V is not positive or needs more than 32 bits.
    """
    if not 1 <= codebook_size <= 2**32:
        raise ValueError(f"codebook_size={codebook_size} must be between 1 and 2**32 to be packed")
    return max(1, (codebook_size - 1).bit_length())


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that `count` codes of `bits` bits fill: 2,048 codes of 12 bits fill 3,072."""
    return -(-count * bits // 8)


def pack(codes: Codes, bits: int) -> NDArray[np.uint8]:
    """(n, m) codes in [0, 2**bits) -> (n, ceil(m * bits / 8)) bytes, each row a little-endian stream of bits.

    Code j of a row fills bits j * bits to (j + 1) * bits, where bit b is bit b % 8 of byte b // 8. A row ends with
    zero bits up to a whole byte. Values of 2**bits and above are not looked for: they would spill into the next code.
    """
    count, length = codes.shape
    step, width = _group(bits)
    groups = -(-length // step)
    packed = np.zeros((count, groups * width), np.uint8)
    work = _word(bits)
    for rows in _blocks(count, length):
        block = codes[rows].astype(work)
        if groups * step > length:
            block = np.pad(block, ((0, 0), (0, groups * step - length)))
        block, out = block.reshape(-1, step), packed[rows].reshape(-1, width)
        for j in range(step):
            first, shift = divmod(j * bits, 8)
            value = block[:, j] << work(shift)
            for byte in range(packed_bytes(1, shift + bits)):
                out[:, first + byte] |= (value >> work(8 * byte)).astype(np.uint8)
    return packed[:, : packed_bytes(length, bits)]


def unpack(packed: NDArray[np.uint8], length: int, bits: int) -> NDArray[np.int64]:
    """(n, ceil(length * bits / 8)) bytes -> (n, length) int64 codes: the way back from `pack`."""
    count, (step, width) = len(packed), _group(bits)
    groups = -(-length // step)
    codes = np.empty((count, groups * step), np.int64)
    work, mask = _word(bits), 2**bits - 1
    for rows in _blocks(count, length):
        block = np.ascontiguousarray(packed[rows])
        if groups * width > block.shape[1]:
            block = np.pad(block, ((0, 0), (0, groups * width - block.shape[1])))
        block, out = block.reshape(-1, width), codes[rows].reshape(-1, step)
        columns = [block[:, byte].astype(work) for byte in range(width)]
        for j in range(step):
            first, shift = divmod(j * bits, 8)
            value = columns[first] >> work(shift)
            for byte in range(1, packed_bytes(1, shift + bits)):
                value |= columns[first + byte] << work(8 * byte - shift)
            out[:, j] = value & work(mask)
    return codes[:, :length]


def _group(bits: int) -> tuple[int, int]:
    """Codes after which the stream stands at a whole byte again, and those bytes."""
    step = 8 // math.gcd(bits, 8)
    return step, step * bits // 8


def _word(bits: int) -> Any:
    """The smallest type that holds a code shifted by up to 7 bits: 12 bits shift by 0 or 4 and fit into 16."""
    widest = max(j * bits % 8 for j in range(8)) + bits
    return next(kind for size, kind in ((16, np.uint16), (32, np.uint32), (64, np.uint64)) if widest <= size)


def _blocks(count: int, length: int) -> Iterator[slice]:
    rows = max(1, BLOCK_CODES // max(1, length))
    return (slice(start, start + rows) for start in range(0, count, rows))
