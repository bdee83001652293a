"""Operators of the float file that runtimes want in another form than the converter gives them.

DEPTH_TO_SPACE: the converter writes it as a transposition in five dimensions, which GPU delegates refuse.
SLICE: the converter cuts rows and columns off one after the other, which copies the map twice.
RESIZE_NEAREST_NEIGHBOR: XNNPACK has it for floats only; with 8 bits it would cut the graph in two each time. Depth to
space of four copies is the same.
"""

import copy
from collections import Counter

import numpy as np

from mobile_avatar.errors import CheckFailed
from mobile_avatar.graphs.tflite_graph import bytes_of, code_index, kind_of, kinds, pack, unpack

INTERLEAVE = [0, 2, 1, 3, 4]  # (row, column, row phase, column phase, channel) -> rows and columns with their phases


def fuse(model: bytes, eight_bits: bool = False) -> bytes:
    """The same .tflite file (one subgraph) with one DEPTH_TO_SPACE or SLICE where it takes several operators.

    Args:
        eight_bits: the file will be quantised to 8 bits, so nearest up-sampling takes the form described above.
    """
    graph = _Graph(unpack(model))
    dropped: set[int] = set()
    for op in list(graph.operators):
        between: list[object] = []
        if graph.kind(op) == "RESHAPE" and (found := _depth_to_space(graph, op)):
            source, between = found
            graph.make_depth_to_space(op, source)
        elif eight_bits and graph.kind(op) == "RESIZE_NEAREST_NEIGHBOR":
            graph.make_depth_to_space(op, graph.four_copies(op))
        elif graph.kind(op) == "SLICE" and (found := _crop(graph, op)):
            source, begin, between = found
            sizes = graph.shape(op.outputs[0])
            op.inputs = [source, graph.constant(op.inputs[1], begin), graph.constant(op.inputs[2], sizes)]
        dropped |= {id(step) for step in between if all(graph.readers[output] == 1 for output in step.outputs)}
    graph.operators[:] = [op for op in graph.operators if id(op) not in dropped]
    return pack(graph.content)


class _Graph:
    """The graph of an unpacked file, with what has to be looked up in it."""

    def __init__(self, content: object) -> None:
        self.content, self._names = content, kinds()
        self.tensors, self.operators = content.subgraphs[0].tensors, content.subgraphs[0].operators
        self._maker = {output: op for op in self.operators for output in op.outputs}
        self.readers = Counter(tensor for op in self.operators for tensor in op.inputs)

    def kind(self, op: object) -> str:
        return kind_of(self.content, op, self._names)

    def maker(self, tensor: int, kind: str) -> object | None:
        """The operator that makes a tensor, if it is of this kind."""
        op = self._maker.get(tensor)
        return op if op is not None and self.kind(op) == kind else None

    def shape(self, tensor: int) -> list[int]:
        return [int(n) for n in self.tensors[tensor].shape]

    def integers(self, tensor: int) -> np.ndarray:
        """Values of an int32 constant."""
        return np.frombuffer(bytes_of(self.content.buffers[self.tensors[tensor].buffer]), "<i4")

    def make_depth_to_space(self, op: object, source: int) -> None:
        """Turn `op` into a depth to space by 2 of another tensor, with the same output."""
        from ai_edge_litert import schema_py_generated as schema

        options = schema.DepthToSpaceOptionsT()
        options.blockSize = 2
        op.opcodeIndex = code_index(self.content, schema.BuiltinOperator.DEPTH_TO_SPACE)
        op.builtinOptions, op.builtinOptionsType = options, schema.BuiltinOptions.DepthToSpaceOptions
        op.inputs = [source]

    def four_copies(self, resize: object) -> int:
        """Index of a new tensor that holds the input of a x2 resize four times, side by side in its channels."""
        from ai_edge_litert import schema_py_generated as schema

        source = resize.inputs[0]
        _, height, width, channels = self.shape(source)
        if self.shape(resize.outputs[0]) != [1, 2 * height, 2 * width, channels]:
            raise CheckFailed("the graph up-samples by another factor than 2; export it with another --precision")
        tensor = copy.copy(self.tensors[source])
        tensor.shape, tensor.name = [1, height, width, 4 * channels], f"fused/copies_{len(self.tensors)}".encode()
        self.tensors.append(tensor)
        copies, options = schema.OperatorT(), schema.ConcatenationOptionsT()
        options.axis = 3
        copies.opcodeIndex = code_index(self.content, schema.BuiltinOperator.CONCATENATION)
        copies.builtinOptions, copies.builtinOptionsType = options, schema.BuiltinOptions.ConcatenationOptions
        copies.inputs, copies.outputs = [source] * 4, [len(self.tensors) - 1]
        self.operators.insert(self.operators.index(resize), copies)
        return len(self.tensors) - 1

    def constant(self, like: int, values: list[int]) -> int:
        """Index of a new int32 constant that resembles another one."""
        tensor = copy.copy(self.tensors[like])
        buffer = copy.copy(self.content.buffers[tensor.buffer])
        buffer.data = np.array(values, "<i4").tobytes()
        tensor.buffer = len(self.content.buffers)
        tensor.name = f"fused/constant_{tensor.buffer}".encode()  # the quantiser wants names to differ
        self.content.buffers.append(buffer)
        self.tensors.append(tensor)
        return len(self.tensors) - 1


def _crop(graph: _Graph, last: object) -> tuple[int, list[int], list[object]] | None:
    """(tensor x, begin, operators that become useless) where `last` slices what another slice made of x."""
    first = graph.maker(last.inputs[0], "SLICE")
    if first is None:
        return None
    begins = [graph.integers(op.inputs[1]) for op in (first, last)]
    if len({len(begin) for begin in begins} | {len(graph.shape(first.inputs[0]))}) != 1:
        return None
    return first.inputs[0], (begins[0] + begins[1]).tolist(), [first]


def _depth_to_space(graph: _Graph, last: object) -> tuple[int, list[object]] | None:
    """(tensor x, operators that become useless) where `last` ends reshape, transpose, reshape of a depth to space."""
    turn = graph.maker(last.inputs[0], "TRANSPOSE")
    first = turn and graph.maker(turn.inputs[0], "RESHAPE")
    if first is None:
        return None
    source = first.inputs[0]
    shapes = [graph.shape(tensor) for tensor in (source, first.outputs[0], last.outputs[0])]
    height, width, _, _, channels = shapes[1] if len(shapes[1]) == 5 else [0] * 5
    expected = [[1, height, width, 4 * channels], [height, width, 2, 2, channels], [1, 2 * height, 2 * width, channels]]
    alike = graph.integers(turn.inputs[1]).tolist() == INTERLEAVE and shapes == expected
    return (source, [turn, first]) if alike else None
