"""What only developers run: the host in this process, the embedded model, the bench, pictures and checks.

Tests import this package; it imports none of them, and nothing that is shipped imports it. One import gives a
script the whole laboratory, for instance to reproduce a bug:

    from devtools import open_studio

    studio = open_studio()                       # boots the real ComfyUI and loads the embedded model
    inversion = studio.invert()                  # one call for each node; name only the inputs that matter
    mask, heatmap = studio.region(inversion, "cat", threshold=0.4)
    edited = studio.edit(inversion, mask=mask, background_lock=1.0)
    print(studio.decode(edited).shape)           # pictures [1, 128, 128, 3]

Run it with the Python that `python dev.py env` names, from the root of the repository.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .demo.studio import DemoStudio


def open_studio() -> DemoStudio:
    """A studio on the embedded model, in a host booted on a temporary base directory."""
    from .demo.studio import open_studio

    return open_studio()
