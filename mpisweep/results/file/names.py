"""Texts and names in the form that HDF5 can hold."""

from __future__ import annotations

from urllib.parse import unquote

__all__ = ["as_text", "from_link", "to_link"]

#: Bytes with a special meaning to HDF5 or to :func:`to_link`.
_RESERVED = frozenset(b"/%\0")


def as_text(text: str) -> str:
    """Make a text storable in HDF5: no NUL, no lone surrogate."""
    return text.replace("\0", " ").encode("utf-8", "backslashreplace").decode()


def to_link(name: str) -> str:
    """Encode the name of a parameter or metric as an HDF5 link name.

    HDF5 gives ``/`` and ``.`` a meaning; names with them are percent-encoded, as in a URL: ``train/loss``
    becomes ``train%2Floss``.
    """
    if not name or set(name) == {"."}:
        return name.replace(".", "%2E") or "%"
    encoded = name.encode("utf-8", "surrogatepass")
    if not set(encoded) & _RESERVED and b"\xed" not in encoded:
        return name
    return "".join(f"%{byte:02X}" if byte in _RESERVED or byte >= 0x80 else chr(byte) for byte in encoded)


def from_link(link: str) -> str:
    """Decode a link name that :func:`to_link` encoded."""
    if "%" not in link:
        return link
    return "" if link == "%" else unquote(link, errors="surrogatepass")
