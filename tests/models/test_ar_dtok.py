import pytest
import torch

from tests.decoders.stand_ins import features, transformer
from unitok.decoders.prefix_transformer import PrefixTransformer
from unitok.models import ar_dtok


def published(**changes) -> dict:
    """A file as the authors write it, with every name typed out."""
    sizes = {
        "abs_pe": (1, 24, 16), "clip_proj.weight": (16, 8), "clip_proj.bias": (16,), "tok_embeddings.weight": (32, 16),
        "layers.0.attention.wqkv.weight": (32, 16), "layers.0.attention.wo.weight": (16, 16),
        "layers.0.feed_forward.w1.weight": (64, 16), "layers.0.feed_forward.w2.weight": (16, 64),
        "layers.0.feed_forward.w3.weight": (64, 16), "layers.0.attention_norm.weight": (16,),
        "layers.0.ffn_norm.weight": (16,), "norm.weight": (16,), "output.weight": (32, 16),
    }  # fmt: skip
    args = {
        "dim": 16, "n_layer": 1, "n_head": 4, "n_kv_head": 2, "multiple_of": 64, "model_type": "clip_cond",
        "cond_dim": 8, "vocab_size": 32, "cls_token_num": 16, "max_seq_len": 9, **changes,
    }  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=generator) for name, shape in sizes.items()}
    return {"model": {"name": "llama-abs", "args": args, "sd": state}}


@pytest.mark.parametrize(
    ("size", "millions"), [("B", 111.8), ("L", 344.1), ("LP", 654.241280)]  # of LP: counted in the reference
)  # fmt: skip
def test_sizes(size, millions):
    with torch.device("meta"):
        made = ar_dtok.ar_transformer(size)
    assert sum(p.numel() for p in made.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


def test_position_tables_of_the_released_sizes():
    with torch.device("meta"):
        rows = [ar_dtok.ar_transformer(image_size=size).positions.shape[1] for size in (256, 512, 1024)]
    assert rows == [984, 1752, 4824]


def test_every_weight_finds_its_place():
    checkpoint = published()
    state = ar_dtok.read_transformer(checkpoint).state_dict()
    found = checkpoint["model"]["sd"]
    assert len(state) == len(found)
    assert torch.equal(state["blocks.0.gate.weight"], found["layers.0.feed_forward.w1.weight"])
    assert torch.equal(state["blocks.0.up.weight"], found["layers.0.feed_forward.w3.weight"])
    assert torch.equal(state["blocks.0.down.weight"], found["layers.0.feed_forward.w2.weight"])
    assert all(ar_dtok.rename(ar_dtok.rename(name), back=True) == name for name in found)


def test_arguments_of_a_named_size_need_not_be_written_out():
    checkpoint = published()
    checkpoint["model"] |= {"name": "llama-abs-LP", "args": {"model_type": "clip_cond", "vocab_size": 16384}}
    checkpoint["model"]["args"] |= {"cls_token_num": 729, "max_seq_len": 256}
    checkpoint["model"]["sd"]["abs_pe"] = torch.zeros(1, 984, 1280, device="meta")
    arguments = ar_dtok.transformer_arguments(checkpoint["model"])
    with torch.device("meta"):
        assert sum(p.numel() for p in PrefixTransformer(**arguments).parameters()) == 654_241_280


@pytest.mark.parametrize("fixed", [False, True])
def test_what_is_written_reads_back(tmp_path, fixed):
    made = transformer(num_kv_heads=2, fixed_positions=fixed)
    path = ar_dtok.write_transformer(made, tmp_path / "ar.pth")
    back = ar_dtok.read_transformer(torch.load(path, weights_only=True))
    codes = torch.randint(32, (2, 9))
    assert torch.equal(made(features().flatten(1, 2), codes), back(features().flatten(1, 2), codes))
    assert isinstance(back.positions, torch.nn.Parameter) != fixed


def test_the_published_layout_has_no_condition_norm(tmp_path):
    with pytest.raises(ValueError, match="condition_norm"):
        ar_dtok.write_transformer(transformer(condition_norm=True), tmp_path / "ar.pth")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("table", [None, torch.zeros(1, 23, 16)])
def test_a_position_table_that_does_not_fit_is_an_error(table):
    checkpoint = published()
    checkpoint["model"]["sd"].pop("abs_pe")
    if table is not None:
        checkpoint["model"]["sd"]["abs_pe"] = table
    with pytest.raises(ValueError, match=r"abs_pe has shape .*max_seq_len=9.*cls_token_num=16.* need \(1, 24, 16\)"):
        ar_dtok.read_transformer(checkpoint)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "class_cond"}, "model_type='class_cond'"),
        ({"model_type": "indice_cond"}, "model_type='indice_cond'"),
        ({"frame_prediction": True}, "frame_prediction=True"),
        ({"n_layer": 2}, "do not fit"),
        ({"vocab_size": 33}, "do not fit"),
    ],
)
def test_files_that_cannot_be_honoured(changes, message):
    with pytest.raises(ValueError, match=message):
        ar_dtok.read_transformer(published(**changes))


def test_other_files_are_left_to_other_readers():
    assert ar_dtok.read_published({"model": {"conv.weight": torch.zeros(1)}}, None) is None
    assert ar_dtok.read_published({"args": {}, "trainer": {}}, None) is None
    with pytest.raises(ValueError, match="no autoregressive de-tokenizer"):
        ar_dtok.read_transformer({"model": {"conv.weight": torch.zeros(1)}})


def test_a_pixel_tokenizer_is_asked_for():
    with pytest.raises(ValueError, match=r'pixels="vq_ds16_t2i\.pt"'):
        ar_dtok.read_published(published(), None)


def test_bad_sizes():
    with pytest.raises(ValueError, match="size='M'"):
        ar_dtok.ar_transformer("M")
    with pytest.raises(ValueError, match="image_size=250 must be a multiple of pixel_stride=16"):
        ar_dtok.ar_transformer(image_size=250)
