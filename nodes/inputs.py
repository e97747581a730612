"""Inputs and outputs that several nodes have."""

from comfy_api.latest import io

MOST_SEED = 0xFFFFFFFFFFFFFFFF


def guidance_input(tooltip: str, default: float = 7.5, most: float = 100.0) -> io.Float.Input:
    return io.Float.Input("cfg", default=default, min=0.0, max=most, step=0.1, tooltip=tooltip)


def seed_input(tooltip: str) -> io.Int.Input:
    return io.Int.Input("seed", default=0, min=0, max=MOST_SEED, control_after_generate=True, tooltip=tooltip)


def used_mask_output() -> io.Mask.Output:
    return io.Mask.Output(
        display_name="mask",
        tooltip=(
            "The mask that was used in the end: all masks together, and what Eta Target Words joined to "
            "them. Full picture size, one for each edit; 1 everywhere where there are none."
        ),
    )
