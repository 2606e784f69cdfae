"""Reads TFRecord files without TensorFlow: the framing with its checksums, and the fields of protobuf messages.

A record is its length (8 bytes, little-endian), the masked CRC of those 8 bytes, the data, and the masked CRC of the
data (TensorFlow documentation, "TFRecord and tf.train.Example", format details). The CRC is CRC-32C (Castagnoli, RFC
3720, appendix B.4); the mask rotates it right by 15 bits and adds 0xa282ead8.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ..encoders.errors import DataError

MAX_RECORD_BYTES = 2**20
"""Longer records are refused."""

_HEAD = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_BATCH = 4096
_MASK = 0xA282EAD8
_POLYNOMIAL = 0x82F63B78  # 0x1EDC6F41, bits reversed

Field = tuple[int, int | bytes]


def read_records(path: Path) -> Iterator[bytes]:
    """The data of every record of a TFRecord file, both checksums of each checked.

    Raises:
        DataError: The file cannot be read, is cut off, or a checksum is wrong; the message names the record.
    """
    try:
        with Path(path).open("rb") as file:
            first = 0
            while batch := _read_batch(file, path, first):
                _check(batch, path, first)
                first += len(batch)
                for _, data, _ in batch:
                    yield data
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def masked_crc32c(texts: Sequence[bytes]) -> NDArray[np.uint32]:
    """The masked CRC-32C of each text, as TFRecord files store it.

    All texts are worked on together, byte by byte, so a call with many is fast.
    """
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    longest = int(lengths.max(initial=0))
    padded = np.zeros((longest, len(texts)), dtype=np.uint8)
    for place, at in enumerate(order.tolist()):
        padded[: lengths[at], place] = np.frombuffer(texts[at], dtype=np.uint8)
    # How many texts still have a byte at each position: they stand first.
    active = np.searchsorted(-lengths[order], -np.arange(longest), side="left")
    crc = np.full(len(texts), 0xFFFFFFFF, dtype=np.uint32)
    for position in range(longest):
        some = crc[: active[position]]
        some[:] = _TABLE[(some ^ padded[position, : active[position]]) & 0xFF] ^ (some >> np.uint32(8))
    crc ^= np.uint32(0xFFFFFFFF)
    result = np.empty_like(crc)
    result[order] = ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(_MASK)
    return result


def protobuf_fields(message: bytes, source: str) -> Iterator[Field]:
    """Number and value of every field of a protobuf message: an integer (varint), or the bytes of any other type.

    Raises:
        DataError: The message is cut off or not well-formed; `source` says where it stands.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at, source)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(message, at, source)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(message, at, source)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise DataError(f"{source}: a protobuf field of wire type {kind}, expected 0, 1, 2 or 5")
        if at + size > len(message) or not number:
            raise DataError(f"{source}: a damaged protobuf message, field {number} at byte {at}")
        yield number, message[at : at + size]
        at += size


def double(value: int | bytes, source: str) -> float:
    """A protobuf field of the type double.

    Raises:
        DataError: It is none.
    """
    if not isinstance(value, bytes) or len(value) != 8:
        raise DataError(f"{source}: expected a protobuf field of 8 bytes, got {value!r}")
    result: float = struct.unpack("<d", value)[0]
    return result


def _table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, np.uint32(_POLYNOMIAL), np.uint32(0)) ^ (table >> np.uint32(1))
    return table


_TABLE = _table()


def _read_batch(file: IO[bytes], path: Path, first: int) -> list[tuple[bytes, bytes, bytes]]:
    """Head, data and the data's checksum of the next records."""
    batch: list[tuple[bytes, bytes, bytes]] = []
    while len(batch) < _BATCH:
        number = first + len(batch)
        head = file.read(_HEAD.size)
        if not head:
            break
        if len(head) < _HEAD.size:
            raise DataError(f"{path}: record {number}: the file is cut off; download it again")
        length, stored = _HEAD.unpack(head)
        if length > MAX_RECORD_BYTES:
            # The length itself may be damaged: its checksum tells.
            wrong = int(masked_crc32c([head[:8]])[0]) != stored
            reason = "its length has a wrong checksum" if wrong else f"{length:,} bytes, at most {MAX_RECORD_BYTES:,}"
            raise DataError(f"{path}: record {number}: {reason}; is it a TFRecord file of NAS-Bench-101?")
        data, crc = file.read(length), file.read(_CRC.size)
        if len(data) < length or len(crc) < _CRC.size:
            raise DataError(f"{path}: record {number}: the file is cut off; download it again")
        batch.append((head, data, crc))
    return batch


def _check(batch: list[tuple[bytes, bytes, bytes]], path: Path, first: int) -> None:
    for what, texts, stored in (
        ("length", [head[:8] for head, _, _ in batch], [head[8:] for head, _, _ in batch]),
        ("data", [data for _, data, _ in batch], [crc for _, _, crc in batch]),
    ):
        wrong = np.flatnonzero(masked_crc32c(texts) != np.frombuffer(b"".join(stored), dtype="<u4"))
        if wrong.size:
            raise DataError(
                f"{path}: record {first + int(wrong[0])}: the checksum of its {what} is wrong; download the file again"
            )


def _varint(message: bytes, at: int, source: str) -> tuple[int, int]:
    """An integer of seven bits a byte, lowest first, and where it ends."""
    result = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise DataError(f"{source}: a damaged protobuf message, cut off within a number")
        byte = message[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
    raise DataError(f"{source}: a damaged protobuf message, a number longer than ten bytes")
