"""The example workflows are as devtools/templates draws them."""

import pytest

from devtools.environment import ROOT
from devtools.templates import TEMPLATES, drawn

FOLDER = ROOT / "example_workflows"
OF_NEWER = "With SAM's mask"  # drawn by 0.33, whose nodes have more outputs


def test_every_template_is_drawn_and_none_else():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(TEMPLATES)


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != OF_NEWER])
def test_a_template_is_what_is_drawn(host, name):
    from comfyui_version import __version__  # the host's

    if __version__ != "0.3.75":
        pytest.skip("the templates were drawn by ComfyUI 0.3.75")
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == drawn(name, host.object_info())
