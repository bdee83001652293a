"""Runs a DLC itself on Qualcomm's Hexagon simulator, through the C interface of the libraries in onnxruntime-qnn.

libQnnSystem reads the DLC and builds its graph in the HTP backend (libQnnHtp), as a phone does; nothing of ONNX is
involved. The structures below follow Qualcomm's public C headers (QnnInterface, QnnTypes, QnnSystemDlc). Use this only
in a process of its own (`exporters.qnn_process.Worker`): a wrong file may crash the libraries.
"""

import ctypes
from ctypes import POINTER, Structure, addressof, byref, c_char_p, c_uint8, c_uint32, c_uint64, c_void_p, cast
from pathlib import Path

import numpy as np

from mobile_avatar.errors import CheckFailed, MissingTool
from mobile_avatar.verification.dlc import read_dlc

# The backend's function table is passed by value, so its length must be known exactly: it grows with the API version.
FUNCTIONS = {(2, 40): 75}
_POSITIONS = {
    "backendCreate": 1,
    "contextCreate": 9,
    "graphFinalize": 19,
    "graphRetrieve": 20,
    "graphExecute": 21,
    "logCreate": 25,
    "deviceCreate": 40,
}
SYSTEM_API = 1
_SYSTEM_POSITIONS = {"dlcCreateFromFile": 8, "dlcComposeGraphs": 10}

CUSTOM = 0  # QNN_*_CONFIG_OPTION_CUSTOM
HTP_DEVICE_SOC = 0
HTP_GRAPH_PRECISION = 2
PRECISION_FLOAT16 = 1
LOG_ERRORS = 1
MEMORY_RAW = 0
DATATYPES = {0x0232: np.float32, 0x0408: np.uint8, 0x0416: np.uint16}  # the integers are QNN's fixed-point numbers


class _Provider(Structure):
    """Head of QnnInterface_t: what every API version has in front of its function table."""

    _fields_ = (("id", c_uint32), ("name", c_char_p), ("version", c_uint32 * 6))


class _SystemProvider(Structure):
    _fields_ = (("id", c_uint32), ("name", c_char_p), ("version", c_uint32 * 3), ("functions", c_void_p * 11))


class _TensorBody(Structure):
    """Qnn_TensorV2_t, of which Qnn_TensorV1_t is the head."""

    _fields_ = (
        ("id", c_uint32),
        ("name", c_char_p),
        ("type", c_uint32),
        ("format", c_uint32),
        ("datatype", c_uint32),
        ("quantization", c_uint64 * 5),
        ("rank", c_uint32),
        ("dimensions", POINTER(c_uint32)),
        ("memory", c_uint32),
        ("data", c_void_p),
        ("size", c_uint32),
        ("dynamic", c_void_p),
        ("sparse", c_uint32 * 3),
        ("produced", c_uint8),
    )


class _Tensor(Structure):
    _fields_ = (("version", c_uint32), ("body", _TensorBody))


class _GraphInfo(Structure):
    """QnnSystemContext_GraphInfo_t, version 1."""

    _fields_ = (
        ("version", c_uint32),
        ("name", c_char_p),
        ("input_count", c_uint32),
        ("inputs", POINTER(_Tensor)),
        ("output_count", c_uint32),
        ("outputs", POINTER(_Tensor)),
    )


class _GraphConfig(Structure):
    """QnnSystemDlc_GraphConfigInfo_t, version 1."""

    _fields_ = (("version", c_uint32), ("graph", c_char_p), ("configs", c_void_p), ("count", c_uint32))


class _Config(Structure):
    """QnnGraph_Config_t / QnnDevice_Config_t with a backend's own option."""

    _fields_ = (("option", c_uint32), ("custom", c_void_p), ("unused", c_uint64 * 2))


class _HtpOption(Structure):
    """QnnHtpGraph_CustomConfig_t / QnnHtpDevice_CustomConfig_t with a number as its value."""

    _fields_ = (("option", c_uint32), ("value", c_uint64), ("unused", c_uint64 * 4))


