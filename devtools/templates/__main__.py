"""Write example_workflows/NAME.json: python -m devtools.templates [NAME ...]"""

from __future__ import annotations

import sys

from ..environment import ROOT
from . import TEMPLATES, drawn

if __name__ == "__main__":
    names, sys.argv = sys.argv[1:], sys.argv[:1]  # the host reads it
    from ..demo.studio import open_studio

    info = open_studio().host.object_info()
    for name in names or TEMPLATES:
        (ROOT / "example_workflows" / f"{name}.json").write_text(drawn(name, info), encoding="utf-8")
