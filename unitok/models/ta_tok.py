"""TA-Tok: codes that are words of a language model, at three scales (arXiv 2506.18898)."""

import re
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unitok.decoders.scale_adaptive import ScaleAdaptiveDecoder
from unitok.encoders.siglip import SiglipEncoder
from unitok.models.catalogue import Published, remember_arguments
from unitok.models.detokenizers import build_detokenizer, read_detokenizer
from unitok.quantizers.text_aligned import TextAlignedQuantizer
from unitok.tokenizer import Tokenizer

ENCODER_HEADS = {  # of the SigLIP 2 sizes, by width and MLP width: the number of heads is in no tensor
    (768, 3072): 12,
    (1024, 4096): 16,
    (1152, 4304): 16,
    (1536, 6144): 16,
}
DECODER_HEADS = 12  # the published decoder has 12 heads whatever its width


@remember_arguments
def ta_tok(
    image_size: int = 384,
    patch_size: int = 14,
    encoder_dim: int = 1152,
    encoder_depth: int = 26,
    encoder_heads: int = 16,
    encoder_mlp: int = 4304,
    codebook_size: int = 65536,
    latent_dim: int = 1536,
    embedding_dim: int | None = None,
    decoder_depth: int = 3,
    decoder_heads: int = DECODER_HEADS,
    decoder_mlp: int = 3072,
    position_grid: int = 16,
    linear: bool = True,
    normalize: bool = True,
    stochastic: bool = False,
    temperature: float | None = 0.03,
    search: Literal["exact", "scan"] = "exact",
    use_entropy: bool = False,
    entropy_temperature: float = 0.01,
    detokenizer: dict[str, Any] | None = None,
) -> Tokenizer:
    """The published architecture; the defaults are those of the released `ta_tok.pth` (576 M of its 591 M are used).

    Args:
        image_size: the side every image is brought to.
        patch_size: pixels of a patch.
        encoder_dim: D, of the encoder and of the features of the codes.
        encoder_depth: blocks whose output is used: one less than SigLIP has.
        encoder_heads: attention heads of the encoder.
        encoder_mlp: channels inside its MLPs.
        codebook_size: V.
        latent_dim: C.
        embedding_dim: channels of the frozen embedding; None means C.
        decoder_depth: blocks of the scale-adaptive decoder.
        decoder_heads: its attention heads.
        decoder_mlp: channels inside its MLPs.
        position_grid: side of its table of positions.
        linear: linear layers before and after the quantizer; without them C must be D.
        normalize: codes by cosine, otherwise by squared distance.
        stochastic: draw codes in training.
        temperature: of that draw; None for a learned one.
        search: "scan" finds the same codes by a bfloat16 scan first.
        use_entropy: compute the entropy term in training; the published training gave it no weight.
        entropy_temperature: of that term.
        detokenizer: {"name": ..., "arguments": {...}} of a generative decoder; None: codes and features only.

    Raises:
        ValueError: sizes that do not divide, or a de-tokenizer for features of another width.
    """
    if not linear and latent_dim != encoder_dim:
        raise ValueError(f"latent_dim={latent_dim} must equal encoder_dim={encoder_dim} where linear is False")
    tokenizer = Tokenizer(
        encoder=SiglipEncoder(image_size, patch_size, encoder_dim, encoder_depth, encoder_heads, encoder_mlp),
        project_in=nn.Linear(encoder_dim, latent_dim) if linear else nn.Identity(),
        quantizer=TextAlignedQuantizer(
            codebook_size,
            latent_dim,
            embedding_dim,
            normalize,
            stochastic,
            temperature,
            search,
            use_entropy=use_entropy,
            entropy_temperature=entropy_temperature,
        ),
        project_out=ScaleAdaptiveDecoder(
            latent_dim, encoder_dim, decoder_depth, decoder_heads, decoder_mlp, position_grid, linear
        ),
        decoder=None if detokenizer is None else build_detokenizer(detokenizer, encoder_dim),
        image_size=image_size,
    )
    tokenizer.decoder_advice = (
        "; TA-Tok's codes are made into photos by a de-tokenizer: "
        'load_tokenizer("ta_tok.pth", detokenizer="ar_dtok_lp_256px.pth", pixels="vq_ds16_t2i.pt")'
    )
    return tokenizer


