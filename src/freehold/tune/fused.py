"""A layer with LoRA as one step of autograd: y = x W' + b + s (x A') B', the mathematics of peft's in fewer passes.

peft computes base and adapter as modules of their own: the input is cast twice, the adapter's output is made, scaled
and added, and each of these is kept for the way back. Here the adapter's product is added into the base's; kept are
the input and x A', which has the rank's width. With g the gradient of y:

    dx = g W + s (g B) A        dA = s (g B)' x        dB = s g' (x A')
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer


class _Step(torch.autograd.Function):
    """x (..., in), W (out, in) and b (out) or None, which are not trained, A (rank, in), B (out, rank), s. Products are
    in W's type."""

    @staticmethod
    def forward(context, x, weight, bias, a, b, scale: float):
        """y (..., out), in W's type."""
        flat = x.reshape(-1, x.shape[-1]).to(weight.dtype)
        low_a, low_b = a.to(weight.dtype), b.to(weight.dtype)
        inner = flat @ low_a.t()
        out = flat @ weight.t() if bias is None else torch.addmm(bias.to(weight.dtype), flat, weight.t())
        out.addmm_(inner, low_b.t(), alpha=scale)
        context.save_for_backward(flat, weight, low_a, low_b, inner)
        context.scale, context.shape, context.types = scale, x.shape, (x.dtype, a.dtype)
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(context, gradient):
        """The gradients of x, A and B, each in the type of what it is for."""
        flat, weight, low_a, low_b, inner = context.saved_tensors
        of_input, of_adapter = context.types
        gradient = gradient.reshape(-1, gradient.shape[-1])
        through = (gradient @ low_b).mul_(context.scale)
        back = gradient @ weight
        back.addmm_(through, low_a)
        grown_a = (through.t() @ flat).to(of_adapter)
        grown_b = (gradient.t() @ inner).to(of_adapter).mul_(context.scale)
        return back.view(context.shape).to(of_input), None, None, grown_a, grown_b, None


def lay(model: PeftModel) -> None:
    """Have every layer of the model that carries an adapter compute it in one step while it is trained; at any other
    time, and with the adapter switched off, it computes as peft does."""
    from peft.tuners.lora import LoraLayer

    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.forward = partial(_forward, layer, layer.forward)


def _forward(layer: LoraLayer, other, x: torch.Tensor, *more, **named) -> torch.Tensor:
    if not layer.training or layer.disable_adapters:
        return other(x, *more, **named)
    (name,) = layer.active_adapters
    base, scale = layer.base_layer, layer.scaling[name]
    return _Step.apply(x, base.weight, base.bias, layer.lora_A[name].weight, layer.lora_B[name].weight, scale)
