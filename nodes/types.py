"""The sockets of this pack and the value that travels through ETA_INVERSION."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar

from comfy_api.latest import io
from torch import Tensor

from ..eta_core.methods import Method
from ..eta_core.trajectory import Trajectory
from . import host
from .checked import check_inputs
from .target_words import TargetWords

CATEGORY = f"{host.CATEGORY}/eta inversion"
InversionSocket = io.Custom("ETA_INVERSION")
EtaSocket = io.Custom("ETA_SCHEDULE")
EditSocket = io.Custom("ETA_EDIT")
PlaceSocket = io.Custom("ETA_PLACE")
ExamplesSocket = io.Custom("ETA_EXAMPLES")


class EtaNode(io.ComfyNode):
    """The base of every node of this pack. Its inputs are checked before `execute` gets them."""

    def __init_subclass__(cls, **options) -> None:
        super().__init_subclass__(**options)
        own = vars(cls).get("execute")
        if own is not None and not hasattr(own.__func__, "__wrapped__"):  # the host's clones have it already
            type.__setattr__(cls, "execute", classmethod(_checked(own.__func__)))

    if TYPE_CHECKING:
        # The host passes each input by its name, so every node has a signature of its own.
        execute: ClassVar[Callable[..., io.NodeOutput]]  # pyright: ignore[reportIncompatibleMethodOverride]
        validate_inputs: ClassVar[Callable[..., bool | str]]  # pyright: ignore[reportIncompatibleMethodOverride]
        fingerprint_inputs: ClassVar[Callable[..., object]]  # pyright: ignore[reportIncompatibleMethodOverride]


def _checked(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    @wraps(execute)
    def checked(cls, *args, **inputs):
        check_inputs(cls.SCHEMA or cls.define_schema(), inputs)
        return execute(cls, *args, **inputs)

    return checked


def schema(*, search: Sequence[str], **fields: Any) -> io.Schema:
    """io.Schema(**fields). `search`: other names for the node search, in hosts newer than 0.3.75."""
    if "search_aliases" in signature(io.Schema).parameters:
        fields["search_aliases"] = list(search)
    return io.Schema(**fields)


@dataclass(frozen=True, eq=False)
class Inversion:
    """An inverted picture and its source prompt's conditioning. It is never changed in place.

    texts: every text above EtaInversion, to look for the prompt in. They stay in this process.
    """

    trajectory: Trajectory
    positive: list
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class RegionEdit:
    """One of several edits of a picture: a target prompt with its own mask, eta, guidance and methods.

    overlap: how the mask meets those of the edits before it, a name of eta_core.masks.OVERLAP.
    """

    positive: list
    mask: Tensor
    eta_scale: float
    cfg: float
    overlap: str
    methods: tuple[Method, ...] = ()


@dataclass(frozen=True, eq=False)
class EditPlan:
    """What EtaSampler lays over an inversion.

    methods: for its own prompt. regions: further prompts in places of their own. words: of its own prompt,
    which join their place to its mask.
    """

    methods: tuple[Method, ...] = ()
    regions: tuple[RegionEdit, ...] = ()
    words: TargetWords | None = None

    def with_method(self, method: Method) -> EditPlan:
        """This edit with one method more. Raises ValueError where it has one of that kind."""
        kind = type(method).__name__
        if any(type(m) is type(method) for m in self.methods):
            raise ValueError(
                f"{kind} stands twice in this chain of edits: each method can be used once; remove one of "
                "the two nodes"
            )
        return replace(self, methods=(*self.methods, method))

    def with_words(self, words: TargetWords) -> EditPlan:
        """This edit with words of the target. Raises ValueError where it has some."""
        if self.words is not None:
            raise ValueError(
                "Eta Target Words stands twice in this chain of edits: name all words in one, with commas "
                "between, and remove the other"
            )
        return replace(self, words=words)

    def with_region(self, region: RegionEdit) -> EditPlan:
        return replace(self, regions=(*self.regions, region))


@dataclass(frozen=True, eq=False)
class Example:
    """A pair of prompts with its pictures [B, H, W, C] and mask, on which eta is tuned."""

    image: Tensor
    inversion: Inversion
    positive: list
    mask: Tensor
    edit: EditPlan | None = None
