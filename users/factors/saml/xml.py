"""XML of others, in which there is nothing but elements, attributes and text.

lxml has no types of its own; an ``Element`` is one of its.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lxml import etree

Element = Any

PROTOCOL = "urn:oasis:names:tc:SAML:2.0:protocol"
ASSERTION = "urn:oasis:names:tc:SAML:2.0:assertion"
METADATA = "urn:oasis:names:tc:SAML:2.0:metadata"
SIGNATURE = "http://www.w3.org/2000/09/xmldsig#"
REDIRECT_BINDING = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
POST_BINDING = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"

_DECLARATION = re.compile(r"\ufeff?\s*(<\?xml\s[^<>?]*\?>)?")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


class Unusable(ValueError):
    """What was given cannot be used. The argument says why, in words for administrators."""


def parse(data: bytes, *, comments: bool = False) -> Element:
    """``comments``: whether there may be some, which are left out: a comment can cut a text in two, of which a reader
    sees the first part alone. Raise ``Unusable``."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise Unusable("It is not written in UTF-8.") from None
    text = _DECLARATION.sub("", text, count=1)
    if comments:
        text = _COMMENT.sub("", text)
    # In what is well-formed, these begin nothing but a document type with its entities, a comment, a CDATA section or a
    # processing instruction: nobody has to know how a parser takes them.
    if "<!" in text or "<?" in text:
        raise Unusable("It has a document type, a comment or something else that is not allowed in it.")
    parser = etree.XMLParser(
        encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, collect_ids=False
    )
    try:
        return etree.fromstring(text.encode(), parser)
    except (etree.XMLSyntaxError, ValueError):
        raise Unusable("It is no XML.") from None


def tag(namespace: str, name: str) -> str:
    return f"{{{namespace}}}{name}"


def text_of(element: Element | None) -> str:
    """The whole text of an element that has nothing else in it; empty for one that has, and for None."""
    if element is None or len(element):
        return ""
    return str(element.text or "").strip()


def children(element: Element, namespace: str, name: str) -> list[Element]:
    return list(element.findall(tag(namespace, name)))


def ids_of(element: Element) -> Iterator[str]:
    """Every id in ``element``, by whichever name some reader of it takes for one."""
    for each in element.iter():
        for name, value in each.attrib.items():
            if etree.QName(name).localname.lower() in ("id", "assertionid", "responseid"):
                yield str(value)
