"""The one place that imports ONNX Runtime."""

import os
from types import ModuleType

from mobile_avatar.errors import MissingTool


def load_onnxruntime() -> ModuleType:
    """Import ONNX Runtime with its telemetry off.

    Since 1.32 its Linux builds write a device id below the home folder and report every session to their maker.
    What a person does with a face stays on the machine; the switch works only before the first import. Somebody who
    set the variable has chosen, so that value stays.

    Raises:
        MissingTool: it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingTool("this needs ONNX Runtime; run `pip install onnxruntime`") from error
    return onnxruntime
