"""Leaky ReLUs back into one operator, after quantisation.

The quantiser does not know LEAKY_RELU, so the graph goes through it as max(x, slope * x). XNNPACK on the other hand
has no integer MAXIMUM: each would fall back to a slow reference kernel and cut the graph in two. Both know this:
"""

SLOPES = (0.0, 1.0)  # between them a maximum is a leaky ReLU


def fuse_leaky_relu(model: bytes) -> bytes:
    """Replace MAXIMUM(x, MUL(x, slope)) by LEAKY_RELU(x) in a .tflite file; other operators stay.

    A QUANTIZE between x and the maximum, by which the quantiser brings both sides to one scale, goes as well: the new
    operator has scales of its own on either side.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    content = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    kinds = schema.BuiltinOperator
    changed = False
    for graph in content.subgraphs:
        maker = {output: op for op in graph.operators for output in op.outputs}
        readers: dict[int, int] = {}
        for op in graph.operators:
            for tensor in op.inputs:
                readers[tensor] = readers.get(tensor, 0) + 1
        dropped = set()
        for op in graph.operators:
            if _kind(content, op) != kinds.MAXIMUM:
                continue
            found = _slope_of(model, content, graph, maker, op)
            if found is None:
                continue
            source, slope, between = found
            options = schema.LeakyReluOptionsT()
            options.alpha = slope
            op.inputs = [source]
            op.builtinOptions, op.builtinOptionsType = options, schema.BuiltinOptions.LeakyReluOptions
            op.opcodeIndex = _code(content, kinds.LEAKY_RELU)
            dropped |= {id(step) for step in between if all(readers[output] == 1 for output in step.outputs)}
            changed = True
        graph.operators = [op for op in graph.operators if id(op) not in dropped]
    if not changed:
        return model
    for buffer in content.buffers:
        if buffer.offset > 1:  # the quantiser keeps large constants behind the flatbuffer
            buffer.data, buffer.offset, buffer.size = model[buffer.offset : buffer.offset + buffer.size], 0, 0
    builder = flatbuffers.Builder(len(model))
    builder.Finish(content.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _slope_of(
    model: bytes, content: object, graph: object, maker: dict, maximum: object
) -> tuple[int, float, list[object]] | None:
    """(tensor x, slope, operators that become useless) where `maximum` is one of x and slope * x."""
    from ai_edge_litert import schema_py_generated as schema

    kinds = schema.BuiltinOperator
    for plain, scaled in (tuple(maximum.inputs), tuple(maximum.inputs)[::-1]):
        product = maker.get(scaled)
        if product is None or _kind(content, product) != kinds.MUL:
            continue
        between = [product]
        step = maker.get(plain)
        if step is not None and _kind(content, step) == kinds.QUANTIZE:
            between.append(step)
            plain = step.inputs[0]
        factors = [tensor for tensor in product.inputs if tensor != plain]
        if len(factors) == 1 and plain in product.inputs:
            slope = _scalar(model, content, graph, factors[0])
            if slope is not None and SLOPES[0] < slope < SLOPES[1]:
                return plain, slope, between
    return None


def _scalar(model: bytes, content: object, graph: object, index: int) -> float | None:
    """The value of a constant with one element, integers as the real number they stand for."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    tensor = graph.tensors[index]
    buffer = content.buffers[tensor.buffer]
    data = model[buffer.offset : buffer.offset + buffer.size] if buffer.offset > 1 else buffer.data
    types = {schema.TensorType.FLOAT32: "<f4", schema.TensorType.INT8: "i1", schema.TensorType.INT16: "<i2"}
    if data is None or tensor.type not in types:
        return None
    values = np.frombuffer(bytes(data), types[tensor.type])
    if values.size != 1:
        return None
    if tensor.type == schema.TensorType.FLOAT32:
        return float(values[0])
    return float((int(values[0]) - tensor.quantization.zeroPoint[0]) * tensor.quantization.scale[0])


def _kind(content: object, op: object) -> int:
    code = content.operatorCodes[op.opcodeIndex]
    return max(code.builtinCode, code.deprecatedBuiltinCode)


def _code(content: object, kind: int) -> int:
    """Index of an operator code, added when the file has none."""
    from ai_edge_litert import schema_py_generated as schema

    for index, code in enumerate(content.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == kind:
            return index
    content.operatorCodes.append(schema.OperatorCodeT(builtinCode=kind, deprecatedBuiltinCode=kind, version=2))
    return len(content.operatorCodes) - 1
