"""The adapter that is trained: LoRA on every linear layer of every block, by peft."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from freehold.tune import family
from freehold.tune.train import Choices

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


EAGER = 1024  # tokens


def wrap(model: PreTrainedModel, choices: Choices, *, low: bool, longest: int = 0) -> PeftModel:
    """The model with an untrained adapter, which changes nothing yet. ``low`` puts the base's weights into bfloat16;
    the adapter's stay in float32. ``longest`` is the longest example, in tokens. The same seed gives the same adapter.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    from freehold.tune import fused  # with torch

    if model.device.type == "cpu" and longest <= EAGER:
        # written out, short attention is a third faster on a CPU than the fused one, whose way back is slow; its
        # memory grows with the square of the length
        model.set_attn_implementation("eager")
    if low:
        for weight in model.parameters():  # and not the buffers: rotations in bfloat16 lose their place
            weight.data = weight.data.to(torch.bfloat16)
    torch.manual_seed(choices.seed)
    config = LoraConfig(
        r=choices.rank, lora_alpha=choices.alpha, lora_dropout=0.0, bias="none", target_modules=list(family.TARGETS)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks a model something by its old name
        wrapped = get_peft_model(model, config)
    fused.lay(wrapped)
    return wrapped
