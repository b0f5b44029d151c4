"""Timed repetitions in one process: warmed until steady, settled on a GPU, with probes before each."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from pytest_rwkvperf.worker import protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_rwkvperf.core.cases import Workload
    from pytest_rwkvperf.core.samples import Sample
    from pytest_rwkvperf.measure.probes import Prober
    from pytest_rwkvperf.measure.process import Process
    from pytest_rwkvperf.measure.record import ProcessRun

MIN_SAMPLES = 3
"""The documented minimum per workload and process, which goes before the budget."""

MAX_SAMPLES = 10
PROCESS_SECONDS = 1.0
"""A process takes samples of a workload for about this long, within MIN_SAMPLES and MAX_SAMPLES."""

WARMUP_SECONDS = 1.0
WARMUP_LIMIT_SECONDS = 15.0
WARMUP_TOKENS = 16
WARMUP_AGREEMENT = 1.10
"""Steady: a second of work, and the last two repetitions within 10 %. Two alone would not do: on an H200 the first two
whole prefills of rwkv agree with each other and are 14 times slower than all later ones, but take under a second."""

SETTLING = 2
QUICK_SECONDS = 0.25
"""On a GPU, a repetition of less than QUICK_SECONDS that follows another workload is preceded by SETTLING that do not
count. llama.cpp runs the first prefill after a generation without a CUDA graph and records a new one in the second: on
an H200 they are 9 % and 32 % slower than all that follow. In longer repetitions the difference is lost in the noise."""

SLICE_SECONDS = 0.1
"""A shared machine's speed changes within seconds, so that slices of a tenth of a second on both sides are slowed
alike."""

_Reading = TypeVar("_Reading")


class Sampling:
    """The repetitions of one process, in order of time."""

    def __init__(
        self,
        process: Process,
        prober: Prober | None = None,
        device_bytes: Callable[[], int | None] | None = None,
    ) -> None:
        """`device_bytes` tells the worker's memory on its device; without it, memory is not noted."""
        self.process = process
        self._prober = prober
        self._device_bytes = device_bytes
        self._memory: dict[str, int] = {}
        self._on_gpu = process.target.device.kind == "gpu"
        self._warm_seconds: dict[Workload, float] = {}
        self._last: Workload | None = None
        self._batch = 1
        self._checked: dict[str, int] = {}
        """Which repetition's answer is compared, by workload; of none without `check_answers`."""
        self._warmups: dict[str, int] = {}
        self._samples: dict[str, list[Sample]] = {}
        self._probes: dict[str, list[int]] = {}
        self._handovers: dict[str, list[int]] = {}

    def warm_up(
        self,
        workloads: Sequence[Workload],
        *,
        known: Mapping[Workload, float] | None = None,
        progress: Callable[[str], None] = lambda _sentence: None,
    ) -> dict[Workload, float]:
        """Repeat each workload until it is steady or the limit passes; how many seconds a whole repetition takes then.

        A workload is steady at once when a repetition is as fast as is `known` of earlier processes, in seconds. Those
        without context come first, and small batches before large ones, so that the memory that these need shows. A
        batch is checked when it is first made.

        Raises:
            RwkvPerfError: the worker failed, or a batch's answers are wrong.
        """
        for workload in sorted(workloads, key=lambda each: (each.batch, each.depth)):
            progress(f"warming up {workload}")
            if self._note_batch(workload):
                self.process.check_batch(workload.batch)
            durations: list[float] = []
            fast = WARMUP_AGREEMENT * known[workload] * _warmup_share(workload) if known else 0.0
            while not (durations and durations[-1] <= fast) and not steady(durations):
                durations.append(self.process.time(warmup_for(workload)).nanoseconds / 1e9)
            self._warmups[str(workload)] = len(durations)
            self._warm_seconds[workload] = durations[-1]
            self._last = workload
            self._note_memory(workload)
        return {workload: self._warm_seconds[workload] / _warmup_share(workload) for workload in workloads}

    def _note_memory(self, workload: Workload) -> None:
        if self._device_bytes is None:
            return
        resident, on_device = self.process.resident_bytes(), self._device_bytes()
        if resident is not None and on_device is not None:
            self._memory[str(workload)] = resident + on_device

    def check_answers(self, counts: Mapping[Workload, int]) -> None:
        """Choose the repetition whose answer is compared, of so many of each workload."""
        last = self.process.first
        self._checked = {str(workload): checked_repetition(count, last=last) for workload, count in counts.items()}

    def take(self, workload: Workload, waiting: Callable[[str], None] = lambda _sentence: None) -> Sample:
        """Time a workload once, with the probes before it, and keep all.

        Raises:
            RwkvPerfError: the worker failed, or its clock is broken.
        """
        self.settle(workload)
        name = str(workload)
        if self._prober is not None:
            handover = self._prober.handover(waiting)
            if handover is not None:
                self._handovers.setdefault(name, []).append(handover)
            self._probes.setdefault(name, []).append(self._prober.beside(workload))
        sample = self.process.time(workload, checked=self.is_checked(workload))
        self.keep(workload, sample)
        return sample

    def keep(self, workload: Workload, sample: Sample) -> None:
        """Add a sample to those that `finish` gives, and check the answer that it ended with if it is the one.

        Raises:
            ParityError: the answer is wrong.
        """
        checked, taken = self.is_checked(workload), self._samples.setdefault(str(workload), [])
        taken.append(sample)
        if checked:
            self.process.check_answer(workload, len(taken))

    def is_checked(self, workload: Workload) -> bool:
        """Whether the next sample is the one whose answer is compared."""
        return len(self._samples.get(str(workload), ())) + 1 == self._checked.get(str(workload))

    def settle(self, workload: Workload) -> None:
        """Before a workload that follows another one is timed again, repeat it where that is known to matter.

        On a GPU a quick one; everywhere one of a batch that has to be made anew, since its memory is new.
        """
        count = self.settling(workload) if self._on_gpu and self._last not in {None, workload} else 0
        if self._note_batch(workload):
            count = max(count, 1)
        for _ in range(count):
            self.process.time(warmup_for(workload))
        self._last = workload

    def _note_batch(self, workload: Workload) -> bool:
        """Whether a workload's batch is made anew: a process has one, of as many sequences as were asked for last."""
        if workload.batch in (1, self._batch):
            return False
        self._batch = workload.batch
        return True

    def settling(self, workload: Workload) -> int:
        """How many repetitions after another workload do not count on a GPU."""
        return SETTLING if self._warm_seconds[workload] < QUICK_SECONDS else 0

    def token_seconds(self, workload: Workload) -> float:
        """How long a token, or a step of a batch, took in the last repetition of the warm-up."""
        return self._warm_seconds[workload] / warmup_for(workload).tokens

    def finish(self) -> ProcessRun:
        """What the process leaves behind.

        Raises:
            WorkerError: the worker or the probe process failed.
        """
        return replace(
            self.process.finish(),
            warmups=self._warmups,
            samples=_tuples(self._samples),
            probes=_tuples(self._probes),
            handovers=_tuples(self._handovers),
            reach=self._prober.reach() if self._prober is not None and self._probes else {},
            memory=self._memory,
        )


