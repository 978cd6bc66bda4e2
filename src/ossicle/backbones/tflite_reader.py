"""Read the constants of a TFLite file: weights as float32, dequantised where they are 8-bit.

Nothing of the file is run; the flatbuffer is parsed by the `tflite` package.
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tflite

from ossicle.errors import DownloadError

DTYPES = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.INT32: np.int32,
    tflite.TensorType.INT8: np.int8,
}


class Operation(NamedTuple):
    """One operation and its constant inputs.

    Attributes:
        name: of the operation in the TFLite schema, such as "CONV_2D".
        weight: float32, in TFLite's own axis order.
        bias: float32, (C,).
    """

    name: str
    weight: np.ndarray
    bias: np.ndarray


WEIGHTED = {
    tflite.BuiltinOperator.CONV_2D: "CONV_2D",
    tflite.BuiltinOperator.DEPTHWISE_CONV_2D: "DEPTHWISE_CONV_2D",
    tflite.BuiltinOperator.FULLY_CONNECTED: "FULLY_CONNECTED",
}


def read_operations(path: Path) -> list[Operation]:
    """All convolutions and dense layers in the order of execution.

    Raises:
        DownloadError: the file is not a TFLite model.
    """
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise DownloadError(f"{path}: not a TFLite model")
    try:
        model = tflite.Model.GetRootAsModel(content, 0)
        graph = model.Subgraphs(0)
        operations = []
        for i in range(graph.OperatorsLength()):
            operator = graph.Operators(i)
            code = model.OperatorCodes(operator.OpcodeIndex())
            # Old files keep the code in a field of one byte, new ones in both.
            builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            if builtin in WEIGHTED:
                weight, bias = (_constant(model, graph, operator.Inputs(k)) for k in (1, 2))
                operations.append(Operation(WEIGHTED[builtin], weight, bias))
    except (ValueError, TypeError, AttributeError, LookupError, struct.error) as error:
        raise DownloadError(f"{path}: not a TFLite model that can be read ({error})") from error
    return operations


def read_associated_lines(path: Path, name: str) -> list[str]:
    """Lines of a text file packed with the model (TFLite metadata is a zip at the file's end)."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name).decode("utf-8").splitlines()
    except (zipfile.BadZipFile, KeyError) as error:
        raise DownloadError(f"{path}: holds no list of labels called {name}") from error


def _constant(model: tflite.Model, graph: tflite.SubGraph, index: int) -> np.ndarray:
    """The tensor's values, float32: (integer - zero point) * scale, by channel if it is so."""
    tensor = graph.Tensors(index)
    data = model.Buffers(tensor.Buffer()).DataAsNumpy()
    values = np.frombuffer(data.tobytes(), DTYPES[tensor.Type()]).reshape(tensor.ShapeAsNumpy())
    quantisation = tensor.Quantization()
    if quantisation is None or quantisation.ScaleLength() == 0:
        return values.astype(np.float32)
    shape = [1] * values.ndim
    if quantisation.ScaleLength() > 1:
        shape[quantisation.QuantizedDimension()] = -1
    scale = quantisation.ScaleAsNumpy().astype(np.float64).reshape(shape)
    zero = quantisation.ZeroPointAsNumpy().astype(np.float64).reshape(shape)
    return ((values.astype(np.float64) - zero) * scale).astype(np.float32)
