"""What is done when the device's memory does not suffice for a network call."""

from __future__ import annotations

import gc

from comfy import model_management
from comfy.patcher_extension import WrappersMP, add_wrapper

from .messages import warn

# Newer hosts also take some errors of the accelerator for it; `is_out_of_memory` tells which.
MEMORY_ERRORS = (
    model_management.OOM_EXCEPTION,
    getattr(model_management, "ACCELERATOR_ERROR", model_management.OOM_EXCEPTION),
)
NO_WAY = (
    "Out of memory with one branch alone, the least that can be asked for: take a smaller picture, or fewer "
    "at once, leave out editing methods, or start ComfyUI with --lowvram"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the host takes an error for a lack of memory."""
    of_host = getattr(model_management, "is_oom", None)
    return isinstance(error, model_management.OOM_EXCEPTION) if of_host is None else of_host(error)


def make_room(message: str) -> None:
    """Say what follows, and free what the failed call left. Call it after the `except`, which holds that."""
    warn(message)
    gc.collect()
    model_management.soft_empty_cache()


def ask_apart(options: dict) -> None:
    """Have the prompt and the negative of a call go through the network one after the other."""
    add_wrapper(WrappersMP.CALC_COND_BATCH, _one_after_the_other, options, is_model_options=True)


def _one_after_the_other(executor, model, conds, *args):
    if sum(cond is not None for cond in conds) < 2:
        return executor(model, conds, *args)
    alone = ([cond if i == j else None for j, cond in enumerate(conds)] for i in range(len(conds)))
    return [executor(model, each, *args)[i] for i, each in enumerate(alone)]
