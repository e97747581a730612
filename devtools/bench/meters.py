"""Clocks and memory, of this process and of a GPU."""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from typing import Protocol

import torch


class Meter(Protocol):
    """Seconds, and memory in MB."""

    def seconds(self) -> float: ...

    def settled(self) -> float:
        """What is taken once freed memory is given back; the peak counts from here."""
        ...

    def peak(self) -> float: ...


class ProcessMeter:
    """CPU time and resident memory of this process; other programs do not lengthen the former."""

    def seconds(self) -> float:
        return time.process_time()

    def settled(self) -> float:
        gc.collect()
        if sys.platform != "linux":
            return float("nan")
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as peak:
            peak.write("5")
        return memory("VmRSS")

    def peak(self) -> float:
        return memory("VmHWM")


class GpuMeter:
    """The wall clock once the GPU is done, and the GPU's memory."""

    def seconds(self) -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    def settled(self) -> float:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20

    def peak(self) -> float:
        return torch.cuda.max_memory_allocated() / 2**20


def memory(name: str) -> float:
    if sys.platform != "linux":
        return float("nan")
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(name))
