"""Models that are distilled to jump from a step's start to its end."""

from __future__ import annotations

from .base import is_of


def jumps_over_steps(model) -> bool:
    """Whether the network of a MODEL is told where a step ends, so that an inversion cannot ask it.

    HunyuanImage 2.1 says so in its parameters. How a host tells the distilled Flux.3 Klein from the base
    model is not known here: whatever of it is named distilled, or has such a flag, counts.
    """
    network = model.get_model_object("diffusion_model")
    if getattr(getattr(network, "params", None), "meanflow", False):
        return True
    if not is_of(model, "flux3"):
        return False
    parts = [network, getattr(network, "params", None), model.model, model.model.model_config]
    names = [type(part).__name__ for part in parts]
    names += [
        name for part in parts for name, value in getattr(part, "__dict__", {}).items() if value is True
    ]
    return any("distill" in name.lower() for name in names)
