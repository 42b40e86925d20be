"""XMP: a packet of RDF that tells what a file is, written and read without a library."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from wanimate.errors import InputError, one_line
from wanimate.provenance.about import About
from wanimate.provenance.boxes import LARGEST

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
XMP = "http://ns.adobe.com/xap/1.0/"
MEDIA = "http://ns.adobe.com/xap/1.0/mm/"
DC = "http://purl.org/dc/elements/1.1/"
AIGC = "http://www.tc260.org.cn/ns/AIGC/1.0/"
"""China's committee TC260."""
FIELDS = (
    "Label", "ContentProducer", "ProduceID", "ReservedCode1", "ContentPropagator", "PropagateID", "ReservedCode2",
)  # fmt: skip
"""Of the AIGC key (GB 45438-2025)."""


@dataclass(frozen=True)
class Told:
    """What a packet says; None where it says nothing of it. aigc: the fields of the AIGC key."""

    source_type: str | None = None
    tool: str | None = None
    created: str | None = None
    document: str | None = None
    aigc: dict[str, str] | None = None


def aigc(about: About, producer: str) -> str:
    """China's AIGC key. Label 1 says that the content is generated. At first writing the propagator is the producer."""
    values = ("1", producer, about.id, "", producer, about.id, "")
    for name, value in zip(FIELDS, values, strict=True):
        if not re.fullmatch(r"[\x20-\x7e]*", value):
            raise InputError(
                "marks.producer", value, f"{name} holds printable ASCII only", "Write it in Latin letters."
            )
    return json.dumps({"AIGC": dict(zip(FIELDS, values, strict=True))}, separators=(",", ":"))


def packet(about: About, producer: str, form: str) -> bytes:
    """The packet for a result. `form`: its media type ("video/mp4").

    Raises:
        InputError: the producer's name is no printable ASCII.
    """
    made = about.made.isoformat(timespec="seconds")
    return f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="{escape(about.tool)}">
 <rdf:RDF xmlns:rdf="{RDF}">
  <rdf:Description rdf:about=""
    xmlns:xmp="{XMP}" xmlns:xmpMM="{MEDIA}" xmlns:dc="{DC}"
    xmlns:Iptc4xmpExt="{IPTC}" xmlns:TC260="{AIGC}">
   <xmp:CreatorTool>{escape(about.tool)}</xmp:CreatorTool>
   <xmp:CreateDate>{made}</xmp:CreateDate>
   <dc:format>{escape(form)}</dc:format>
   <dc:publisher><rdf:Bag><rdf:li>{escape(producer)}</rdf:li></rdf:Bag></dc:publisher>
   <xmpMM:DocumentID>xmp.did:{escape(about.id)}</xmpMM:DocumentID>
   <Iptc4xmpExt:DigitalSourceType>{about.source_type}</Iptc4xmpExt:DigitalSourceType>
   <TC260:AIGC>{escape(aigc(about, producer))}</TC260:AIGC>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>""".encode()


def read(data: bytes) -> Told:
    """What a packet says. It can come from anybody.

    Raises:
        ValueError: it is no XMP, is too large, or defines entities. The message is a phrase.
    """
    if len(data) > LARGEST:
        raise ValueError("it is larger than 1 MB")
    if re.search(rb"<!DOCTYPE|<!ENTITY", data, re.IGNORECASE):
        raise ValueError("it defines entities")
    try:
        root = ElementTree.fromstring(re.sub(rb"<\?xpacket.*?\?>", b"", data, flags=re.DOTALL).strip(b"\0 \r\n\t"))
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise ValueError(f"it is no XML ({one_line(str(error))})") from error
    if root.find(f".//{{{RDF}}}Description") is None:
        raise ValueError("it has no RDF description")
    return Told(
        _value(root, IPTC, "DigitalSourceType"), _value(root, XMP, "CreatorTool"), _value(root, XMP, "CreateDate"),
        _value(root, MEDIA, "DocumentID"), _aigc(root),
    )  # fmt: skip


def _value(root: ElementTree.Element, space: str, name: str) -> str | None:
    """A property's text, whether it is written as an element or as an attribute."""
    for node in root.iter(f"{{{RDF}}}Description"):
        found = node.find(f"{{{space}}}{name}")
        text = node.get(f"{{{space}}}{name}") if found is None else found.text
        if text:
            return one_line(text.strip())
    return None


def _aigc(root: ElementTree.Element) -> dict[str, str] | None:
    """The AIGC key's fields, whether they are written alone or as {"AIGC": …}, in whatever namespace."""
    for node in root.iter():
        texts = (
            [node.text] if node.tag.endswith("}AIGC") else [v for k, v in node.attrib.items() if k.endswith("}AIGC")]
        )
        for text in texts:
            try:
                found: Any = json.loads(text or "")
            except (ValueError, RecursionError):
                continue
            inner = found.get("AIGC", found) if isinstance(found, dict) else None
            if isinstance(inner, dict):
                return {name: one_line(str(inner[name])) for name in FIELDS if name in inner}
    return None
