"""EtaSaveEdited: the edit as a file that keeps what the photograph's carries and says what it is."""

from __future__ import annotations

from collections.abc import Iterator

from comfy_api.latest import io

from ..eta_core.files import KINDS, LOSSLESS
from . import host
from .types import CATEGORY, EtaNode, schema


class EtaSaveEdited(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaSaveEdited",
            display_name="Save Edited Image",
            category=CATEGORY,
            search=(
                "save image",
                "save jpeg",
                "save webp",
                "keep exif",
                "content credentials",
                "C2PA",
                "metadata",
            ),
            description=(
                "Saves an edit with the colour profile, density, EXIF and transparency of the photograph's "
                "file. The file says that a model edited it, and is signed where a certificate is set up."
            ),
            inputs=[
                io.Image.Input("images", tooltip="The edited pictures."),
                io.String.Input(
                    "filename_prefix",
                    default="eta/edited",
                    tooltip="File name below the output folder; a number is added.",
                ),
                io.Combo.Input(
                    "source_file",
                    options=[host.FROM_GRAPH, host.NO_FILE, *host.input_pictures()],
                    default=host.FROM_GRAPH,
                    tooltip=(
                        "The photograph's file. from Load Image = that of the one Load Image above. none = "
                        "nothing is kept, and the file is not signed."
                    ),
                ),
                io.Combo.Input(
                    "format",
                    options=list(KINDS),
                    default="png",
                    tooltip=(
                        "png keeps every pixel. webp does at quality 100. jpeg never does: it changes "
                        "pixels outside the region a little, too."
                    ),
                ),
                io.Int.Input(
                    "quality",
                    default=LOSSLESS,
                    min=1,
                    max=LOSSLESS,
                    tooltip="Of webp and jpeg; png is always exact. 100 = best, and exact as webp.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip=(
                        "The region that was edited, for the Content Credentials. Not connected = not told."
                    ),
                ),
                io.String.Input(
                    "instruction",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Told in the file as the prompt of the edit. Empty = no prompt is told.",
                ),
                io.Boolean.Input(
                    "workflow",
                    default=False,
                    optional=True,
                    tooltip=(
                        "Put the workflow into a png, to open it from the picture. It holds all prompts and "
                        "file names. Off = neutral."
                    ),
                ),
            ],
            outputs=[],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, source_file) -> bool | str:
        if source_file in (None, host.FROM_GRAPH, host.NO_FILE):  # None: linked, known when it runs
            return True
        try:
            host.picture_path(source_file)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, source_file, **inputs) -> str:
        if source_file in (None, host.FROM_GRAPH, host.NO_FILE):  # Load Image has its own
            return ""
        status = host.picture_path(source_file).stat()
        return f"{status.st_mtime_ns}-{status.st_size}"

    @classmethod
    def execute(
        cls, images, filename_prefix, source_file, format, quality, mask=None, instruction="", workflow=False
    ) -> io.NodeOutput:
        hidden, node_id = cls.hidden, cls.hidden.unique_id
        if not len(images):
            raise ValueError("images holds no picture (a batch of 0): connect at least one")
        regions = [None] if mask is None else host.beside(mask, len(images), "mask")
        original = host.source_file(hidden.dynprompt, node_id, "images", source_file)
        signer = host.find_signer()
        texts = list(_workflow(hidden)) if workflow else []
        saved = []
        for i in host.counted(len(images)):
            region = regions[i % len(regions)]
            saved.append(
                host.save_edited(
                    images[i], filename_prefix, format, quality, original, signer, region, instruction, texts
                )
            )
        _tell(saved, signer is not None, node_id)
        shown = [{"filename": s.name, "subfolder": s.subfolder, "type": "output"} for s in saved]
        return io.NodeOutput(ui={"images": shown})


def _tell(saved: list[host.Saved], has_signer: bool, node_id: str | None) -> None:
    first = saved[0]
    if first.lost:
        host.warn(f"the photograph's file loses {'; '.join(first.lost)}", node_id)
    speak = host.warn if first.unsigned and has_signer else host.say
    speak(f"{len(saved)} saved, {f'not signed: {first.unsigned}' if first.unsigned else 'signed'}", node_id)


def _workflow(hidden) -> Iterator[tuple[str, object]]:
    """The graph as the host's own Save Image writes it."""
    if hidden.prompt:
        yield "prompt", hidden.prompt
    yield from (hidden.extra_pnginfo or {}).items()


NODES = [EtaSaveEdited]