def tiny() -> Tokenizer:
    """An untrained tokenizer of this family that builds and runs in a blink, for tests."""
    return ta_tok(
        image_size=48,
        patch_size=8,
        encoder_dim=32,
        encoder_depth=2,
        encoder_heads=2,
        encoder_mlp=64,
        codebook_size=64,
        latent_dim=16,
        embedding_dim=24,
        decoder_depth=1,
        decoder_heads=2,
        decoder_mlp=64,
        position_grid=4,
    )


def read_published(
    checkpoint: dict[str, Any],
    encoder_heads: int | None = None,
    detokenizer: str | None = None,
    pixels: str | None = None,
) -> Published | None:
    """The official layout, `ckpt["model"]["args"]` and `["sd"]`; None where the file is of another kind.

    Args:
        checkpoint: an opened `ta_tok.pth`.
        encoder_heads: attention heads of the encoder, for one that is not a SigLIP 2 size: no tensor shows them.
        detokenizer: a published de-tokenizer, to decode with: an AR-DTok file or the folder of a SANA pipeline.
        pixels: the file of the pixel tokenizer whose codes an AR-DTok writes (VQ-16).

    Raises:
        ValueError: a quantizer or encoder that this library does not know, sizes that contradict each other.
    """
    model = checkpoint.get("model")
    if not isinstance(model, dict) or "bottleneck" not in model.get("args", ()) or "sd" not in model:
        return None
    args = model["args"]
    published = {_plain(name): tensor for name, tensor in model["sd"].items() if not name.startswith("teacher")}
    _check_scaling(published)
    arguments = {
        **encoder_arguments(args, published, encoder_heads),
        **_quantizer_arguments(args, published),
        **_decoder_arguments(args, published),
    }
    state = rename(published, arguments["encoder_depth"])
    if detokenizer is not None:
        found = read_detokenizer(detokenizer, pixels)
        arguments["detokenizer"] = {"name": found.tokenizer, "arguments": found.arguments}
        state |= {f"decoder.{name}": tensor for name, tensor in found.state.items()}
    elif pixels is not None:
        raise ValueError(f"pixels={pixels!r} is what a de-tokenizer writes with; give detokenizer= too")
    return Published("ta_tok", arguments, state)


def _plain(name: str) -> str:
    return re.sub(r"^(encoder|decoder)\.vision_model\.", r"\1.", name)  # transformers < 5 had an inner module


def _check_scaling(published: dict[str, Tensor]) -> None:
    for name in ("shift", "scale"):
        value = published.pop(f"scale_layer.{name}", None)
        if value is not None and not torch.all(value == 0.5):
            raise ValueError(f"scale_layer.{name} is {value.flatten().tolist()}: images must be scaled by 0.5 and 0.5")


def _need(published: dict[str, Tensor], name: str, axes: int) -> torch.Size:
    tensor = published.get(name)
    if tensor is None or tensor.ndim != axes:
        raise ValueError(f"the checkpoint has no {axes}-dimensional tensor {name}, from which sizes are read")
    return tensor.shape


