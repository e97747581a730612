"""The command line of policies: copy, show, trust."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import policy, trust


def add(parsers) -> None:
    """The parser of `policy`, beside those of the run."""
    parser = parsers.add_parser("policy", help="the rules of a use, as a file", allow_abbrev=False)
    which = parser.add_subparsers(required=True, metavar="copy|show|trust")
    names = ", ".join(policy.TEMPLATES)
    new = which.add_parser("copy", help="writes a template to edit", allow_abbrev=False)
    new.add_argument("name", metavar="NAME", help=names)
    new.add_argument("file", type=Path, metavar="FILE")
    new.set_defaults(command=_copy)
    told = which.add_parser("show", help="says a policy in words, with its version", allow_abbrev=False)
    told.add_argument("name", metavar="NAME|FILE", help=f"{names}, or a file")
    told.set_defaults(command=_show)
    models = which.add_parser(
        "trust", help="adds the weights of a run that met the policy to its list", allow_abbrev=False
    )
    models.add_argument("name", metavar="FILE")
    models.add_argument("--run", type=Path, required=True, metavar="DIR")
    models.add_argument("--operator", default="", metavar="NAME", help="who says so: written down")
    models.set_defaults(command=_trust)


def _copy(options: argparse.Namespace) -> None:
    policy.copy(options.name, options.file)
    print(f"{options.file}: edit it, then python pilot run ... --policy {options.file}")
    print('"models": [] lets no model run unchecked; take the line out to allow any')


def _show(options: argparse.Namespace) -> None:
    print("\n".join(policy.words(policy.load(options.name))))


def _trust(options: argparse.Namespace) -> None:
    print(trust.add(options.name, options.run, options.operator.strip()))
