"""Reads TensorBoard's event files, without TensorBoard."""

from __future__ import annotations

import pathlib
import struct

from tensorboardX.proto.event_pb2 import Event


def tags(folder: pathlib.Path) -> dict[str, str]:
    """Tag -> 'image', 'audio' or 'simple_value', of all event files in a folder."""
    found = {}
    for file in sorted(folder.glob("events.*")):
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            found |= {value.tag: value.WhichOneof("value") for value in event.summary.value}
            content = content[12 + length + 4 :]
    return found
