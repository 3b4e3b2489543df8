"""The ordinary files of a model repository, each as small as its own reader accepts."""

from __future__ import annotations

import base64
import json
import struct
import zlib

from assets.protobuf import field, message
from assets.safetensor_files import DATA, PAIR, packed
from assets.template_files import CHATML

WEIGHTS = packed(PAIR, DATA)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2,
    "num_attention_heads": 1,
    "num_hidden_layers": 1,
    "vocab_size": 4,
    "torch_dtype": "float32",
    "transformers_version": "5.3.0",
}
VOCABULARY = {"<s>": 0, "os.system": 1, "eval(": 2, "__import__": 3, "</s>": 4}
README = """---
license: apache-2.0
language: [en]
pipeline_tag: text-generation
tags: [safetensors]
---

# A model

Older checkpoints were pickles. Never do this with a file that you do not trust:

```python
import pickle, os
state = pickle.load(open("pytorch_model.bin", "rb"))  # runs whatever is inside, os.system too
model = AutoModel.from_pretrained("org/model", trust_remote_code=True)
```
"""
ATTRIBUTES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.gguf filter=lfs diff=lfs merge=lfs -text\n"
JPEG = base64.b64decode(  # 8 by 8 grey pixels
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAFA3PEY8MlBGQUZaVVBfeMiCeG5uePWvuZHI////////////////////////////////////////////"
    "////////wAALCAAIAAgBAREA/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QAtRAAAgEDAwIEAwUFBAQAAAF9AQIDAAQRBRIhMUEG"
    "E1FhByJxFDKBkaEII0KxwRVS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJ"
    "ipKTlJWWl5iZmqKjpKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+Tl5ufo6erx8vP09fb3+Pn6/9oACAEBAAA/ACv/2Q=="
)
GIF = b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\4\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"
MIT = """MIT License

Copyright (c) 2026 The authors

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def png() -> bytes:
    """One grey pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")


def tokenizer() -> str:
    """tokenizer.json, as the tokenizers library reads it."""
    special = {"id": 0, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False}
    added = [special | {"normalized": False, "special": True}]
    bpe = {"type": "BPE", "vocab": VOCABULARY, "merges": [], "unk_token": None}
    rest = {"truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": None}
    return json.dumps(
        {"version": "1.0", **rest, "added_tokens": added, "post_processor": None, "decoder": None, "model": bpe}
    )


def sentencepiece() -> bytes:
    """tokenizer.model, as the sentencepiece library reads it: pieces with a score and a type."""
    words = [
        ("<unk>", 0.0, 2),
        ("<s>", 0.0, 3),
        ("</s>", 0.0, 3),
        ("os.system", -1.0, 1),
        ("e", -2.0, 1),
        ("val", -3.0, 1),
    ]
    pieces = b"".join(field(1, message((1, word), (2, score), (3, kind))) for word, score, kind in words)
    trainer = message((3, 1), (4, len(words)))
    return pieces + field(2, trainer) + field(3, message((1, "identity")))


def repository() -> dict[str, bytes | str]:
    """A small and complete repository."""
    return {
        "config.json": json.dumps(CONFIG, indent=2),
        "generation_config.json": json.dumps({"do_sample": True, "temperature": 0.7, "eos_token_id": [1, 2]}),
        "model.safetensors": WEIGHTS,
        "tokenizer.json": tokenizer(),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": CHATML}),
        "special_tokens_map.json": json.dumps({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}}),
        "vocab.json": json.dumps(VOCABULARY),
        "merges.txt": "#version: 0.2\no s\ne val\n",
        "README.md": README,
        ".gitattributes": ATTRIBUTES,
    }
