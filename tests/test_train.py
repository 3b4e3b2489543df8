"""Training by itself, on models of a few thousand weights: what is learned from, in what order, and from where it goes
on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed; the extra 'tune' brings it")
transformers = pytest.importorskip("transformers", reason="transformers is not installed; the extra 'tune' brings it")
pytest.importorskip("peft", reason="peft is not installed; the extra 'tune' brings it")

from freehold.errors import CannotDo  # noqa: E402
from freehold.tune import batches, checkpoint, lora  # noqa: E402
from freehold.tune.batches import Example  # noqa: E402
from freehold.tune.train import LOOKS, Choices, Trainer  # noqa: E402

VOCABULARY = 61
PREFIX = (5, 9, 11, 7, 3)


def a_model(seed: int = 3):
    """A Llama of two small layers."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def some_examples(count: int = 24, prefix: tuple[int, ...] = PREFIX) -> list[Example]:
    """Calls whose answer repeats a token of the prompt, so that there is something to learn."""
    made = []
    for number in range(count):
        token = 12 + number % 20
        prompt = (*prefix, token, *range(33, 33 + number % 5))
        made.append(Example(f"s{number}", prompt, (token, token, 2)))
    return made


def a_trainer(folder: Path, *, examples=None, choices=None, identity="x", low=False, **more) -> Trainer:
    folder.mkdir(exist_ok=True)
    choices = choices or Choices(rank=4, alpha=8, epochs=2, rate=1e-2, update=4, tokens=64)
    model = lora.wrap(a_model(), choices, low=low)
    examples = some_examples() if examples is None else examples
    return Trainer(model, examples, examples[:6], choices, folder=folder, identity=identity, low=low, **more)


def weights(trainer: Trainer) -> str:
    """A digest of the adapter's weights."""
    state = hashlib.sha256()
    for name, tensor in sorted(trainer._own().items()):
        state.update(name.encode() + tensor.numpy().tobytes())
    return state.hexdigest()


def test_it_learns_and_says_how_it_went(tmp_path):
    """The loss of validation calls falls; the curve ends at the last update, with a look."""
    trainer = a_trainer(tmp_path / "run", choices=Choices(rank=8, alpha=16, epochs=12, rate=1e-2, update=4, tokens=64))
    before = trainer.validation_loss()
    stand = trainer.run()
    assert trainer.validation_loss() < before * 0.4
    assert stand.curve[-1].step == stand.total == stand.step and stand.curve[-1].validation_loss is not None
    assert len([point for point in stand.curve if point.validation_loss is not None]) == LOOKS
    assert stand.tokens == 12 * sum(example.length for example in some_examples())


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_in_one_step_is_the_layer_of_peft(bias):
    """The same loss, and the same gradients of every A and B, to the rounding of float32; and with the adapter switched
    off, or when nothing is trained, it is peft's own."""
    found = []
    for one_step in (True, False):
        config = a_model().config
        config.attention_bias = bias
        torch.manual_seed(5)
        model = lora.wrap(transformers.LlamaForCausalLM(config).requires_grad_(False), Choices(rank=4), low=False)
        layers = [layer for layer in model.modules() if "forward" in vars(layer) and hasattr(layer, "lora_A")]
        assert len(layers) == 14
        torch.manual_seed(7)
        for name, weight in model.named_parameters():
            if "lora_B" in name or name.endswith("bias"):
                weight.data.normal_()
        if not one_step:
            for layer in layers:
                del layer.forward
        ids = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]])
        loss = model.train()(input_ids=ids, labels=ids).loss
        loss.backward()
        gradients = torch.cat([one.grad.flatten() for one in model.parameters() if one.requires_grad])
        with model.disable_adapter():
            off = model(input_ids=ids).logits
        found.append((loss, gradients, off, model.eval()(input_ids=ids).logits))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5) and theirs.abs().max() > 0


def test_a_prefix_that_is_shared_changes_nothing(tmp_path):
    """Loss and gradients are those of rows that each read the whole prompt, to the rounding of float32."""
    found = []
    for share in (True, False):
        trainer = a_trainer(tmp_path / str(share))
        assert trainer._prefix == len(PREFIX)
        trainer._prefix = len(PREFIX) if share else 0
        with torch.no_grad():
            for name, weight in trainer._weights.items():
                weight.copy_(torch.from_numpy(_noise(name, weight.shape)))
        loss = trainer._loss(some_examples(6))
        loss.backward()
        found.append((loss.item(), [weight.grad.clone() for weight in trainer._weights.values()]))
    (shared, mine), (whole, theirs) = found
    assert shared == pytest.approx(whole, rel=1e-5)
    assert all(torch.allclose(one, other, rtol=1e-3, atol=1e-5) for one, other in zip(mine, theirs, strict=True))
    assert any(one.abs().max() > 1e-3 for one in mine)


def test_only_answers_count(tmp_path):
    """The loss is that of answer tokens as the model itself gives it, padding and company notwithstanding."""
    trainer = a_trainer(tmp_path / "run")
    rows = some_examples(5)
    alone = 0.0
    model = trainer._model
    for example in rows:
        ids = torch.tensor([[*example.prompt, *example.answer]])
        scores = torch.log_softmax(model(input_ids=ids).logits[0].float(), -1)
        begins = len(example.prompt)
        alone -= sum(scores[begins - 1 + at, token].item() for at, token in enumerate(example.answer))
    assert trainer._loss(rows).item() == pytest.approx(alone, rel=1e-5)