class SlicedSampling(Sampling):
    """As `Sampling`, with generations that can be interrupted between tokens."""

    def __init__(self, process: Process) -> None:
        super().__init__(process)
        self._slices: list[Sample] = []

    def slice_tokens(self, workload: Workload) -> int:
        """How many tokens a slice of about SLICE_SECONDS has, by the warm-up."""
        return max(1, round(SLICE_SECONDS / self.token_seconds(workload)))

    def take_slice(self, workload: Workload, start: int, count: int) -> None:
        """Time `count` tokens of a generation from its `start`th on; the last slice completes a sample."""
        if start == 0:
            self.settle(workload)
            self._slices = []
        self._slices.append(self.process.time_slice(workload, start, count, checked=self.is_checked(workload)))
        if start + count >= workload.tokens:
            self.keep(workload, protocol.joined(self._slices))


def _tuples(rows: Mapping[str, Sequence[_Reading]]) -> dict[str, tuple[_Reading, ...]]:
    return {name: tuple(row) for name, row in rows.items()}


def warmup_for(workload: Workload) -> Workload:
    """What warms a workload: a prefill itself, whose chunks' shapes matter; of a generation, some tokens.

    At the workload's depth: the first repetition of either reads its context.
    """
    if workload.kind == "prefill":
        return workload
    return replace(workload, tokens=min(workload.tokens, WARMUP_TOKENS))


def _warmup_share(workload: Workload) -> float:
    """A warm-up repetition's part of a whole one."""
    return warmup_for(workload).tokens / workload.tokens


def sample_count(each: float, seconds: float = PROCESS_SECONDS, fewest: int = MIN_SAMPLES) -> int:
    """How many samples of so many seconds `each` a process takes in about `seconds`."""
    return max(fewest, min(MAX_SAMPLES, math.ceil(seconds / each)))


def checked_repetition(count: int, *, last: bool) -> int:
    """Of `count` repetitions, from 1, the one whose answer is compared.

    The last one in a case's first process, so that an engine that becomes wrong after a while is always noticed; in
    the others one that the engine cannot foresee.
    """
    return count if last else random.SystemRandom().randint(1, count)


def steady(durations: Sequence[float]) -> bool:
    """Whether a warm-up with these durations (seconds) is over."""
    if len(durations) < 2:  # noqa: PLR2004 - agreement needs two
        return False
    last, before = durations[-1], durations[-2]
    agree = max(last, before) <= WARMUP_AGREEMENT * min(last, before)
    total = sum(durations)
    return (total >= WARMUP_SECONDS and agree) or total >= WARMUP_LIMIT_SECONDS
