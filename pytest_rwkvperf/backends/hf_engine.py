"""RWKV-7 models of Hugging Face's transformers as engines: called as `generate` calls them, with a cache of states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pytest_rwkvperf.backends import hf_model
from pytest_rwkvperf.core.engine import BackendDefaults

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from pytest_rwkvperf.core.cases import Format
    from pytest_rwkvperf.core.engine import Device, OpenRequest

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class Package(Protocol):
    """What differs between packages: the model's class, and how its cache holds the states."""

    compiles_for_each_batch: bool
    """Whether kernels are compiled anew for each number of sequences that a call has."""

    def model(self, arguments: Mapping[str, int]) -> Any:  # noqa: ANN401 - no types here
        """A model with a configuration of these arguments."""

    def cache(self, layers: int) -> Any:  # noqa: ANN401
        """An empty cache, which the model takes for zero states."""

    def tensors(self, cache: Any) -> list[Any]:  # noqa: ANN401
        """The states in a cache, each [sequences, ...], in an order of the package's own."""

    def holding(self, tensors: Sequence[Any]) -> Any:  # noqa: ANN401
        """A cache with these states, in the same order."""


class HfBatch:
    """Sequences whose tokens and states are rows of the model's arguments.

    Sequences that a call advances by the same number of tokens are computed together. Those of a generation, and of a
    prefill in equal shares, therefore need one call of the model.
    """

    def __init__(self, package: Package, model: Any, sequences: int, device: Device) -> None:  # noqa: ANN401
        import torch

        self._torch, self._package, self._model = torch, package, model
        self.sequences, self._device = sequences, device.id
        self._cuda = device.kind == "gpu"
        self._cache: Any = None
        vocabulary = int(model.config.vocab_size)
        self._logits = torch.zeros((sequences, vocabulary), device=device.id)
        # A GPU copies into pinned memory several times as fast.
        self._host = torch.empty((sequences, vocabulary), dtype=torch.float32, pin_memory=True) if self._cuda else None
        self._copied = False

    def clear(self) -> None:
        """Forget the states; the model begins with zeroed ones."""
        self._cache = None
        if self._cuda and self._copied:
            # Otherwise torch keeps the memory of saved states, and it would count as needed by the sequences.
            self._torch.cuda.empty_cache()
            self._copied = False

    def clear_sequence(self, sequence: int) -> None:
        """Zero its rows."""
        with self._torch.inference_mode():
            for tensor in self._states():
                tensor[sequence].zero_()

    def save_state(self) -> list[Any]:
        """Copies of all tensors; none where all states are cleared."""
        self._copied = True
        with self._torch.inference_mode():
            copied = [tensor.clone() for tensor in self._states()]
        self.synchronise()
        return copied

    def load_state(self, state: Sequence[Any]) -> None:
        """Copies again, because the model changes the cache that it is given."""
        with self._torch.inference_mode():
            self._cache = self._package.holding([tensor.clone() for tensor in state]) if state else None

    def prefill(self, tokens: Sequence[Sequence[int]]) -> None:
        """One call of the model for each length of the parts."""
        by_length: dict[int, list[int]] = {}
        for sequence, part in enumerate(tokens):
            if part:
                by_length.setdefault(len(part), []).append(sequence)
        with self._torch.inference_mode():
            for rows in by_length.values():
                called = self._filled_up(rows)
                ids = self._torch.tensor([list(tokens[row]) for row in called], device=self._device)
                if len(rows) == self.sequences:
                    self._logits = self._advance_all(ids)
                else:
                    self._advance(called, ids, len(rows))

    def decode(self, tokens: Sequence[int]) -> None:
        """The same call with one token of each sequence: the packages have no other path."""
        with self._torch.inference_mode():
            self._logits = self._advance_all(self._torch.tensor(tokens, device=self._device)[:, None])

    def _states(self) -> list[Any]:
        return [] if self._cache is None else self._package.tensors(self._cache)

    def _new_cache(self) -> Any:  # noqa: ANN401 - the package's cache
        return self._package.cache(int(self._model.config.num_hidden_layers))

    def _advance_all(self, ids: Any) -> Any:  # noqa: ANN401 - tensors
        if self._cache is None:
            self._cache = self._new_cache()
        return self._call(ids, self._cache)

    def _call(self, ids: Any, cache: Any) -> Any:  # noqa: ANN401 - tensors
        """The last token's logits of each row; the cache is advanced in place."""
        answer = self._model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return answer.logits[:, -1].float()

    def _filled_up(self, rows: Sequence[int]) -> Sequence[int]:
        """These rows, and where a number of rows costs a compilation, the first one again up to a power of two.

        The check of batches calls the model with hundreds of different numbers of sequences.
        """
        if not self._package.compiles_for_each_batch:
            return rows
        size = min(self.sequences, 1 << (len(rows) - 1).bit_length())
        return [*rows, *[rows[0]] * (size - len(rows))]

    def _advance(self, rows: Sequence[int], ids: Any, count: int) -> None:  # noqa: ANN401 - tensors
        """Some sequences: their rows are taken out, and the first `count` of them put back afterwards."""
        chosen = self._torch.tensor(rows, device=self._device)
        held = self._states()
        if held:
            cache = self._package.holding([tensor.index_select(0, chosen) for tensor in held])
        else:
            cache = self._new_cache()
        logits = self._call(ids, cache)
        advanced = self._package.tensors(cache)
        if not held:
            held = [tensor.new_zeros((self.sequences, *tensor.shape[1:])) for tensor in advanced]
            self._cache = self._package.holding(held)
        kept = chosen[:count]
        for whole, part in zip(held, advanced, strict=True):
            whole[kept] = part[:count]
        self._logits[kept] = logits[:count]

    def synchronise(self) -> None:
        """Wait for CUDA; on the CPU nothing is queued."""
        if self._cuda:
            self._torch.cuda.synchronize()

    def logits(self) -> npt.NDArray[np.float32]:
        """float32 [sequences, vocabulary]; the copy to the host waits for the device."""
        rows = self._logits if self._host is None else self._host.copy_(self._logits)
        result: npt.NDArray[np.float32] = rows.numpy()
        return result


