"""Reading and writing .tflite files as objects: unpacking, packing, and the codes of operators."""

import numpy as np

VERSION = 2  # of the operators that are added to files; the first that takes integers


def unpack(model: bytes) -> object:
    """A `ModelT` whose constants are all inline: quantisers keep them behind the flatbuffer, by offset."""
    from ai_edge_litert import schema_py_generated as schema

    content = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    for buffer in content.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(model, np.uint8, buffer.size, buffer.offset)
            buffer.offset, buffer.size = 0, 0
    return content


def pack(content: object) -> bytes:
    """The reverse of `unpack`."""
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(content.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def bytes_of(buffer: object) -> bytes:
    """Content of a buffer of an unpacked model; empty for a tensor that is computed."""
    return b"" if buffer.data is None else bytes(buffer.data)


def kinds() -> dict[int, str]:
    """Number -> name of the built-in operators."""
    from ai_edge_litert import schema_py_generated as schema

    return {number: name for name, number in vars(schema.BuiltinOperator).items() if name.isupper()}


def number_of(code: object) -> int:
    """Number of an operator code; those above 127 are in the newer of two fields, old files only have the other."""
    return max(code.builtinCode, code.deprecatedBuiltinCode)


def kind_of(content: object, op: object, names: dict[int, str]) -> str:
    """Name of an operator, by the `kinds` that are passed."""
    return names.get(number_of(content.operatorCodes[op.opcodeIndex]), "unknown")


def code_index(content: object, number: int) -> int:
    """Index of an operator code, added when the file has none."""
    from ai_edge_litert import schema_py_generated as schema

    for index, code in enumerate(content.operatorCodes):
        if number_of(code) == number:
            return index
    content.operatorCodes.append(
        schema.OperatorCodeT(builtinCode=number, deprecatedBuiltinCode=min(number, 127), version=VERSION)
    )
    return len(content.operatorCodes) - 1
