"""One TFLite model on LiteRT: an array in, arrays out."""

from pathlib import Path

import numpy as np

from mobile_avatar.errors import BadInput, MissingTool
from mobile_avatar.quiet import quiet


class LiteModel:
    """A loaded model with one input; not for use from several threads at once."""

    def __init__(self, path: Path) -> None:
        """Load `path`. Raises MissingTool where LiteRT is not installed, BadInput when the file is no model."""
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise MissingTool(
                "Tracking faces needs LiteRT, which is not installed; run `pip install ai-edge-litert` "
                "(there is no build for Windows: use WSL)"
            ) from error
        try:
            with quiet():  # LiteRT announces its delegate on stderr
                self._interpreter = Interpreter(str(path), num_threads=1)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise BadInput(f"{path}: not a TFLite model that LiteRT can load; fetch the file again") from error
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [detail["index"] for detail in self._interpreter.get_output_details()]

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """Run on one image, float32 (H, W, 3) in the model's own range; outputs in the order of the file."""
        self._interpreter.set_tensor(self._input, image[None].astype(np.float32))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]
