"""Does the embedded flow model do what its card says? python -m devtools.acceptance_flow [--out DIR]

In the environment of dev.py. Everything goes through the host's own nodes, on scenes of the test range; the
word map's threshold is fixed on validation scenes before. Exit status 1 when a required figure is missed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .acceptance import attention_by_threshold, autoencoder_psnr, sampled
from .demo import pack, scenes
from .demo.studio import open_flow_studio
from .environment import ROOT

REQUIRED = {"sampled thing %": 85.0, "sampled background %": 90.0, "attention IoU": 0.5}
VALIDATION_SCENES, SCENES = 20, 50
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench-output")
    parser.add_argument("--weights", type=Path, default=pack.FLOW)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sys.argv = sys.argv[:1]  # the host reads it
    studio = open_flow_studio(options.weights)
    figures = autoencoder_psnr(studio) | sampled(studio, options.out)
    by_threshold = attention_by_threshold(studio, VALIDATION_SCENES, scenes.VALIDATION, THRESHOLDS)
    fixed = max(by_threshold, key=lambda threshold: by_threshold[threshold])
    figures["attention IoU"] = attention_by_threshold(studio, SCENES, scenes.TEST, (fixed,))[fixed]
    print((options.out / "confusion.md").read_text())
    print(f"threshold fixed on validation: {fixed:g}")
    missed = [name for name, value in figures.items() if value < REQUIRED.get(name, 0)]
    for name, value in figures.items():
        print(f"{name}: {value:.2f}{'  MISSED' if name in missed else ''}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
