"""Read the headers of an H.264 or H.265 picture before it is decoded.

Pictures are sequences of NAL units behind start codes (Annex B of ITU-T H.264 and H.265). For
H.264, a lost reference picture is noticed here, by `frame_num` (7.4.3), because its decoders
conceal the loss; decoders of H.265 report it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_START_CODE = re.compile(b"\0\0\1")
MAX_UNITS = 4096  # of one picture: usually at most one per row, at the very most one per macroblock
_HEADER_BYTES = 512  # read of each unit; parameter sets and slice headers are shorter

# Types of NAL units.
_H264_SLICE, _H264_IDR, _H264_SPS, _H264_PPS = 1, 5, 7, 8
_HEVC_RANDOM_ACCESS = range(16, 22)  # IRAP: decoding can begin here
# Profiles of H.264 whose SPS has fields about the chroma format (7.3.2.1.1).
_HIGH_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)


class Malformed(Exception):
    """A picture whose headers cannot be read."""


def units(data: bytes) -> list[bytes]:
    """Return the beginnings of a picture's NAL units. Raises Malformed if there is none."""
    starts = []
    for found in _START_CODE.finditer(data):
        starts.append(found.end())
        if len(starts) > MAX_UNITS:
            raise Malformed(f"more than {MAX_UNITS} NAL units")
    if not starts:
        raise Malformed("no start code of a NAL unit")
    ends = [start - 3 for start in starts[1:]] + [len(data)]
    headers = [
        data[start : min(end, start + _HEADER_BYTES)]
        for start, end in zip(starts, ends, strict=True)
    ]
    if not all(headers):
        raise Malformed("an empty NAL unit")
    return headers


def is_key_frame(codec: str, headers: list[bytes]) -> bool:
    """Return whether decoding can begin with a picture."""
    if codec == "h264":
        return any(header[0] & 31 == _H264_IDR for header in headers)
    return any(header[0] >> 1 & 63 in _HEVC_RANDOM_ACCESS for header in headers)


@dataclass(frozen=True, slots=True)
class _Sequence:
    """The fields of an H.264 SPS that concern frame numbers."""

    number_bits: int
    gaps_allowed: bool
    separate_planes: bool


class H264FrameNumbers:
    """Follows `frame_num` from picture to picture."""

    def __init__(self) -> None:
        self._sequences: dict[int, _Sequence] = {}
        self._sequence_of: dict[int, int] = {}  # id of the SPS by id of the PPS
        self._reference: int | None = None  # frame_num of the last reference picture

    def follows(self, headers: list[bytes]) -> bool:
        """Take the next picture; return False if a reference picture before it is missing.

        Raises Malformed if its headers cannot be read.
        """
        for header in headers:
            kind = header[0] & 31
            if kind == _H264_SPS:
                self._read_sequence(_Bits(header[1:]))
            elif kind == _H264_PPS:
                bits = _Bits(header[1:])
                picture = bits.exp_golomb()
                self._sequence_of[picture] = bits.exp_golomb()
            elif kind in (_H264_SLICE, _H264_IDR):
                return self._read_slice(header)
        raise Malformed("no slice of a picture")

    def _read_slice(self, header: bytes) -> bool:
        bits = _Bits(header[1:])
        bits.exp_golomb()  # first_mb_in_slice
        bits.exp_golomb()  # slice_type
        sequence = self._sequences.get(self._sequence_of.get(bits.exp_golomb(), -1))
        if sequence is None:
            raise Malformed("a slice without its parameter sets")
        if sequence.separate_planes:
            bits.number(2)
        number, before = bits.number(sequence.number_bits), self._reference
        if header[0] >> 5 & 3:  # nal_ref_idc
            self._reference = number
        if header[0] & 31 == _H264_IDR or sequence.gaps_allowed or before is None:
            return True
        return number in (before, (before + 1) % (1 << sequence.number_bits))

    def _read_sequence(self, bits: _Bits) -> None:
        """Read a sequence parameter set as far as needed here (7.3.2.1.1)."""
        profile = bits.number(8)
        bits.number(16)  # constraints, level
        identity, separate_planes = bits.exp_golomb(), False
        if profile in _HIGH_PROFILES:
            chroma = bits.exp_golomb()
            separate_planes = chroma == 3 and bool(bits.number(1))
            bits.exp_golomb()  # bit depths
            bits.exp_golomb()
            bits.number(1)
            if bits.number(1):
                for i in range(8 if chroma != 3 else 12):
                    if bits.number(1):
                        bits.skip_scaling_list(16 if i < 6 else 64)
        number_bits = bits.exp_golomb() + 4
        if number_bits > 16 or identity > 31:
            raise Malformed("an SPS with impossible values")
        order_kind = bits.exp_golomb()
        if order_kind == 0:
            bits.exp_golomb()
        elif order_kind == 1:
            bits.number(1)
            for _ in range(2):
                bits.exp_golomb()
            for _ in range(min(bits.exp_golomb(), 255)):
                bits.exp_golomb()
        bits.exp_golomb()  # max_num_ref_frames
        self._sequences[identity] = _Sequence(number_bits, bool(bits.number(1)), separate_planes)


class _Bits:
    """Reads bits from the left and skips emulation prevention bytes (7.4.1)."""

    def __init__(self, unit: bytes) -> None:
        self._left: Iterator[str] = iter(
            "".join(f"{byte:08b}" for byte in unit.replace(b"\0\0\3", b"\0\0"))
        )

    def number(self, bits: int) -> int:
        """Read an unsigned number of this many bits."""
        value = 0
        for _ in range(bits):
            value = value << 1 | self._bit()
        return value

    def exp_golomb(self) -> int:
        """Read an Exp-Golomb number (9.1), also a signed one if its value does not matter."""
        zeros = 0
        while not self._bit():
            zeros += 1
            if zeros > 32:
                raise Malformed("a number of more than 32 bits")
        return (1 << zeros) - 1 + self.number(zeros)

    def skip_scaling_list(self, size: int) -> None:
        """Skip a scaling list (7.3.2.1.1.1)."""
        last = following = 8
        for _ in range(size):
            if following:
                coded = self.exp_golomb()
                delta = (coded + 1) // 2 if coded % 2 else -coded // 2
                following = (last + delta) % 256
            last = following or last

    def _bit(self) -> int:
        bit = next(self._left, None)
        if bit is None:
            raise Malformed("a header that ends too early")
        return int(bit)
