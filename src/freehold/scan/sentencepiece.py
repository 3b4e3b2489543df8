"""SentencePiece models (tokenizer.model, spiece.model): pieces of text with their scores, and how to cut text.

Format: sentencepiece_model.proto of SentencePiece 0.2. Facts: `pieces`.
"""

from __future__ import annotations

from freehold.scan import protobuf
from freehold.scan.base import Report
from freehold.scan.protobuf import Message
from freehold.scan.tape import Tape

FORMAT = "sentencepiece"

SCHEMA = protobuf.schema("""
Model: 1 pieces Piece*; 2 trainer_spec Trainer; 3 normalizer_spec Normalizer; 4 self_test_data Test; \
    5 denormalizer_spec Normalizer
Piece: 1 piece text; 2 score f32; 3 type int
Test: 1 samples Sample*
Sample: 1 input blob; 2 expected blob
Normalizer: 1 name text; 2 precompiled_charsmap blob; 3 add_dummy_prefix int; 4 remove_extra_whitespaces int; \
    5 escape_whitespaces int; 6 normalization_rule_tsv blob
Trainer: 1 input blob*; 7 input_format text; 2 model_prefix text; 3 model_type int; 4 vocab_size int; \
    5 accept_language blob*; 6 self_test_sample_size int; 50 enable_differential_privacy int; \
    51 differential_privacy_noise_level f32; 52 differential_privacy_clipping_threshold int; \
    10 character_coverage f32; 11 input_sentence_size int; 19 shuffle_input_sentence int; \
    12 mining_sentence_size int; 13 training_sentence_size int; 14 seed_sentencepiece_size int; \
    15 shrinking_factor f32; \
    18 max_sentence_length int; 16 num_threads int; 17 num_sub_iterations int; 20 max_sentencepiece_length int; \
    21 split_by_unicode_script int; 23 split_by_number int; 22 split_by_whitespace int; \
    24 treat_whitespace_as_suffix int; 26 allow_whitespace_only_pieces int; 25 split_digits int; \
    53 pretokenization_delimiter blob; 30 control_symbols blob*; 31 user_defined_symbols blob*; \
    36 required_chars blob; \
    35 byte_fallback int; 32 vocabulary_output_piece_score int; 33 hard_vocab_limit int; 34 use_all_vocab int; \
    40 unk_id int; 41 bos_id int; 42 eos_id int; 43 pad_id int; 45 unk_piece text; 46 bos_piece text; \
    47 eos_piece text; 48 pad_piece text; 44 unk_surface text; 49 train_extremely_large_corpus int; \
    54 seed_sentencepieces_file text; 55 auto_character_coverage int
""")


def recognises(head: bytes, tape: Tape, name: str) -> bool:
    """It begins with a piece that has a text and a score."""
    if head[:1] != b"\x0a":
        return False
    found = protobuf.outline(tape, SCHEMA["Model"])
    if not found or not found.keys() <= SCHEMA["Model"].keys() or 1 not in found:
        return False
    piece = protobuf.outline(tape, SCHEMA["Piece"], *found[1])
    return piece is not None and piece.keys() in ({1, 2}, {1, 2, 3})


def scan(tape: Tape, report: Report) -> None:
    """Read every piece. Raises Malformed."""
    count = 0

    def piece(message: Message, at: int) -> None:
        nonlocal count
        count += 1

    protobuf.read(tape, SCHEMA, "Model", report, {"Piece": piece, "Sample": lambda message, at: None})
    report.facts["pieces"] = count
