"""The sockets of this pack and the value that travels through ETA_INVERSION."""

from __future__ import annotations

from dataclasses import dataclass

from comfy_api.latest import io

from ..eta_core.trajectory import Trajectory

CATEGORY = "sampling/eta inversion"
InversionSocket = io.Custom("ETA_INVERSION")
EtaSocket = io.Custom("ETA_SCHEDULE")


@dataclass(frozen=True, eq=False)
class Inversion:
    """An inverted picture with the source conditioning its source branch is sampled under. Never changed in place."""

    trajectory: Trajectory
    positive: list
