r"""The tokenizer of the tiny maze models: byte-level BPE, so that any text encodes and decodes without loss.

All 256 bytes are tokens; merges are learned from the sentences of the task, so that the usual question is short. A move
letter is always a token of its own and ``\boxed{`` is one token: an answer costs one token a move. The special tokens
come last, in Qwen2.5-VL's order, then the three of ILVR (arXiv 2512.05665, released code).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|latent_pad|>",
    "<|latent_start|>",
    "<|latent_end|>",
)

# GPT-2's word pattern, after two rules of the task: the box opens as one piece, a capital move letter stands alone.
WORDS = r"\\boxed\{|[UDLR]| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}\\]+|\\|\s+"

# Qwen2.5-VL's chat layout without its default system prompt: shorter sequences train faster.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """The ids that config and manifest name."""

    end_of_text: int
    im_end: int
    vision_start: int
    vision_end: int
    image_pad: int
    video_pad: int
    latent_pad: int
    latent_start: int
    latent_end: int


def build_tokenizer(sentences: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of at most ``vocab_size`` tokens whose merges fit the sentences; deterministic."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """The ids of the special tokens."""

    def named(token: str) -> int:
        token_id = tokenizer.token_to_id(token)
        if token_id is None:
            raise ValueError(f"the tokenizer has no {token}")
        return int(token_id)

    return SpecialIds(
        end_of_text=named("<|endoftext|>"),
        im_end=named("<|im_end|>"),
        vision_start=named("<|vision_start|>"),
        vision_end=named("<|vision_end|>"),
        image_pad=named("<|image_pad|>"),
        video_pad=named("<|video_pad|>"),
        latent_pad=named("<|latent_pad|>"),
        latent_start=named("<|latent_start|>"),
        latent_end=named("<|latent_end|>"),
    )
