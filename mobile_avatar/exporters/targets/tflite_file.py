"""The last touch on a .tflite file: plain tensor names, facts about the model inside, aligned constants."""

import json

from mobile_avatar.graphs.spec import GraphSpec
from mobile_avatar.graphs.tflite_graph import bytes_of, pack, unpack

METADATA = "mobile_avatar"
"""Name of the metadata entry with the JSON object; the app reads ranges and layouts from it."""
STANDARD_METADATA = "TFLITE_METADATA"
"""Name of the entry that Android's metadata library and Netron show (a flatbuffer `ModelMetadata`)."""
ALIGNMENT = 16  # what the schema asks of constants (`force_align`), and 32-bit ARM kernels rely on


def finish(model: bytes, spec: GraphSpec, facts: dict[str, str]) -> bytes:
    """The same model with the names of `spec`, in its order, on tensors and signature, and with `facts` inside.

    Args:
        model: A .tflite file with one subgraph and one signature whose entries carry the names of `spec`.
        facts: Short texts; `name`, `description`, `version`, `author` and `license` also go to the standard entry.
    """
    from ai_edge_litert import schema_py_generated as schema

    facts = {"name": "head avatar", "description": "head avatar: keypoints to image layers"} | facts
    content = unpack(model)
    signature, graph = content.signatureDefs[0], content.subgraphs[0]
    signature.inputs = _in_order(signature.inputs, [tensor.name for tensor in spec.inputs])
    signature.outputs = _in_order(signature.outputs, [tensor.name for tensor in spec.outputs])
    graph.inputs = [entry.tensorIndex for entry in signature.inputs]
    graph.outputs = [entry.tensorIndex for entry in signature.outputs]
    for entry in [*signature.inputs, *signature.outputs]:
        graph.tensors[entry.tensorIndex].name = entry.name
    content.description = facts["description"].encode()
    document = dict(facts, inputs=[t.to_dict() for t in spec.inputs], outputs=[t.to_dict() for t in spec.outputs])
    for name, data in ((STANDARD_METADATA, _standard(facts)), (METADATA, json.dumps(document).encode())):
        entry = schema.MetadataT(name=name.encode(), buffer=len(content.buffers))
        content.metadata = [*(content.metadata or []), entry]
        content.buffers.append(schema.BufferT(data=data))
    content.buffers = [_Aligned(bytes_of(buffer)) for buffer in content.buffers]
    return pack(content)


class _Aligned:
    """Stands in for the schema's BufferT, whose own Pack forgets the alignment."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def Pack(self, builder: object) -> int:
        from ai_edge_litert import schema_py_generated as schema

        vector = None
        if self.data:
            builder.StartVector(1, len(self.data), ALIGNMENT)
            builder.head -= len(self.data)
            builder.Bytes[builder.head : builder.head + len(self.data)] = self.data
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


def _in_order(entries: list, names: list[str]) -> list:
    by_name = {entry.name.decode(): entry for entry in entries}
    return [by_name[name] for name in names]


def _standard(facts: dict[str, str]) -> bytes:
    """A `ModelMetadata` table (TFLite metadata schema 1.0.0) with its text fields only."""
    import flatbuffers

    fields = {0: "name", 1: "description", 2: "version", 4: "author", 5: "license"}
    texts = {slot: facts[key] for slot, key in fields.items() if key in facts} | {7: "1.0.0"}
    builder = flatbuffers.Builder(256)
    offsets = {slot: builder.CreateString(text) for slot, text in texts.items()}
    builder.StartObject(8)
    for slot, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    builder.Finish(builder.EndObject(), file_identifier=b"M001")
    return bytes(builder.Output())
