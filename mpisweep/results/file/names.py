"""Texts and names as HDF5 can hold them."""

from __future__ import annotations

from urllib.parse import unquote

__all__ = ["as_text", "from_link", "to_link"]

#: Bytes that HDF5 or :func:`to_link` itself give a meaning to.
_RESERVED = frozenset(b"/%\0")


def as_text(text: str) -> str:
    """What HDF5 can hold of a text: no NUL, no lone surrogate."""
    return text.replace("\0", " ").encode("utf-8", "backslashreplace").decode()


def to_link(name: str) -> str:
    """The name of a parameter or metric as the name of an HDF5 object, where ``/`` and ``.`` mean something.

    Names that need it are percent-encoded, as in an address: ``train/loss`` becomes ``train%2Floss``.
    """
    if not name or set(name) == {"."}:
        return name.replace(".", "%2E") or "%"
    encoded = name.encode("utf-8", "surrogatepass")
    if not set(encoded) & _RESERVED and b"\xed" not in encoded:
        return name
    return "".join(f"%{byte:02X}" if byte in _RESERVED or byte >= 0x80 else chr(byte) for byte in encoded)


def from_link(link: str) -> str:
    """The name that :func:`to_link` made into `link`."""
    if "%" not in link:
        return link
    return "" if link == "%" else unquote(link, errors="surrogatepass")
