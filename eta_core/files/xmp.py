"""The XMP packet that says how a picture came about (IPTC Photo Metadata 2025.1)."""

from __future__ import annotations

import contextlib
import io
import xml.etree.ElementTree as ElementTree
from xml.etree.ElementTree import Element, SubElement

from .agent import NAME, version

MOST_BYTES = 1_000_000
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
META = "adobe:ns:meta/"
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
NOTE = "http://ns.adobe.com/xmp/note/"
ABOUT = f"{{{RDF}}}about"
SOURCE_TYPE = f"{{{IPTC}}}DigitalSourceType"
EXTENDED = f"{{{NOTE}}}HasExtendedXMP"
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
EDITED_BY_MODEL = f"{SOURCE_TYPES}compositeWithTrainedAlgorithmicMedia"
MADE_BY_MODEL = f"{SOURCE_TYPES}trainedAlgorithmicMedia"  # an edit does not make it less so
BEGIN = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>'
END = b'<?xpacket end="w"?>'


def packet(source: bytes | None, prompt: str = "") -> tuple[bytes, str]:
    """The source's XMP with the marks of an edit by a model, and what of it could not be kept.

    prompt: the instruction, where it is to be told.
    """
    tree, lost = _read(source)
    rdf = next(tree.iter(f"{{{RDF}}}RDF"))
    kind = MADE_BY_MODEL if source_type_of(tree) == MADE_BY_MODEL else EDITED_BY_MODEL
    marks = {
        SOURCE_TYPE: kind,
        f"{{{IPTC}}}AISystemUsed": NAME,
        f"{{{IPTC}}}AISystemVersionUsed": version(),
    }
    if prompt:
        marks[f"{{{IPTC}}}AIPromptInformation"] = prompt
    if _take_out(rdf, {*marks, EXTENDED}) & {EXTENDED}:
        lost = "the second part of its XMP"
    own = SubElement(rdf, f"{{{RDF}}}Description", {ABOUT: ""})
    for name, value in marks.items():
        SubElement(own, name).text = value
    return BEGIN + ElementTree.tostring(tree, encoding="utf-8") + END, lost


def source_type(content: bytes | None) -> str:
    """The digital source type that a packet names; empty where it names none or cannot be read."""
    return source_type_of(_read(content)[0])


def source_type_of(tree: Element) -> str:
    for found in tree.iter(f"{{{RDF}}}Description"):
        for value in (found.get(SOURCE_TYPE), *(child.text for child in found.findall(SOURCE_TYPE))):
            if value:
                return value.strip()
        for child in found.findall(SOURCE_TYPE):
            if link := child.get(f"{{{RDF}}}resource"):
                return link.strip()
    return ""


def _read(content: bytes | None) -> tuple[Element, str]:
    """The packet's tree, and why a new one stands for it."""
    if not content:
        return _new(), ""
    if len(content) > MOST_BYTES or b"<!" in content.replace(b"<!--", b""):  # entities can grow without end
        return _new(), "its XMP, which is not plain"
    try:
        stream = io.BytesIO(content.strip(b"\0 \r\n\t"))
        events = ElementTree.iterparse(stream, events=("start-ns", "end"))
        found = None
        for event, value in events:
            if event == "start-ns":
                _keep_prefix(*value)
            else:
                found = value
    except (ElementTree.ParseError, ValueError) as error:
        return _new(), f"its XMP, which cannot be read ({error})"
    if found is None or next(found.iter(f"{{{RDF}}}RDF"), None) is None:
        return _new(), "its XMP, which holds no RDF"
    return found, ""


def _keep_prefix(prefix: str, address: str) -> None:
    with contextlib.suppress(ValueError):  # ns0 and the like are ElementTree's own
        ElementTree.register_namespace(prefix, address)


def _new() -> Element:
    tree = Element(f"{{{META}}}xmpmeta")
    SubElement(tree, f"{{{RDF}}}RDF")
    return tree


def _take_out(rdf: Element, names: set[str]) -> set[str]:
    """Remove these properties, written as attributes or as elements; returns those that were there."""
    found = set()
    for description in rdf.iter(f"{{{RDF}}}Description"):
        for name in names & set(description.attrib):
            del description.attrib[name]
            found.add(name)
        for child in [child for child in description if child.tag in names]:
            description.remove(child)
            found.add(child.tag)
    return found


for _prefix, _address in (("x", META), ("rdf", RDF), ("Iptc4xmpExt", IPTC)):
    ElementTree.register_namespace(_prefix, _address)
