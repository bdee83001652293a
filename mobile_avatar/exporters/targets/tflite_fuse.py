"""Operators that the converter and the quantiser take apart, put together again on the finished file.

LEAKY_RELU: the quantiser does not know it, so the graph goes through as max(x, slope * x). XNNPACK on the other hand
has no integer MAXIMUM: each would fall back to a slow reference kernel and cut the graph in two.
DEPTH_TO_SPACE: the converter writes it as a transposition in five dimensions, which GPU delegates refuse.
SLICE: the converter cuts rows and columns off one after the other, which copies the map twice.
"""

import copy

import numpy as np

SLOPES = (0.0, 1.0)  # between them a maximum is a leaky ReLU
INTERLEAVE = [0, 2, 1, 3, 4]  # (row, column, row phase, column phase, channel) -> rows and columns with their phases


def fuse(model: bytes) -> bytes:
    """The same .tflite file with LEAKY_RELU, DEPTH_TO_SPACE and SLICE where it says the same in several operators.

    A QUANTIZE between x and the maximum, by which the quantiser brings both sides to one scale, goes as well: the new
    operator has scales of its own on either side.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    file = _File(model, schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0)))
    if not sum(_fuse_graph(file, graph) for graph in file.content.subgraphs):
        return model
    for buffer in file.content.buffers:
        if buffer.offset > 1:  # the quantiser keeps large constants behind the flatbuffer
            buffer.data, buffer.offset, buffer.size = file.bytes_of(buffer), 0, 0
    builder = flatbuffers.Builder(len(model))
    builder.Finish(file.content.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


class _File:
    """A file, unpacked, with what has to be looked up in it."""

    def __init__(self, model: bytes, content: object) -> None:
        self.model, self.content = model, content

    def bytes_of(self, buffer: object) -> bytes:
        if buffer.offset > 1:
            return self.model[buffer.offset : buffer.offset + buffer.size]
        return b"" if buffer.data is None else bytes(buffer.data)

    def kind(self, op: object) -> int:
        code = self.content.operatorCodes[op.opcodeIndex]
        return max(code.builtinCode, code.deprecatedBuiltinCode)

    def constant(self, graph: object, like: int, values: list[int]) -> int:
        """Index of a new int32 constant that resembles another one."""
        tensor = copy.copy(graph.tensors[like])
        buffer = copy.copy(self.content.buffers[tensor.buffer])
        buffer.data, buffer.offset, buffer.size = np.array(values, "<i4").tobytes(), 0, 0
        tensor.buffer = len(self.content.buffers)
        tensor.name = f"fused/constant_{tensor.buffer}".encode()  # the quantiser wants names to differ
        self.content.buffers.append(buffer)
        graph.tensors.append(tensor)
        return len(graph.tensors) - 1

    def turn_into(self, op: object, kind: int, inputs: list[int], options: object, options_type: int) -> None:
        """Make `op` another operator with the same output."""
        codes = self.content.operatorCodes
        known = [i for i, code in enumerate(codes) if max(code.builtinCode, code.deprecatedBuiltinCode) == kind]
        if not known:
            from ai_edge_litert import schema_py_generated as schema

            known = [len(codes)]
            codes.append(schema.OperatorCodeT(builtinCode=kind, deprecatedBuiltinCode=kind, version=2))
        op.opcodeIndex, op.inputs = known[0], inputs
        op.builtinOptions, op.builtinOptionsType = options, options_type


def _fuse_graph(file: _File, graph: object) -> int:
    """How many operators were put together."""
    from ai_edge_litert import schema_py_generated as schema

    kinds, options = schema.BuiltinOperator, schema.BuiltinOptions
    maker = {output: op for op in graph.operators for output in op.outputs}
    readers: dict[int, int] = {}
    for op in graph.operators:
        for tensor in op.inputs:
            readers[tensor] = readers.get(tensor, 0) + 1
    dropped: set[int] = set()
    fused = 0
    for op in graph.operators:
        between: list[object] = []
        if file.kind(op) == kinds.MAXIMUM and (found := _leaky(file, graph, maker, op)):
            source, slope, between = found
            leaky = schema.LeakyReluOptionsT()
            leaky.alpha = slope
            file.turn_into(op, kinds.LEAKY_RELU, [source], leaky, options.LeakyReluOptions)
        elif file.kind(op) == kinds.RESHAPE and (found := _depth_to_space(file, graph, maker, op)):
            source, between = found
            space = schema.DepthToSpaceOptionsT()
            space.blockSize = 2
            file.turn_into(op, kinds.DEPTH_TO_SPACE, [source], space, options.DepthToSpaceOptions)
        elif file.kind(op) == kinds.SLICE and (found := _crop(file, graph, maker, op)):
            source, begin, between = found
            size = [int(n) for n in graph.tensors[op.outputs[0]].shape]
            op.inputs = [source, file.constant(graph, op.inputs[1], begin), file.constant(graph, op.inputs[2], size)]
        fused += bool(between)
        dropped |= {id(step) for step in between if all(readers[output] == 1 for output in step.outputs)}
    graph.operators = [op for op in graph.operators if id(op) not in dropped]
    return fused


def _crop(file: _File, graph: object, maker: dict, last: object) -> tuple[int, list[int], list[object]] | None:
    """(tensor x, begin, operators that become useless) where `last` slices what another slice made of x."""
    from ai_edge_litert import schema_py_generated as schema

    first = maker.get(last.inputs[0])
    if first is None or file.kind(first) != schema.BuiltinOperator.SLICE:
        return None
    begins = [
        np.frombuffer(file.bytes_of(file.content.buffers[graph.tensors[op.inputs[1]].buffer]), "<i4")
        for op in (first, last)
    ]
    if len({len(begin) for begin in begins} | {len(graph.tensors[first.inputs[0]].shape)}) != 1:
        return None
    return first.inputs[0], (begins[0] + begins[1]).tolist(), [first]


def _depth_to_space(file: _File, graph: object, maker: dict, last: object) -> tuple[int, list[object]] | None:
    """(tensor x, operators that become useless) where `last` ends reshape, transpose, reshape of a depth to space."""
    from ai_edge_litert import schema_py_generated as schema

    kinds = schema.BuiltinOperator
    turn = maker.get(last.inputs[0])
    if turn is None or file.kind(turn) != kinds.TRANSPOSE:
        return None
    first = maker.get(turn.inputs[0])
    if first is None or file.kind(first) != kinds.RESHAPE:
        return None
    order = np.frombuffer(file.bytes_of(file.content.buffers[graph.tensors[turn.inputs[1]].buffer]), "<i4")
    source = first.inputs[0]
    shapes = [[int(n) for n in graph.tensors[i].shape] for i in (source, first.outputs[0], last.outputs[0])]
    height, width, _, _, channels = shapes[1] if len(shapes[1]) == 5 else [0] * 5
    expected = [[1, height, width, 4 * channels], [height, width, 2, 2, channels], [1, 2 * height, 2 * width, channels]]
    return (source, [turn, first]) if order.tolist() == INTERLEAVE and shapes == expected else None


def _leaky(file: _File, graph: object, maker: dict, maximum: object) -> tuple[int, float, list[object]] | None:
    """(tensor x, slope, operators that become useless) where `maximum` is one of x and slope * x."""
    from ai_edge_litert import schema_py_generated as schema

    kinds = schema.BuiltinOperator
    for plain, scaled in (tuple(maximum.inputs), tuple(maximum.inputs)[::-1]):
        product = maker.get(scaled)
        if product is None or file.kind(product) != kinds.MUL:
            continue
        between = [product]
        step = maker.get(plain)
        if step is not None and file.kind(step) == kinds.QUANTIZE:
            between.append(step)
            plain = step.inputs[0]
        factors = [tensor for tensor in product.inputs if tensor != plain]
        if len(factors) == 1 and plain in product.inputs:
            slope = _scalar(file, graph, factors[0])
            if slope is not None and SLOPES[0] < slope < SLOPES[1]:
                return plain, slope, between
    return None


def _scalar(file: _File, graph: object, index: int) -> float | None:
    """The value of a constant with one element, integers as the real number they stand for."""
    from ai_edge_litert import schema_py_generated as schema

    tensor = graph.tensors[index]
    data = file.bytes_of(file.content.buffers[tensor.buffer])
    types = {schema.TensorType.FLOAT32: "<f4", schema.TensorType.INT8: "i1", schema.TensorType.INT16: "<i2"}
    if tensor.type not in types:
        return None
    values = np.frombuffer(data, types[tensor.type])
    if values.size != 1:
        return None
    if tensor.type == schema.TensorType.FLOAT32:
        return float(values[0])
    return float((int(values[0]) - tensor.quantization.zeroPoint[0]) * tensor.quantization.scale[0])