def encoder_arguments(args: dict[str, Any], published: dict[str, Tensor], heads: int | None) -> dict[str, Any]:
    """Sizes of the encoder, from published weights and arguments; `heads` where no SigLIP 2 size tells them.

    Raises:
        ValueError: sizes that contradict each other or are not to be known.
    """
    dim, _, patch, _ = _need(published, "encoder.embeddings.patch_embedding.weight", 4)
    positions, _ = _need(published, "encoder.embeddings.position_embedding.weight", 2)
    mlp, _ = _need(published, "encoder.encoder.layers.0.mlp.fc1.weight", 2)
    size = args.get("input_size", 384)
    if (size // patch) ** 2 != positions:
        raise ValueError(
            f"input_size={size} and patch size {patch} give {(size // patch) ** 2} patches, "
            f"but the table of positions has {positions} rows"
        )
    known = ENCODER_HEADS.get((dim, mlp))
    if heads is None and known is None:
        raise ValueError(
            f"the encoder ({args.get('teacher', 'unnamed')}, width {dim}, MLP {mlp}) is not a SigLIP 2 size, and the "
            f"file does not say how many attention heads it has; pass encoder_heads="
        )
    if heads is not None and known is not None and heads != known:
        raise ValueError(f"encoder_heads={heads} contradicts the SigLIP 2 size of width {dim}, which has {known}")
    layers = len({name.split(".")[3] for name in published if name.startswith("encoder.encoder.layers.")})
    selected = args.get("select_layer_id", -2)
    depth = selected if selected >= 0 else layers + 1 + selected
    if not 0 < depth <= layers:
        raise ValueError(f"select_layer_id={selected} is no block of an encoder with {layers} layers")
    return {
        "image_size": size,
        "patch_size": patch,
        "encoder_dim": dim,
        "encoder_depth": depth,
        "encoder_heads": heads or known,
        "encoder_mlp": mlp,
    }


def _quantizer_arguments(args: dict[str, Any], published: dict[str, Tensor]) -> dict[str, Any]:
    bottleneck = args["bottleneck"].get("args", {})
    norm = bottleneck.get("norm", "none")
    regularizer = bottleneck.get("regularizer", {})
    if args["bottleneck"].get("name") != "bottleneck" or norm != "none" or regularizer.get("name") != "simvq":
        raise ValueError(
            f"bottleneck={args['bottleneck'].get('name')!r} with norm={norm!r} and "
            f"regularizer={regularizer.get('name')!r} is unknown; only 'bottleneck' with 'none' and 'simvq' is known"
        )
    options = regularizer.get("args", {})
    if "l2_normalized" not in options:
        raise ValueError("the regularizer's arguments do not say l2_normalized, on which the codes depend")
    temperature = options.get("stochastic_temperature", 0.03)
    normalize, stochastic = bool(options["l2_normalized"]), bool(options.get("stochastic", False))
    if stochastic and not normalize:
        raise ValueError("stochastic=True with l2_normalized=False: the published quantizer draws by cosine only")
    size, embedding_dim = _need(published, "bottleneck.regularizer.embedding.weight", 2)
    latent_dim, _ = _need(published, "bottleneck.regularizer.embedding_proj.weight", 2)
    return {
        "codebook_size": size,
        "latent_dim": latent_dim,
        "embedding_dim": embedding_dim,
        "linear": bottleneck.get("bottleneck_dim", 0) > 0,
        "normalize": normalize,
        "stochastic": stochastic,
        "temperature": temperature if temperature > 0 else None,
    }


def _decoder_arguments(args: dict[str, Any], published: dict[str, Tensor]) -> dict[str, Any]:
    positions, _ = _need(published, "decoder.embeddings.position_embedding.weight", 2)
    mlp, _ = _need(published, "decoder.encoder.layers.0.mlp.fc1.weight", 2)
    grid = round(positions**0.5)
    if grid**2 != positions:
        raise ValueError(f"the decoder's table of positions has {positions} rows, which is no square")
    return {"decoder_depth": args.get("decoder_depth", 3), "decoder_mlp": mlp, "position_grid": grid}


_RENAMES = [  # published name -> ours, the first match of each line applied
    (r"^decoder\.", "project_out."),
    (r"^project_out\.embeddings\.patch_embedding\.", "project_out.embed."),
    (r"^encoder\.embeddings\.patch_embedding\.", "encoder.patches."),
    (r"\.embeddings\.position_embedding\.weight$", ".positions"),
    (r"\.encoder\.layers\.", ".blocks."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"^project_out\.post_layernorm\.", "project_out.norm."),
    (r"^encode_task_layer\.", "encoder.task."),
    (r"^decode_task_layer\.", "project_out.task."),
    (r"^bottleneck\.in_linear\.", "project_in."),
    (r"^bottleneck\.out_linear\.", "project_out.linear."),
    (r"^bottleneck\.regularizer\.embedding\.weight$", "quantizer.embedding"),
    (r"^bottleneck\.regularizer\.embedding_proj\.", "quantizer.projection."),
    (r"^bottleneck\.regularizer\.stochastic_temperature_inv$", "quantizer.inverse_temperature"),
]


def rename(published: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Published weights under our names; those that no feature needs (SigLIP's last block and heads) are dropped."""
    state: dict[str, Tensor] = {}
    for name, tensor in published.items():
        layer = re.match(r"^encoder\.encoder\.layers\.(\d+)\.", name)
        if re.match(r"^(encoder\.(post_layernorm|head)|decoder\.head)\.", name) or (layer and int(layer[1]) >= depth):
            continue
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        state[name] = tensor
    for name in [name for name in state if ".self_attn.q_proj." in name]:
        parts = [state.get(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        if all(part is not None for part in parts):
            for part in "qkv":
                del state[name.replace("q_proj", f"{part}_proj")]
            state[name.replace("self_attn.q_proj", "attn.qkv")] = torch.cat([p for p in parts if p is not None])
    return state
