"""The tables of docs/benchmarks.md, measured in the real host on the embedded model:
python dev.py bench [curves] [methods] [proof] [full_size] [keep] [cost] [regions] [pilot] [scale]

curves   pairs of words swapped in unseen scenes: success by the judge against background PSNR, over the
         strength knob of each of this pack's ways and of the host's
methods  the same scenes: each editing method, with eta 0 and the paper's two, everywhere, in the mask, and
         with the lock
proof    every way at its best settings against the right answer: success, background, truth, structure,
         naturalness
keep     planted edits, shifted, zoomed and tinted: what EtaKeep finds of each; 24 megapixels: time, memory
regions  a word's region and the edit's own: against the true outline, and what an edit makes of them
pilot    a run on two servers against the same on one
scale    a run of --rows items without a server: time and memory of what reads or writes them all
full_size  scenes drawn large, edited in a crop and put back: what stays exact, and how the seam looks
cost     network evaluations, time for each against the stock KSampler in the same run, peak memory; growth
         with steps, size, batch and edits. --size sd15, sdxl or flux: a random network of that size, on this
         machine's GPU
Everything goes to --out (bench-output): a table, the raw figures, pictures.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..demo import scenes
from ..demo.studio import open_studio
from ..environment import ROOT
from .cost import cost
from .curves import curves
from .full_size import full_size
from .keep import search
from .methods import methods
from .proof import proof
from .regions import regions
from .scale import scale
from .servers import servers
from .true_size import SIZES, true_size_cost

TABLES = {
    "cost": cost,
    "curves": curves,
    "full_size": full_size,
    "keep": search,
    "methods": methods,
    "proof": proof,
    "regions": regions,
}  # cost first: it wants the checkpoint itself
OF_RUNS = {"pilot": servers, "scale": scale}  # with servers of their own, or none


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", metavar="|".join((*TABLES, *OF_RUNS)), help="default: all")
    parser.add_argument(
        "--scenes", type=int, default=10, help="of curves and methods; shared out over ten swaps"
    )
    parser.add_argument(
        "--test-scenes",
        type=int,
        default=50,
        help=("of proof, full_size and regions; --scenes are its validation scenes"),
    )
    parser.add_argument("--rows", type=int, default=200_000, help="of scale")
    parser.add_argument("--steps", type=int, default=20, help="of curves and methods")
    parser.add_argument("--rounds", type=int, default=2, help="of cost and pilot; the fewest seconds count")
    parser.add_argument(
        "--size", choices=("embedded", *SIZES), default="embedded", help="of cost: the network that is run"
    )
    parser.add_argument(
        "--validation",
        action="store_true",
        help="scenes of the validation range, for tuning; never report these",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench-output")
    options = parser.parse_args()
    for name in options.tables:
        if name not in (*TABLES, *OF_RUNS):
            parser.error(f"no table {name!r}: choose from {', '.join((*TABLES, *OF_RUNS))}")
    options.first_seed = scenes.VALIDATION if options.validation else scenes.TEST
    options.out.mkdir(parents=True, exist_ok=True)
    sys.argv = sys.argv[:1]  # the host reads it
    if options.size != "embedded":
        if options.tables != ["cost"]:
            parser.error("--size is for the table cost alone")
        report(options.out / f"cost-{options.size}.md", true_size_cost(options.size, options.rounds))
        return
    wanted = options.tables or [*TABLES, *OF_RUNS]
    for name in filter(wanted.__contains__, OF_RUNS):
        report(options.out / f"{name}.md", OF_RUNS[name](options))
    studio = open_studio() if set(wanted) & set(TABLES) else None
    for name in filter(wanted.__contains__, TABLES):
        report(options.out / f"{name}.md", TABLES[name](studio, options))


def report(path: Path, lines: list[str]) -> None:
    text = "\n".join(lines) + "\n"
    path.write_text(text)
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    main()