def test_a_run_that_was_cut_off_ends_as_an_unbroken_one(tmp_path):
    """Stopped after any update and gone on with, the adapter has the very same bytes."""
    whole = a_trainer(tmp_path / "whole")
    whole.run()
    for stop in (1, 5, 8):
        trainer = a_trainer(tmp_path / f"cut{stop}", tell=_stop_at(stop))
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
        again = a_trainer(tmp_path / f"cut{stop}")
        stand = again.run(resume=True)
        assert stand.step == stand.total and weights(again) == weights(whole), stop
        assert [point.loss for point in stand.curve] == [point.loss for point in whole.stand.curve]


def test_a_process_that_is_killed_goes_on_from_its_last_state(tmp_path):
    """What came after the last state is done again, and the end is the same."""
    whole = a_trainer(tmp_path / "whole")
    whole.run()

    class Killed(Exception):
        pass

    def kill(stand, rate, left):
        if stand.step == 7:
            raise Killed

    trainer = a_trainer(tmp_path / "cut", tell=kill)
    with pytest.raises(Killed):
        trainer.run()
    again = a_trainer(tmp_path / "cut")
    again.run(resume=True)
    assert weights(again) == weights(whole)


def test_another_run_is_not_gone_on_with(tmp_path):
    """A state that was left by other data or settings is refused, and stays."""
    a_trainer(tmp_path / "run").run()
    with pytest.raises(CannotDo, match="another one"):
        a_trainer(tmp_path / "run", identity="y").run(resume=True)
    assert (tmp_path / "run" / checkpoint.STATE).exists()


def test_the_best_step_is_kept(tmp_path):
    """The weights at the end are those of the look with the best score, not the last ones."""
    scores = iter([0.2, 0.9, 0.4])
    trainer = a_trainer(tmp_path / "run", score=lambda: next(scores))
    stand = trainer.run()
    assert stand.best_step == stand.curve[-1].step * 2 // 3 and stand.best_score == 0.9
    best = checkpoint.load_best(tmp_path / "run")
    assert all(torch.equal(best[name], tensor) for name, tensor in trainer._own().items())


def test_it_ends_where_nothing_gets_better(tmp_path):
    """Two looks in a row without a better score are enough."""
    scores = iter([0.9, 0.2, 0.1, 0.1, 0.1])
    trainer = a_trainer(tmp_path / "run", score=lambda: next(scores), choices=Choices(rank=2, epochs=6, update=4))
    stand = trainer.run()
    assert "no better" in stand.stopped or stand.step == stand.total


def test_minutes_bound_the_updates(tmp_path):
    """A bound that is hardly any time leaves the few updates that measured the speed."""
    trainer = a_trainer(tmp_path / "run", choices=Choices(rank=2, epochs=50, update=4, minutes=1e-6))
    assert trainer.run().step == 4


def test_a_full_disk_is_a_sentence(tmp_path):
    """A state that cannot be kept ends the run with what to do."""
    trainer = a_trainer(tmp_path / "run")
    trainer._folder = tmp_path / "gone"
    with pytest.raises(CannotDo, match="cannot be kept"):
        trainer.run()


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    """Training that comes apart says so, and says what to change."""
    trainer = a_trainer(tmp_path / "run")
    with torch.no_grad():
        next(iter(trainer._weights.values())).fill_(float("nan"))
    with pytest.raises(CannotDo, match="came apart"):
        trainer.run()


def test_bfloat16_is_near_float32(tmp_path):
    """Products in bfloat16 give the loss to a percent or two; the adapter's own weights stay in float32."""
    low, high = a_trainer(tmp_path / "low", low=True), a_trainer(tmp_path / "high")
    assert {weight.dtype for weight in low._weights.values()} == {torch.float32}
    assert low._loss(some_examples(6)).item() == pytest.approx(high._loss(some_examples(6)).item(), rel=0.02)


lengths = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 12)), min_size=1, max_size=60)


@given(lengths, st.integers(1, 9), st.integers(8, 200), st.integers(0, 5))
def test_every_example_comes_once_an_epoch(found, update, tokens, seed):
    """Updates hold each example once, at most so many, and a micro-batch no more tokens than it may."""
    examples = [Example(str(number), (1,) * read, (2,) * said) for number, (read, said) in enumerate(found)]
    updates = batches.epoch(examples, 0, seed=seed, update=update, tokens=tokens)
    assert sorted(place for micros in updates for places in micros for place in places) == list(range(len(examples)))
    assert all(sum(map(len, micros)) <= update for micros in updates)
    for places in (places for micros in updates for places in micros):
        longest = max(examples[place].length for place in places)
        assert len(places) == 1 or longest * len(places) <= tokens
    assert updates == batches.epoch(examples, 0, seed=seed, update=update, tokens=tokens)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=8))
def test_the_shared_prefix_is_the_longest_one(prompts):
    """All prompts begin with it, none is used up by it, and one token more would not do."""
    examples = [Example(str(number), tuple(prompt), (1,)) for number, prompt in enumerate(prompts)]
    length = batches.shared_prefix(examples)
    begins = {tuple(prompt[:length]) for prompt in prompts}
    assert len(begins) == 1 and all(len(prompt) > length for prompt in prompts)
    longer = {tuple(prompt[: length + 1]) for prompt in prompts}
    assert len(longer) > 1 or min(map(len, prompts)) == length + 1


def _stop_at(step: int):
    """Ctrl-C, as it comes while an update is under way."""
    import os
    import signal

    def tell(stand, rate, left):
        if stand.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return tell


def _noise(name: str, shape) -> object:
    import numpy as np

    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return (np.random.default_rng(seed).standard_normal(tuple(shape)) * 0.1).astype("float32")
