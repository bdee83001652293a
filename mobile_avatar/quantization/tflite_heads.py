"""The heads of a float .tflite graph apart, so that every output gets a scale of its own."""

import copy

import numpy as np

from mobile_avatar.quantization.tflite_plan import kind_of, kinds

RESIZES = ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")


def part_heads(content: object) -> None:
    """Replace a convolution that is only read in slices of channels by one convolution per slice, in place.

    The results are the same. As one integer tensor the heads would share a scale: the warp moves by hundredths while
    the mask before its sigmoid reaches far, so 8 bits would leave the warp a handful of levels. A resize between the
    convolution and the slices goes along.

    Args:
        content: A float `ModelT` with one subgraph.
    """
    graph, names = content.subgraphs[0], kinds()
    readers: dict[int, list] = {}
    for op in graph.operators:
        for index in op.inputs:
            readers.setdefault(int(index), []).append(op)
    for conv in [op for op in graph.operators if kind_of(content, op, names) == "CONV_2D"]:
        last, resize = conv, None
        following = readers.get(int(conv.outputs[0]), [])
        if len(following) == 1 and kind_of(content, following[0], names) in RESIZES:
            last = resize = following[0]
            following = readers.get(int(resize.outputs[0]), [])
        slices = [op for op in following if kind_of(content, op, names) == "SLICE"]
        if len(slices) < 2 or len(slices) < len(following):
            continue
        windows = [_channels(content, op, int(last.outputs[0])) for op in slices]
        if None in windows:
            continue
        made = [
            step
            for number, (op, window) in enumerate(zip(slices, windows, strict=True))
            for step in _part(content, conv, resize, op, window, number)
        ]
        place = min(graph.operators.index(op) for op in slices)
        dropped = {id(op) for op in [conv, resize, *slices]}
        before = [op for op in graph.operators[:place] if id(op) not in dropped]
        graph.operators = [*before, *made, *(op for op in graph.operators[place:] if id(op) not in dropped)]


def _channels(content: object, op: object, source: int) -> slice | None:
    """The channels that a SLICE takes; None where it cuts other axes as well."""
    graph = content.subgraphs[0]
    shape = [int(n) for n in graph.tensors[source].shape]
    begin, size = (_values(content, index, "<i4").tolist() for index in op.inputs[1:])
    size = [full - start if n < 0 else n for full, start, n in zip(shape, begin, size, strict=True)]
    if any(begin[:-1]) or size[:-1] != shape[:-1]:
        return None
    return slice(begin[-1], begin[-1] + size[-1])


def _part(content: object, conv: object, resize: object, op: object, window: slice, number: int) -> list[object]:
    """The convolution (and resize) that makes what one SLICE took."""
    graph = content.subgraphs[0]
    part = copy.deepcopy(conv)
    constants = [
        _add(content, int(index), _values(content, int(index), "<f4", shaped=True)[window], number)
        for index in conv.inputs[1:]
    ]
    part.inputs = [conv.inputs[0], *constants]
    part.outputs = list(op.outputs)
    if resize is None:
        # What a slice is called says nothing about the layer.
        graph.tensors[op.outputs[0]].name = graph.tensors[conv.outputs[0]].name + f";{number}".encode()
        return [part]
    middle = copy.deepcopy(graph.tensors[conv.outputs[0]])
    middle.name += f";{number}".encode()
    middle.shape = [*middle.shape[:-1], window.stop - window.start]
    middle.shapeSignature = None
    graph.tensors.append(middle)
    part.outputs = [len(graph.tensors) - 1]
    scaled = copy.deepcopy(resize)
    scaled.inputs, scaled.outputs = [part.outputs[0], resize.inputs[1]], list(op.outputs)
    return [part, scaled]


def _add(content: object, like: int, values: np.ndarray, number: int) -> int:
    """A new constant tensor, index in the graph."""
    from ai_edge_litert import schema_py_generated as schema

    tensor = copy.deepcopy(content.subgraphs[0].tensors[like])
    tensor.name += f";{number}".encode()
    tensor.shape, tensor.buffer = list(values.shape), len(content.buffers)
    data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    content.buffers.append(schema.BufferT(data=data))
    content.subgraphs[0].tensors.append(tensor)
    return len(content.subgraphs[0].tensors) - 1


def _values(content: object, index: int, dtype: str, shaped: bool = False) -> np.ndarray:
    tensor = content.subgraphs[0].tensors[index]
    values = np.frombuffer(bytes(content.buffers[tensor.buffer].data), dtype)
    return values.reshape([int(n) for n in tensor.shape]) if shaped else values
