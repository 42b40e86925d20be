"""The umT5 text encoder (model spec, section 7), run by transformers, which is imported where it is used: it takes seconds.

Letters: X tokens of the prompt, E text width.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from wanimate.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import UMT5Config

MAX_TOKENS = 512


class Tokenizer(Protocol):
    def __call__(self, text: str, *, truncation: bool, max_length: int) -> dict[str, list[int]]: ...


class TextEncoder(nn.Module):
    """Prompt -> [X, E], only the rows of real tokens.

    The published code pads to 512 tokens and masks the padding; real rows do not see it, so it is left out here.
    """

    def __init__(self, config: UMT5Config, tokenizer: Tokenizer | None) -> None:
        from transformers import UMT5EncoderModel

        super().__init__()
        self.model = UMT5EncoderModel(config).eval()
        self.tokenizer = tokenizer

    @torch.inference_mode()
    def encode(self, prompt: str) -> Tensor:
        assert self.tokenizer is not None
        ids = self.tokenizer(clean(prompt), truncation=True, max_length=MAX_TOKENS)["input_ids"]
        words = self.model.config.vocab_size
        if max(ids) >= words:
            rule = f"its tokenizer gives the token {max(ids)}, and the text encoder knows {words}"
            raise CheckpointError(
                "checkpoint", "tokenizer", rule, "Use the tokenizer that belongs to the text encoder."
            )
        return self.encode_ids(torch.tensor(ids))

    @torch.inference_mode()
    def encode_ids(self, ids: Tensor) -> Tensor:
        """Token ids [X], the last one </s> -> [X, E]."""
        out: Tensor = self.model(input_ids=ids[None].to(self.model.device)).last_hidden_state[0]
        return out


def clean(prompt: str) -> str:
    """Mend broken Unicode and HTML entities, and collapse white space."""
    import ftfy  # only a new prompt needs it

    text = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", text).strip()


def umt5_config(vocab: int, width: int, inner: int, ffn: int, heads: int, layers: int) -> UMT5Config:
    """The published layout with these sizes: 32 buckets up to distance 128 in every layer, gated GELU (tanh), no dropout."""
    from transformers import UMT5Config

    return UMT5Config(
        vocab_size=vocab, d_model=width, d_kv=inner // heads, d_ff=ffn, num_heads=heads, num_layers=layers,
        relative_attention_num_buckets=32, relative_attention_max_distance=128, layer_norm_epsilon=1e-6,
        feed_forward_proj="gated-gelu", dropout_rate=0.0, tie_word_embeddings=True, is_encoder_decoder=False,
    )  # fmt: skip
