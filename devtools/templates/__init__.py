"""The example workflows: a note and the nodes of each, in reading order.

Settings that are not named are the nodes' defaults. `python -m devtools.templates` writes the files.
"""

from . import guided, judged, masks, methods, one_thing, several, whole
from .sheet import Sheet

GROUPS = (one_thing, masks, whole, methods, several, judged, guided)
# name -> its note, and the function that adds its nodes to a sheet
TEMPLATES = {name: template for group in GROUPS for name, template in group.TEMPLATES.items()}


def drawn(name: str, info: dict) -> str:
    """The file of a template. info: what the host says of its nodes."""
    note, draw = TEMPLATES[name]
    sheet = Sheet(name, info, note)
    draw(sheet)
    return sheet.text()
