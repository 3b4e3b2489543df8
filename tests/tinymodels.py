"""Models of a few thousand weights, random but whole, that the real engine loads: one for each family that is tuned.

They are made with transformers, so that there is a second opinion of what they compute, and written as GGUF by their
own code here: what the package reads was not written by the package.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

LAYERS, WIDTH, INNER, HEADS, KV_HEADS, SIZE = 3, 64, 96, 4, 2, 16
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
WORDS = ["th", "he", "the", "in", "er", "an", "and", "Ġthe", "on", "re", "at", "ing", "en", "or", "Ġa", "es"]
KINDS = ("llama", "qwen2", "qwen3")
_PARTS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
_OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}  # fmt: skip


def vocabulary() -> tuple[list[str], list[str]]:
    """The tokens, every byte among them, and the merges that make the longer ones."""
    tokens = SPECIAL + _bytes()
    merges = []
    for word in WORDS:
        left = next(word[:cut] for cut in range(len(word) - 1, 0, -1) if word[:cut] in tokens and word[cut:] in tokens)
        merges.append(f"{left} {word[len(left) :]}")
        tokens.append(word)
    return tokens, merges


def make(kind: str, seed: int = 0, **settings: object):
    """A transformers model of that ``model_type``, with weights large enough that its layers matter."""
    import torch
    import transformers

    torch.manual_seed(seed)
    name = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}[kind]
    wanted = {
        "vocab_size": len(vocabulary()[0]), "hidden_size": WIDTH, "intermediate_size": INNER,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": SIZE,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "bos_token_id": 0, "eos_token_id": 2,
    }  # fmt: skip
    config = getattr(transformers, f"{name}Config")(**(wanted | settings))
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for weight_name, weight in model.named_parameters():
            if weight_name.endswith("norm.weight"):
                weight.copy_(1 + 0.2 * torch.randn_like(weight))
            else:
                weight.copy_(torch.randn_like(weight) * (1.0 if "embed" in weight_name else 0.2))
    return model


def write(model, path: Path, *, quantised: bool = False, extra: dict[str, object] | None = None) -> Path:
    """The model as GGUF, in float32 or, where its matrices are concerned, in Q8_0. ``extra`` are further facts."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    config = model.config
    kind = "llama" if config.model_type == "mistral" else config.model_type
    writer = GGUFWriter(path, kind)
    _facts(writer, config)
    for key, value in (extra or {}).items():
        if key == "rope_freqs":
            writer.add_tensor("rope_freqs.weight", value.numpy())
        else:
            _say(writer, key, value)
    for name, values in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = values.detach().float().numpy()
        if kind == "llama" and ("q_proj" in name or "k_proj" in name):
            array = _as_stored(array, config.num_attention_heads if "q_proj" in name else config.num_key_value_heads)
        if quantised and array.ndim == 2:
            packed = quantize(array, GGMLQuantizationType.Q8_0)
            writer.add_tensor(stored_name(name), packed, raw_dtype=GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(stored_name(name), np.ascontiguousarray(array, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def rewrite(
    file, path: Path, names: list[str], changes: dict[str, object], *, renamed: dict[str, str] | None = None
) -> Path:
    """Some of an open file's tensors in another file, with some facts changed (None: left out)."""
    from gguf import GGMLQuantizationType, GGUFWriter

    facts = file.metadata | changes
    writer = GGUFWriter(path, str(facts.pop("general.architecture")))
    for key, value in facts.items():
        if value is not None:
            _say(writer, key, value)
    for name in names:
        values = file.read(name)
        writer.add_tensor((renamed or {}).get(name, name), values, raw_dtype=GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _say(writer, key: str, value: object) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_array(key, value)


def stored_name(name: str) -> str:
    """A tensor's name in GGUF."""
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    _, _, number, rest = name.split(".", 3)
    part, _, suffix = rest.rpartition(".")
    return f"blk.{number}.{_PARTS[part]}.{suffix}"


def _as_stored(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q and k as llama.cpp's conversion stores those of a Llama, written out row by row."""
    size = array.shape[0] // heads
    order = [
        head * size + half * (size // 2) + pair for head in range(heads) for pair in range(size // 2) for half in (0, 1)
    ]
    return array[order]


def _facts(writer, config) -> None:
    tokens, merges = vocabulary()
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    size = getattr(config, "head_dim", None) or SIZE
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(size)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHATML)


def _bytes() -> list[str]:
    """A printable letter for each byte, as GPT-2 has them."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = {byte: chr(byte) for byte in shown} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}
    return [letters[byte] for byte in range(256)]
