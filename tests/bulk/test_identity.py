import pytest

from tests.bulk.inputs import tiny_tokenizer
from unitok.bulk.identity import check_tokenizer, codebooks_sha256, codes_sha256


def test_only_what_decides_the_codes_counts():
    one, two = tiny_tokenizer(), tiny_tokenizer()
    before = codes_sha256(one), codebooks_sha256(one)
    two.decoder = two.contrast = None
    assert (codes_sha256(two), codebooks_sha256(two)) == before
    two.encoder.norm.weight.data += 1
    assert codes_sha256(two) != before[0]
    assert codebooks_sha256(two) == before[1]
    two.quantizer.codebooks.data += 1
    assert codebooks_sha256(two) != before[1]


def test_check():
    manifest = {"tokenizer": {"name": "n", "codebooks_sha256": codebooks_sha256(tiny_tokenizer())}}
    check_tokenizer(tiny_tokenizer(), manifest, "folder")
    with pytest.raises(ValueError, match="made by 'n'"):
        check_tokenizer(tiny_tokenizer(1), manifest, "folder")
