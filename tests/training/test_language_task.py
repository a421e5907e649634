import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader, Dataset

from tests.mllm.small import byte_words, language_model
from unitok.decoders.sampling import Sampling
from unitok.hub import load_tokenizer
from unitok.mllm.assistant import VisualAssistant
from unitok.mllm.build import with_adapters
from unitok.mllm.expand import expand_vocabulary
from unitok.mllm.processor import VisualProcessor
from unitok.mllm.visual_model import VisualLanguageModel
from unitok.mllm.vocabulary import VisualVocabulary
from unitok.models.unitok import tiny
from unitok.training.base_task import Optimization, _linear_weights
from unitok.training.language_data import Asking, Conversations
from unitok.training.language_task import LanguageTask, fill_rows

CODES = torch.randint(32, (2, 2, 2, 2), generator=torch.Generator().manual_seed(0))
FAST = Optimization(lr=3e-3, warmup=0.0, clip=1.0)


def assistant(packed=True, visual=None, kind="qwen2"):
    words = byte_words()
    vocabulary = VisualVocabulary(words, 2, 32, [(2, 2)], max_side=4, packed=packed)
    model = language_model(kind)
    expand_vocabulary(model, vocabulary)
    visual = visual or tiny().eval()
    torch.manual_seed(0)
    made = (
        VisualLanguageModel.packed(model, vocabulary, visual, dim=16, depth=1, num_heads=2)
        if packed
        else VisualLanguageModel(model, vocabulary)
    )
    return VisualAssistant(made, VisualProcessor(words, visual), draw="{}", question="?")


class Repeated(Dataset):
    """Two images, each drawn and described, again and again."""

    def __init__(self, made):
        pairs = list(zip(["ab", "yz"], CODES, strict=True))
        talk = [made.drawing(text, codes) for text, codes in pairs]
        self.batch = Conversations(talk + [made.describing(codes, text) for text, codes in pairs])

    def __len__(self):
        return 300

    def __getitem__(self, index):
        return self.batch


def fit(task, made, folder, steps, **options):
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, **options,
    )  # fmt: skip
    loader = DataLoader(Repeated(made), batch_size=None)
    trainer.fit(task, loader, **({"val_dataloaders": loader} if options else {}))
    return trainer


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.filterwarnings("ignore")  # Lightning's advice on loggers, workers and small runs
def test_both_directions_are_learned_and_saved(packed, tmp_path, tiny_folder):
    made = assistant(packed, load_tokenizer(tiny_folder))
    task = LanguageTask(made, Optimization(lr=1e-2, warmup=0.0, clip=1.0, ema=0.5))
    trainer = fit(task, made, tmp_path, 120, limit_val_batches=1, val_check_interval=60)
    assert trainer.global_step == 120
    assert trainer.callback_metrics["val/loss"] < 0.5
    loaded = VisualAssistant.load(tmp_path / "language_model")
    for talker in (task.assistant, loaded):
        assert talker.describe(list(CODES), max_new_tokens=8) == ["ab", "yz"]
        drawn = talker.generate_codes(["ab", "yz"], sampling=Sampling(top_k=1))
        assert float((drawn == CODES).float().mean()) > 0.9
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(loaded.processor.visual.encode(images), made.processor.visual.encode(images))


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on loggers, workers and small runs
def test_saved_in_the_words_of_the_data(tmp_path, tiny_folder):
    class Data(LightningDataModule):
        asking = Asking(draw="Paint {}!", question="And this?")

        def train_dataloader(self):
            return DataLoader(Repeated(made), batch_size=None)

    made = assistant(visual=load_tokenizer(tiny_folder))
    trainer = Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(LanguageTask(made, FAST), datamodule=Data())
    loaded = VisualAssistant.load(tmp_path / "language_model")
    assert (loaded.draw, loaded.question) == ("Paint {}!", "And this?")


