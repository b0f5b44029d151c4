"""What a test sees of one workload of a case: figures worked out from its record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pytest_rwkvperf.core.cases import Workload
from pytest_rwkvperf.machine import probe_work, roofline
from pytest_rwkvperf.machine.roofline import Ceilings
from pytest_rwkvperf.measure.record import Pairing
from pytest_rwkvperf.stats.estimates import estimate_rate
from pytest_rwkvperf.stats.shrinkage import PROCESS_PRIOR
from pytest_rwkvperf.worker.protocol import share_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_rwkvperf.core.samples import Sample
    from pytest_rwkvperf.machine.conditions import Conditions
    from pytest_rwkvperf.machine.cupti import DeviceTime
    from pytest_rwkvperf.measure.record import CaseRecord, Energy
    from pytest_rwkvperf.stats.estimates import Rate


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak memory of the workers, resident and on the GPU, and the model file's size; bytes.

    `peak_device_bytes` is None off a GPU, and where its driver does not report it.
    """

    peak_rss_bytes: int
    file_bytes: int
    peak_device_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One workload of a case, as a test sees it."""

    record: CaseRecord
    workload: Workload

    @property
    def samples(self) -> tuple[tuple[Sample, ...], ...]:
        """Raw samples by process, in order."""
        return tuple(run.samples[str(self.workload)] for run in self.record.runs)

    @property
    def tokens_per_second(self) -> Rate:
        """Throughput in tokens per second with its 95 % interval, of repetitions with quick handovers between threads.

        Of a batch those of all sequences.

        Raises:
            MeasurementError: the samples carry no figure.
        """
        prior = self.record.process_spread.get(self.workload.kind, PROCESS_PRIOR)
        return estimate_rate(self.record.steady_times(self.workload), self.workload.total_tokens, prior)

    @property
    def memory(self) -> Memory:
        """Peak memory and file size."""
        peak = max(run.peak_rss_bytes for run in self.record.runs)
        return Memory(peak, self.record.model.file_bytes, self.record.gpu.peak_bytes if self.record.gpu else None)

    @property
    def roofline_share(self) -> float | None:
        """MBU of a generation, MFU of a prefill, 0..1 of this device's measured ceilings; None without ceilings."""
        work, ceilings = self.record.work, ceilings_of(self.record)
        if work is None or ceilings is None:
            return None
        rate, batch = self.tokens_per_second.median, self.workload.batch
        if self.workload.kind == "generation":
            return roofline.bandwidth_share(work, ceilings, rate, batch) if ceilings.copy_bytes_per_second else None
        share = share_of(self.record.case.chunk, batch)
        return roofline.compute_share(work, ceilings, self.workload.tokens, share, rate)

    @property
    def joules_per_token(self) -> float | None:
        """The GPU's energy per token, its idle power included."""
        energy = self._energy
        return energy.joules / energy.tokens if energy else None

    @property
    def net_joules_per_token(self) -> float | None:
        """The GPU's energy per token without its idle power."""
        energy, idle = self._energy, self.record.gpu.idle_watts if self.record.gpu else None
        return (energy.joules - idle * energy.seconds) / energy.tokens if energy and idle is not None else None

    @property
    def utilisation(self) -> float | None:
        """Share of the time, 0..1, that the GPU ran any kernel during the samples (NVML's own figure)."""
        if self.record.gpu is None:
            return None
        spans = [(sample.started, sample.started + sample.nanoseconds / 1e9) for row in self.samples for sample in row]
        return self.record.gpu.utilisation(spans)

    @property
    def device_seconds_per_token(self) -> float | None:
        """How long the device computed or copied per token, as CUPTI recorded it."""
        recorded = self.device_time
        return recorded.busy_nanoseconds / 1e9 / recorded.tokens if recorded else None

    @property
    def device_share(self) -> float | None:
        """The device's share, 0..1, of the median repetition's time, which was timed without CUPTI."""
        seconds = self.device_seconds_per_token
        return None if seconds is None else seconds * self.workload.total_tokens / self._median_seconds

    @property
    def device_time(self) -> DeviceTime | None:
        """What CUPTI recorded of the workload; None where it recorded nothing."""
        name = str(self.workload)
        return next((run.device_time[name] for run in self.record.runs if name in run.device_time), None)

    @property
    def _energy(self) -> Energy | None:
        name = str(self.workload)
        if self.workload.depth:  # it would include the energy of the context
            return None
        return next((run.energy[name] for run in self.record.runs if name in run.energy), None)

    @property
    def _median_seconds(self) -> float:
        """The median over the processes of the median repetition's time."""
        return float(np.median([np.median(row) for row in self.record.times(self.workload)])) / 1e9

    @property
    def conditions(self) -> Conditions:
        """The machine's load, clock and limits meanwhile."""
        return self.record.conditions

    @property
    def load_seconds(self) -> float:
        """Median time to load the model, in seconds."""
        return float(np.median([run.load_nanoseconds for run in self.record.runs])) / 1e9

    @property
    def time_to_first_token_seconds(self) -> float | None:
        """Prefill only: median time from the prompt's start to its last token's logits on the host, in seconds."""
        return self._median_seconds if self.workload.kind == "prefill" else None

    def inter_token_latency_seconds(self, percentiles: Sequence[float] = (50, 99)) -> tuple[float, ...] | None:
        """Generation only: percentiles of every step's time over all processes, in seconds.

        A step generates one token of each sequence.
        """
        if self.workload.kind != "generation":
            return None
        shares = [share for row in self.samples for sample in row for share in sample.token_nanoseconds]
        if not shares:  # a tool that prints whole repetitions only
            return None
        return tuple(float(value) / 1e9 for value in np.percentile(shares, list(percentiles)))


def ceilings_of(record: CaseRecord) -> Ceilings | None:
    """What a case's device can reach: a GPU's measured ceilings; a CPU's from its probes' fastest times on all threads.

    None where neither is known.
    """
    if record.ceilings is not None:
        return record.ceilings
    reaches = [run.reach for run in record.runs if run.reach]
    if not reaches:
        return None
    threads = record.case.threads
    sweep, product = (min(reach[kind] for reach in reaches) / 1e9 for kind in ("sweep", "product"))
    return Ceilings(
        threads * probe_work.SWEPT_BYTES / sweep,
        {"fp32": threads * probe_work.PRODUCT_OPERATIONS / product},
        f"NumPy, {threads} threads",
    )


def _precision(rate: Rate) -> str:
    if rate.half_width is None:
        return ""
    # Of two very unequal processes the width is a figure of hundreds of digits.
    return ", interval unusable" if rate.unusable else f" ± {rate.half_width:.1%}"


def summary(measured: CaseRecord | Pairing, label: str) -> str:
    """One line about a case that has just been measured; of a pairing, its new side. `label` names the case."""
    record = measured.new if isinstance(measured, Pairing) else measured
    figures = ", ".join(
        f"{name} {rate.median:.1f} t/s{_precision(rate)}"
        for name in record.runs[0].samples
        for rate in [Measurement(record, Workload.parse(name)).tokens_per_second]
    )
    return f"{label}: {figures}; {len(record.runs)} processes, ended by {record.ended_by}"