class HfEngine:
    """A model and its single sequence: a batch of one."""

    def __init__(self, request: OpenRequest, package: Package, device: Device) -> None:
        import torch

        torch.set_num_threads(request.threads)
        if device.kind == "gpu":
            # Kernels that Triton compiles run on torch's current device, not on their tensors' device.
            torch.cuda.set_device(device.id)
        self._package, self.device = package, device
        self._model = hf_model.load(request.path, DTYPES[request.quant], package.model).to(device.id)
        self.vocabulary = int(self._model.config.vocab_size)
        self._one = self.batch(1)

    def batch(self, sequences: int) -> HfBatch:
        """Further sequences of the same weights."""
        if self.device.kind == "gpu":
            import torch

            torch.cuda.empty_cache()
        return HfBatch(self._package, self._model, sequences, self.device)

    def clear(self) -> None:
        """A zero state."""
        self._one.clear()

    def save_state(self) -> list[Any]:
        """Copies of the tensors of each layer."""
        return self._one.save_state()

    def load_state(self, state: Sequence[Any]) -> None:
        """Copies again."""
        self._one.load_state(state)

    def prefill(self, tokens: Sequence[int]) -> None:
        """One call of the model."""
        self._one.prefill([tokens])

    def decode(self, token: int) -> None:
        """One call of the model."""
        self._one.decode([token])

    def synchronise(self) -> None:
        """Wait for the device."""
        self._one.synchronise()

    def logits(self) -> npt.NDArray[np.float32]:
        """float32 [vocabulary]."""
        result: npt.NDArray[np.float32] = self._one.logits()[0]
        return result


class HfDefaults(BackendDefaults):
    """What backends of this kind have in common."""

    format: Format = "pth"
    standard_chunk: int = 512
    quants: tuple[str, ...] = tuple(DTYPES)

    def accepts(self, quant: str) -> bool:
        """float32, bfloat16 or float16."""
        return quant in self.quants

    def environment(self, device: str | None) -> Mapping[str, str]:  # noqa: ARG002 - the Protocol's signature
        """Read at import by huggingface_hub: nothing is downloaded, and no server is asked."""
        return {"HF_HUB_OFFLINE": "1"}

    def build(self) -> str:
        """Of torch: compilers, flags, libraries. A package is known by its modules, which `devices` has loaded."""
        import torch

        return str(torch.__config__.show())
