"""The community guide's way to measure the `rwkv` package: a chat of three turns, sampling included.

Prompts, seed and tokens per turn are fixed, because synthetic weights never end an answer. The rest is as in the
guide's script and the package's own chat: the prompt in chunks, penalties on repeated tokens, no end of text, nucleus
sampling with the package's sampler, and decoding to text after each token.
"""

from __future__ import annotations

import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_rwkvperf.core.samples import SEED, Turn

if TYPE_CHECKING:
    from collections.abc import Callable

OPENING = (
    "User: hi\n\nAssistant: Hi. I am your assistant and I will provide expert full response in full details. "
    "Please feel free to ask any question and I will always answer it.\n\n"
)
QUESTIONS = (
    "Why is the sky blue?",
    "What does a compiler do, and what does a linker do after it?",
    "Tell me a story about a lighthouse keeper and a crow.",
)

_TEMPERATURE, _TOP_P = 1.0, 0.3
_PRESENCE, _FREQUENCY, _DECAY = 0.5, 0.5, 0.996
_VOCABULARY = "rwkv_vocab_v20230424"
_FORBIDDEN = 1e10
_REPLACEMENT = "\ufffd"


class Chat:
    """A model with its state in the chat."""

    def __init__(self, model: Any, torch: Any, chunk: int, *, cuda: bool) -> None:  # noqa: ANN401 - untyped packages
        import numpy as np

        self._model, self._torch, self._chunk, self._cuda = model, torch, chunk, cuda
        self._pipeline = import_module("rwkv.utils").PIPELINE(model, _VOCABULARY)
        self._state: Any = None
        np.random.seed(SEED)  # noqa: NPY002 - the package's sampler uses it
        torch.manual_seed(SEED)

    def run(self, tokens: int, report: Callable[[str, float], None]) -> list[Turn]:
        """Chat all turns, each with an answer of this number of tokens."""
        self._feed(OPENING)
        turns = []
        for index, question in enumerate(QUESTIONS):
            report(f"chat, turn {index + 1} of {len(QUESTIONS)}", index / len(QUESTIONS))
            turns.append(self._turn(question, tokens))
        return turns

    def _feed(self, text: str) -> Any:  # noqa: ANN401 - a tensor
        ids, out = [int(token) for token in self._pipeline.encode(text)], None
        for start in range(0, len(ids), self._chunk):
            out, self._state = self._model.forward(ids[start : start + self._chunk], self._state)
        return out

    def _turn(self, question: str, tokens: int) -> Turn:
        """One answer of `tokens` + 1 tokens; the clock starts after the first one, which therefore does not count."""
        out = self._feed(f"User: {question}\n\nAssistant:")
        occurrence: dict[int, float] = {}
        answer: list[int] = []
        shown, started = 0, 0
        for index in range(tokens + 1):
            for token, count in occurrence.items():
                out[token] -= _PRESENCE + count * _FREQUENCY
            out[0] -= _FORBIDDEN
            token = self._pipeline.sample_logits(out, temperature=_TEMPERATURE, top_p=_TOP_P)
            out, self._state = self._model.forward([token], self._state)
            answer.append(token)
            if index == 0:
                started = time.perf_counter_ns()
            for earlier in occurrence:
                occurrence[earlier] *= _DECAY
            occurrence[token] = 1 + occurrence.get(token, 0.0)
            text = self._text(answer[shown:])
            if _REPLACEMENT not in text and not text.endswith("\n"):
                shown = index + 1
        return Turn(tokens, time.perf_counter_ns() - started, *self._memory())

    def _text(self, ids: list[int]) -> str:
        """Empty for ids that have no token, which untrained weights give too and the tokenizer cannot decode."""
        try:
            return str(self._pipeline.decode(ids))
        except KeyError:
            return ""

    def _memory(self) -> tuple[int, ...]:
        from pytest_rwkvperf.machine.memory import peak_rss_bytes

        if not self._cuda:
            return (peak_rss_bytes(),)
        cuda = self._torch.cuda
        total = cuda.get_device_properties(0).total_memory
        return peak_rss_bytes(), cuda.memory_allocated(), cuda.memory_reserved(), total
