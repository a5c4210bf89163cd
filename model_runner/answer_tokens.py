"""How many of the generated tokens the answer is made of."""

from collections.abc import Iterable, Sequence

from model_runner.answer import find_answer
from model_runner.vocabulary import Vocabulary


def count_answer_tokens(ids: Iterable[int], vocabulary: Vocabulary, texts: Sequence[str]) -> int:
    """Of the answer in the texts of the steps together, or, where they name none, of the last one.

    A token counts if a byte of it is in the answer. Places are bytes: where half a character was generated and U+FFFD
    stands in the text for it, those after it are off by two bytes at most.
    """
    text, last_text = "".join(texts), texts[-1] if texts else ""
    found = find_answer(text) or slice(len(text) - len(last_text), len(text))
    begin, end = (len(text[:at].encode()) for at in (found.start, found.stop))
    count = at = 0
    for token_id in ids:
        size = len(vocabulary.bytes_of(token_id))
        count += size > 0 and at < end and at + size > begin
        at += size
    return count
