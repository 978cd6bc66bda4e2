"""Read the constants of an ONNX file and which operations take them; nothing of it is run.

ONNX is a protocol buffer (onnx.proto of the ONNX project, Apache-2.0): fields of a number and a
wire type, one behind the other. Only those read here are named, all others are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ossicle.errors import DownloadError

# Wire types of protocol buffers.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
# TensorProto.DataType; numbers lie in little-endian order.
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    6: np.dtype("<i4"),
    7: np.dtype("<i8"),
    11: np.dtype("<f8"),
}

MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER = 1, 5
NODE_INPUT, NODE_OPERATION = 1, 4
TENSOR_DIMS, TENSOR_TYPE, TENSOR_FLOATS, TENSOR_NAME, TENSOR_RAW = 1, 2, 4, 8, 9


class Node(NamedTuple):
    """One operation of the graph.

    Attributes:
        operation: such as "Conv".
        inputs: names of what it takes, in order; those of constants are in ``Graph.constants``.
    """

    operation: str
    inputs: tuple[str, ...]


class Graph(NamedTuple):
    """A network as its file has it.

    Attributes:
        nodes: in the order of execution.
        constants: arrays by name.
    """

    nodes: tuple[Node, ...]
    constants: dict[str, np.ndarray]


def read_onnx(path: Path) -> Graph:
    """Operations and constants of an ONNX file whose constants lie inside it.

    Raises:
        DownloadError: the file is not an ONNX model, or holds numbers of a kind not read here.
    """
    try:
        graphs = [v for n, v in _fields(memoryview(path.read_bytes())) if n == MODEL_GRAPH]
        if len(graphs) != 1 or not isinstance(graphs[0], memoryview):
            raise ValueError("it has no graph")
        nodes, constants = [], {}
        for number, value in _fields(graphs[0]):
            if number == GRAPH_NODE:
                nodes.append(_node(_part(value)))
            elif number == GRAPH_INITIALIZER:
                name, array = _tensor(_part(value))
                constants[name] = array
    except (ValueError, IndexError) as error:
        raise DownloadError(f"{path}: not an ONNX model that can be read ({error})") from error
    return Graph(tuple(nodes), constants)


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of each field of a message: an integer, or the bytes of anything longer."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == BYTES:
            length, at = _varint(data, at)
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
        else:
            raise ValueError(f"a field of wire type {wire}")
        if at + length > len(data):
            raise ValueError("it ends within a field")
        yield number, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """(value, where the next begins): 7 bits a byte, the lowest first."""
    value = 0
    for shift in range(0, 64, 7):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than 64 bits")


def _part(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message is due")
    return value


def _node(message: memoryview) -> Node:
    fields = list(_fields(message))
    inputs = (str(_part(value), "utf-8") for number, value in fields if number == NODE_INPUT)
    named = (str(_part(value), "utf-8") for number, value in fields if number == NODE_OPERATION)
    return Node("".join(named), tuple(inputs))


def _tensor(message: memoryview) -> tuple[str, np.ndarray]:
    name, kind, raw, floats = "", 0, b"", b""
    shape: list[int] = []
    for number, value in _fields(message):
        if number == TENSOR_NAME:
            name = str(_part(value), "utf-8")
        elif number == TENSOR_TYPE and isinstance(value, int):
            kind = value
        elif number == TENSOR_DIMS:
            shape += [value] if isinstance(value, int) else _packed(value)
        elif number == TENSOR_RAW:
            raw = bytes(_part(value))
        elif number == TENSOR_FLOATS:  # packed, or a number at a time
            floats += bytes(_part(value))
    dtype = DTYPES.get(kind)
    if dtype is None or (not raw and 0 not in shape and kind != 1):
        raise ValueError(f"the constant {name!r} is of a kind that is not read: {kind}")
    return name, np.frombuffer(raw or floats, dtype).reshape(shape)


def _packed(data: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        values.append(value)
    return values
