import pytest
import torch

from unitok.evaluation.embeddings import embed_photos, text_ids
from unitok.evaluation.photos import find_photos
from unitok.evaluation.protocol import Pipeline

PIPELINE = Pipeline(64, "bicubic", 64)


def test_embeddings_come_in_the_order_of_the_photos_without_the_broken(folder, tokenizer, run):
    (folder / "cat" / "2.png").write_bytes(b"broken")
    photos = find_photos(folder)
    vectors, indices, excluded = embed_photos(tokenizer, photos, PIPELINE, run)
    assert indices == [0, 2, 3, 4, 5, 6]
    assert excluded == ["cat/2.png: not an image that Pillow can read"]
    with torch.no_grad():
        alone = tokenizer.encode_image(PIPELINE(photos[3].open())[None] / 255, normalize=True)
    torch.testing.assert_close(vectors[2:3], alone)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(6))


def test_text_ids_have_the_length_of_the_tower(tokenizer):
    assert text_ids(tokenizer)(["a cat", "a dog"]).shape == (2, tokenizer.contrast.text.context_length)
    with pytest.raises(ValueError, match="object has no text tower"):
        text_ids(object())