class DlcOnSimulator:
    """A DLC, built and finalised in the HTP backend; `run` executes one frame. What is float there computes in FP16."""

    def __init__(self, path: Path, soc_model: int) -> None:
        """Load `path` for the chip `soc_model`.

        Raises:
            MissingTool: the installed libraries have another API version than this module knows.
            CheckFailed: the file is damaged, or the backend refuses its graph.
        """
        import onnxruntime_qnn

        graph_name = read_dlc(path).graph
        folder = Path(onnxruntime_qnn.get_library_path()).parent
        self._keep: list[object] = []  # C memory that the libraries may look at later
        backend, system = ctypes.CDLL(str(folder / "libQnnHtp.so")), ctypes.CDLL(str(folder / "libQnnSystem.so"))
        head = cast(_provider(backend.QnnInterface_getProviders), POINTER(_Provider)).contents
        version = tuple(head.version[:2])
        if version not in FUNCTIONS:
            known = ", ".join(f"{a}.{b}" for a, b in FUNCTIONS)
            raise MissingTool(
                f"a DLC is executed through QNN API {known}, but onnxruntime-qnn has {version[0]}.{version[1]}"
            )

        class Interface(Structure):
            _fields_ = (("head", _Provider), ("functions", c_void_p * FUNCTIONS[version]))

        self._interface = Interface.from_address(addressof(head))
        services = cast(_provider(system.QnnSystemInterface_getProviders), POINTER(_SystemProvider)).contents
        if services.version[0] != SYSTEM_API:
            raise MissingTool(f"a DLC can be read through QNN system API {SYSTEM_API}, found {services.version[0]}")

        logger, handle, device, context, dlc, graph = (c_void_p() for _ in range(6))
        self._call("logCreate", c_void_p(), c_uint32(LOG_ERRORS), byref(logger))
        self._call("backendCreate", logger, c_void_p(), byref(handle))
        self._call("deviceCreate", logger, c_void_p(self._config(HTP_DEVICE_SOC, soc_model)), byref(device))
        self._call("contextCreate", handle, device, c_void_p(), byref(context))
        open_dlc = _function(services.functions[_SYSTEM_POSITIONS["dlcCreateFromFile"]])
        _check("dlcCreateFromFile", open_dlc(c_void_p(), c_char_p(str(path).encode()), byref(dlc)))

        precision = _GraphConfig(1, graph_name.encode(), self._config(HTP_GRAPH_PRECISION, PRECISION_FLOAT16), 1)
        precisions = (c_void_p * 2)(addressof(precision), None)
        self._keep += [precision, precisions]
        graphs, count = POINTER(_GraphInfo)(), c_uint32()
        compose = _function(services.functions[_SYSTEM_POSITIONS["dlcComposeGraphs"]])
        pointer, number = c_void_p, c_uint32
        compose.argtypes = (pointer, pointer, number, pointer, pointer, Interface, number, pointer, pointer)
        arguments = (dlc, addressof(precisions), 1, handle, context, self._interface, 1, byref(graphs), byref(count))
        _check("dlcComposeGraphs", compose(*arguments))
        if count.value != 1:
            raise CheckFailed(f"{path} holds {count.value} graphs instead of one")
        self._info = graphs[0]
        self._call("graphRetrieve", context, c_char_p(self._info.name), byref(graph))
        self._call("graphFinalize", graph, c_void_p(), c_void_p())
        self._graph = graph

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Input name -> array, to output name -> array, in the DLC's own shapes and types (float32 or integers)."""
        info = self._info
        inputs = [_bind(info.inputs[i], feeds) for i in range(info.input_count)]
        outputs = dict(_bind(info.outputs[i], None) for i in range(info.output_count))
        tensors = (info.inputs, c_uint32(info.input_count), info.outputs, c_uint32(info.output_count))
        self._call("graphExecute", self._graph, *tensors, c_void_p(), c_void_p())
        del inputs  # the arrays had to live until here
        return outputs

    def _call(self, name: str, *arguments: object) -> None:
        _check(name, _function(self._interface.functions[_POSITIONS[name]])(*arguments))

    def _config(self, option: int, value: int) -> int:
        """Address of a null-terminated list with one HTP option."""
        custom = _HtpOption(option, value)
        config = _Config(CUSTOM, addressof(custom))
        configs = (c_void_p * 2)(addressof(config), None)
        self._keep += [custom, config, configs]
        return addressof(configs)


def _provider(get_providers: object) -> c_void_p:
    providers, count = POINTER(c_void_p)(), c_uint32()
    get_providers.restype = c_uint64
    _check("getProviders", get_providers(byref(providers), byref(count)))
    return c_void_p(providers[0])


def _function(address: int) -> object:
    return ctypes.CFUNCTYPE(c_uint64)(address)


def _check(name: str, code: int) -> None:
    if code:
        raise CheckFailed(f"Qualcomm's library refused the DLC: {name} returned error {code}")


def _bind(tensor: _Tensor, feeds: dict[str, np.ndarray] | None) -> tuple[str, np.ndarray]:
    """Give a graph tensor its memory: a copy of the input of its name, or zeros for an output."""
    body = tensor.body
    name, shape = body.name.decode(), tuple(body.dimensions[: body.rank])
    if body.datatype not in DATATYPES:
        raise CheckFailed(f"the DLC's tensor {name} has data type {body.datatype:#x}, which nothing here writes")
    array = np.zeros(shape, DATATYPES[body.datatype])
    if feeds is not None:
        if feeds[name].dtype != array.dtype:
            raise CheckFailed(f"the DLC's tensor {name} is {array.dtype}, its manifest says {feeds[name].dtype}")
        array[...] = feeds[name].reshape(shape)
    body.memory, body.data, body.size = MEMORY_RAW, array.ctypes.data, array.nbytes
    return name, array