def test_padding_and_terms():
    made = assistant()
    task = LanguageTask(made, FAST, image_weight=2.0, z_weight=0.5)
    batch = Repeated(made)[0]
    losses = task.losses(batch)
    terms = losses.terms
    assert set(terms) == {"text", "image", "z"}
    torch.testing.assert_close(losses.backward, terms["text"] + 2 * terms["image"] + 0.5 * terms["z"])
    alone = [task.losses(Conversations([one])).terms["image"] for one in batch.images[:2]]
    torch.testing.assert_close(terms["image"], torch.stack(alone).mean())


def test_long_conversations_are_left_out():
    made = assistant()
    lengths = [len(made.processor.example(one).ids) for one in Repeated(made)[0].images]
    task = LanguageTask(made, FAST, max_length=max(lengths) - 1)
    task.losses(Repeated(made)[0])
    assert task.left_out == lengths.count(max(lengths))
    with pytest.raises(ValueError, match="longer than max_length=5"):
        LanguageTask(made, FAST, max_length=5).losses(Repeated(made)[0])


@pytest.mark.filterwarnings("ignore")  # Lightning's advice; peft's on tied weights
def test_adapters_leave_the_model_as_it_is(tmp_path):
    made = assistant(packed=False)
    made.model.model = with_adapters(made.model.model, made.model.vocabulary, 2)
    before = {name: p.detach().clone() for name, p in made.model.named_parameters() if not p.requires_grad}
    task = LanguageTask(made, FAST)
    fit(task, made, tmp_path, 2)
    after = dict(made.model.named_parameters())
    assert any(p.requires_grad for p in after.values())
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])
@pytest.mark.parametrize("packed", [False, True])
def test_packed_rows_cost_what_their_conversations_cost(packed, kind):
    made = assistant(packed, kind=kind)
    talk = Repeated(made)[0].images
    talk += [[{"role": "user", "content": "hello"}, {"role": "assistant", "content": "a longer answer"}], talk[0] * 2]
    alone = [LanguageTask(made, FAST).losses(Conversations([one])) for one in talk]
    lengths = [len(made.processor.example(one).ids) for one in talk]
    task = LanguageTask(made, FAST, max_length=sum(lengths) // 2 + max(lengths), pack_sequences=True)
    assert 1 < len(fill_rows(lengths, task.max_length)) < len(talk)
    together = task.losses(Conversations(talk))
    for name in ("text", "image"):
        counts = torch.tensor([learned(made, one)[name] for one in talk])
        expected = (torch.stack([one.terms[name] for one in alone]) * counts).sum() / counts.sum()
        torch.testing.assert_close(together.terms[name], expected)
    together.backward.backward()
    packed_gradient = made.model.model.get_input_embeddings().weight.grad.clone()
    made.model.zero_grad()
    LanguageTask(made, FAST).losses(Conversations(talk)).backward.backward()
    torch.testing.assert_close(packed_gradient, made.model.model.get_input_embeddings().weight.grad)


def learned(made, conversation):
    """How many words and codes the conversation teaches."""
    example = made.processor.example(conversation)
    codes = made.model.vocabulary.is_code(example.ids[example.learned])
    return {"text": int((~codes).sum()), "image": int(codes.sum())}


def test_rows_are_filled():
    assert fill_rows([3, 9, 4, 6, 1], 10) == [[1, 4], [3, 2], [0]]
    assert fill_rows([5, 5], 5) == [[0], [1]]


def test_a_share_of_the_codes_stands_for_all():
    made = assistant()
    batch = Repeated(made)[0]
    whole = LanguageTask(made, FAST).losses(batch).terms["image"].detach()
    some = LanguageTask(made, FAST, depth_share=0.5)
    drawn = torch.stack([some.losses(batch).terms["image"].detach() for _ in range(60)])
    assert drawn.std() > 0
    torch.testing.assert_close(drawn[drawn > 0].mean(), whole, rtol=0.05, atol=0)
    with pytest.raises(ValueError, match="depth_share=0"):
        LanguageTask(made, FAST, depth_share=0.0)


def test_tables_of_words_are_not_for_muon():
    made = assistant()
    linear = _linear_weights(LanguageTask(made, FAST))
    assert id(made.model.model.lm_head.weight) == id(made.model.model.get_input_embeddings().weight)
    assert id(made.model.model.lm_head.weight) not in linear
    assert id(made.model.depth_head.project.weight) in linear
