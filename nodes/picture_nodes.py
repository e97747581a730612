"""EtaCrop, EtaStitch and EtaKeep: an edit in its place in the whole photograph, the rest left exact."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..eta_core.blend import Seam
from ..eta_core.keep import Kept, keep
from ..eta_core.place import SHAPES, Fit, crop, place, stitch
from . import host
from .types import CATEGORY, EtaNode, PlaceSocket, schema

PLAIN = Seam()
MEGAPIXEL = 1024 * 1024


def seam_inputs() -> list:
    """The inputs of a Seam."""
    return [
        io.Int.Input(
            "grow",
            default=PLAIN.grow,
            min=0,
            max=256,
            tooltip="Pixels of the source around the mask that show the edit in full. 0 = none.",
        ),
        io.Int.Input(
            "feather",
            default=PLAIN.feather,
            min=0,
            max=256,
            tooltip=(
                "Pixels around that in which the edit fades into the source. 0 = a hard edge. Beyond mask + "
                "grow + feather nothing changes."
            ),
        ),
        io.Float.Input(
            "match_colour",
            default=PLAIN.colour,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip=(
                "How far the edit's colours are moved so that they agree with the source's just outside the "
                "region. 0 = not at all, 1 = wholly."
            ),
        ),
        io.Float.Input(
            "grain",
            default=PLAIN.grain,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip=(
                "How much of the source's fine grain the edit is given where it has less. 0 = neutral, 1 = "
                "as much as there is just outside the region."
            ),
        ),
    ]


class EtaCrop(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaCrop",
            display_name="Eta Crop",
            category=CATEGORY,
            search=("inpaint crop", "crop and stitch", "crop by mask", "large photo", "detailer crop"),
            description=(
                "Cuts the part around the mask out of a photograph of any size and resizes it to what the "
                "model likes. Eta Stitch puts it back."
            ),
            inputs=[
                io.Image.Input("image", tooltip="The whole photograph at its full size."),
                io.Mask.Input(
                    "mask",
                    tooltip="The region to edit, of the photograph or of a small copy of it. 0 = keep.",
                ),
                io.Float.Input(
                    "megapixels",
                    default=1.0,
                    min=0.01,
                    max=16.0,
                    step=0.01,
                    tooltip="Area of the part that comes out. 0.25 for SD1, 1 for SDXL, SD3 and Flux.",
                ),
                io.Int.Input(
                    "multiple",
                    default=16,
                    min=1,
                    max=256,
                    tooltip="Both sides are multiples of it. 8 suits most models, 16 all, 64 the old ones.",
                ),
                io.Float.Input(
                    "context",
                    default=0.5,
                    min=0.0,
                    max=8.0,
                    step=0.05,
                    tooltip=(
                        "Room around the region, in parts of its longer side; never less than 48 pixels. "
                        "More = the model sees more of the scene and draws the region smaller."
                    ),
                ),
                io.Combo.Input(
                    "shape",
                    options=list(SHAPES),
                    default="region",
                    optional=True,
                    tooltip=(
                        "Shape of the part. region: that of the region with its context. picture: that of "
                        "the photograph. square: equal sides."
                    ),
                ),
                io.Boolean.Input(
                    "apart",
                    default=False,
                    optional=True,
                    tooltip="Each separate region becomes a part of its own, as a batch. Off = one part.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="part", tooltip="The part around the region, to edit."),
                io.Mask.Output(display_name="mask", tooltip="The region in the part."),
                PlaceSocket.Output(display_name="place", tooltip="Where the part belongs, for Eta Stitch."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, image, mask, megapixels, multiple, context, shape="region", apart=False
    ) -> io.NodeOutput:
        size, node_id = (image.shape[1], image.shape[2]), cls.hidden.unique_id
        region = host.fit_mask(mask, len(image), size, node_id).expand(len(image), -1, -1)
        fit = Fit(round(megapixels * MEGAPIXEL), multiple, context, shape, apart)
        where = place(region, fit)
        parts, regions = crop(image, where)
        high, wide = where.windows[0].mask.shape
        host.say(
            f"{len(where.windows)} part(s) of {where.size[1]}x{where.size[0]} pixels; the first is "
            f"{wide}x{high} in the photograph",
            node_id,
        )
        return io.NodeOutput(parts, regions, where)


class EtaStitch(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaStitch",
            display_name="Eta Stitch",
            category=CATEGORY,
            search=("inpaint stitch", "crop and stitch", "uncrop", "paste back", "composite"),
            description=(
                "Puts an edited part back into the photograph at its full size. Outside the mask and its "
                "declared seam every pixel is the source's own."
            ),
            inputs=[
                io.Image.Input("source", tooltip="The photograph that went into Eta Crop."),
                io.Image.Input(
                    "edited",
                    tooltip="The part after the edit, by any editor and at any size of the same shape.",
                ),
                PlaceSocket.Input("place", tooltip="Eta Crop's place."),
                *seam_inputs(),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The whole photograph with the edit in it."),
                io.Mask.Output(
                    display_name="region",
                    tooltip="How much of the edit shows. Where it is 0, the source's pixels are untouched.",
                ),
            ],
        )

    @classmethod
    def execute(cls, source, edited, place, grow, feather, match_colour, grain) -> io.NodeOutput:
        return io.NodeOutput(*stitch(source, edited, place, Seam(grow, feather, match_colour, grain)))


class EtaKeep(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaKeep",
            display_name="Eta Keep",
            category=CATEGORY,
            search=(
                "keep original pixels",
                "align edit",
                "fix zoom and shift",
                "color drift",
                "Kontext",
                "Qwen edit",
            ),
            description=(
                "Takes from any editor's picture only what it changed. Finds its shift, zoom and tint, and "
                "the changed region; every other pixel is the source's own."
            ),
            inputs=[
                io.Image.Input("source", tooltip="The photograph before the edit, at its full size."),
                io.Image.Input(
                    "edited", tooltip="The whole picture after the edit, by any editor and at any size."
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="What may change. Without it the changed region is looked for.",
                ),
                *seam_inputs(),
                io.Boolean.Input(
                    "align",
                    default=True,
                    tooltip="Look for a shift and zoom of the edit and undo it. Off = take it as it lies.",
                ),
                io.Float.Input(
                    "limit",
                    default=5.0,
                    min=0.0,
                    max=20.0,
                    step=0.5,
                    tooltip=(
                        "The largest shift (percent of the longer side) and zoom (percent) that is undone; "
                        "beyond it the edit is refused, with the figure."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The source with the changed region in it."),
                io.Mask.Output(display_name="mask", tooltip="The region that changed, or your mask."),
                io.Image.Output(
                    display_name="aligned",
                    tooltip="The whole edit as it lies on the source, its tint undone.",
                ),
                io.Mask.Output(
                    display_name="region",
                    tooltip="How much of the edit shows. Where it is 0, the source's pixels are untouched.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, source, edited, grow, feather, match_colour, grain, align, limit, mask=None
    ) -> io.NodeOutput:
        node_id, size = cls.hidden.unique_id, (source.shape[1], source.shape[2])
        if len(source) not in (1, len(edited)):
            raise ValueError(
                f"source has {len(source)} pictures, edited {len(edited)}: give one source, or one for each "
                "edited picture"
            )
        if mask is not None:
            mask = host.fit_mask(mask, len(edited), size, node_id).expand(len(edited), -1, -1)
        seam, kept = Seam(grow, feather, match_colour, grain), []
        for i in host.counted(len(edited)):
            own = None if mask is None else mask[i]
            kept.append(keep(source[i % len(source)], edited[i], seam, own, limit, align))
            _tell(i, kept[-1], node_id)
        return io.NodeOutput(
            *(
                values[0][None] if len(values) == 1 else torch.stack(values)
                for values in zip(*((k.picture, k.mask, k.aligned, k.shown) for k in kept))
            )
        )


def _tell(number: int, kept: Kept, node_id: str | None) -> None:
    (down, across), (zoom_y, zoom_x) = kept.move.shift, kept.move.zoom
    host.say(
        f"picture {number + 1}: the edit was shifted by {across:+.1f}, {down:+.1f} pixels and zoomed by "
        f"{100 * (zoom_x - 1):+.2f}, {100 * (zoom_y - 1):+.2f} percent; {100 * float(kept.mask.mean()):.1f} "
        "percent of the picture changed",
        node_id,
    )
    if not bool(kept.mask.any()):
        host.warn(f"picture {number + 1}: nothing changed, so the source comes out as it is", node_id)


NODES = [EtaCrop, EtaStitch, EtaKeep]
