"""Which JPEGs a GPU decodes to the same pixels as a CPU, by their headers.

nvJPEG decodes 8-bit baseline and progressive JPEGs with one component (grey) or three, which it takes for
YCbCr.  It may fill the missing part of a truncated file with grey, where the CPU's decoder fails.  A file in
doubt is left to the CPU.  Markers: ITU-T T.81, annex B; colour transform: Adobe's technical note 5116.
"""

from __future__ import annotations

__all__ = ["shape_for_device"]

_START, _END = b"\xff\xd8", b"\xff\xd9"
#: Markers of frames with Huffman coding: baseline, extended sequential, progressive.
_FRAMES = (0xC0, 0xC1, 0xC2)
#: Markers of other frames: lossless, hierarchical, arithmetic coding.
_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_ADOBE, _SCAN = 0xEE, 0xDA
#: Markers without a length.
_BARE = {0x01, *range(0xD0, 0xD8)}


def shape_for_device(data: bytes) -> tuple[int, int] | None:
    """Height and width of a complete JPEG that nvJPEG decodes as a CPU does; None for others."""
    if not data.startswith(_START) or not data.rstrip(b"\0").endswith(_END):
        return None
    at = 2
    transform: int | None = None
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in _BARE:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if marker == _ADOBE and body.startswith(b"Adobe") and len(body) >= 12:
            transform = body[11]
        if marker in _FRAMES:
            return _shape(body) if _is_usual(body, transform) else None
        if marker in _OTHER_FRAMES or marker == _SCAN:
            return None
        at += 2 + length
    return None


def _shape(frame: bytes) -> tuple[int, int] | None:
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    # A height of 0 is given later in the file, which is rare.
    return (height, width) if height and width else None


def _is_usual(frame: bytes, transform: int | None) -> bool:
    """Whether a frame has 8 bits and is grey or YCbCr; libjpeg takes the ids R, G, B for RGB."""
    if len(frame) < 6 or frame[0] != 8:
        return False
    components = frame[5]
    ids = frame[6 : 6 + 3 * components : 3]
    return components == 1 or (components == 3 and transform in (None, 1) and ids != b"RGB")
