import pytest
import torch
from torch import nn

from unitok.evaluation.report import read_report
from unitok.evaluation.throughput import gflops, interleave, measure, speed, summary


def test_variants_take_turns():
    calls = []
    variants = {("a", ""): lambda: calls.append("a"), ("b", ""): lambda: calls.append("b")}
    times = interleave(variants, repeats=3, warmup=1, device=torch.device("cpu"))
    assert calls == list("abababab")
    assert [len(seconds) for seconds in times.values()] == [3, 3]


def test_summary_by_hand():
    seconds = [0.1 * turn for turn in range(1, 22)]
    assert summary(seconds, 11) == pytest.approx({"images_per_second": 10.0, "p50_ms": 1100.0, "p95_ms": 2000.0})


def test_flops_of_a_convolution_by_hand():
    layer, images = nn.Conv2d(3, 8, 3, padding=1), torch.rand(1, 3, 16, 16)
    assert gflops(lambda: layer(images)) == 2 * 16 * 16 * 8 * 3 * 9 / 1e9


def test_rows_and_equal_codes(tokenizer):
    models = {("tiny", "float32"): tokenizer, ("tiny", "bfloat16"): tokenizer}
    figures = measure(models, [1, 2], 64, repeats=2, warmup=0, device=torch.device("cpu"))
    assert len(figures["rows"]) == 2 * 2 * 3
    assert {row["walk"] for row in figures["rows"]} == {"encode", "decode", "round_trip"}
    assert figures["equal_codes tiny bfloat16"] == 1.0
    assert figures["parameters"] == sum(p.numel() for p in tokenizer.parameters())
    assert figures["encode_gflops"] > 0
    assert figures["decode_gflops"] > 0


def test_the_command_measures_two_side_by_side(tmp_path, capsys):
    output = tmp_path / "speed.json"
    speed(tokenizer="jpeg@1", against="webp@1", output=output, batch_sizes=[1], size=32, repeats=1, device="cpu")
    assert {row["tokenizer"] for row in read_report(output).figures["rows"]} == {"jpeg@1", "webp@1"}
    assert "images_per_second" in capsys.readouterr().out
    with pytest.raises(ValueError, match="float8"):
        speed(tokenizer="jpeg@1", dtypes=["float8"], device="cpu")
    with pytest.raises(ValueError, match="repeats=0"):
        speed(tokenizer="jpeg@1", repeats=0, device="cpu")
