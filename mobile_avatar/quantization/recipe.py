"""Recipes of mixed precision: which layers stay above 8 bits. `quantize-report` writes them, `export` applies them."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from mobile_avatar.errors import BadInput
from mobile_avatar.files import replace_file

FORMAT = "mobile-avatar-quantization"
VERSION = 1
LARGEST = 1 << 20  # bytes


@dataclass(frozen=True)
class MixedRecipe:
    """What stays in higher precision; a layer is named by its path in the per-frame network, `blocks.3.conv2`."""

    keep: tuple[str, ...]
    """Layers: float on tflite, coreml and executorch, 16-bit activations on snpe."""
    facts: dict = field(default_factory=dict)
    """How it was found: PSNR, sizes, hash of the weights."""

    def save(self, path: Path) -> None:
        """Write it as JSON, atomically."""
        content = {"format": FORMAT, "version": VERSION, "keep": list(self.keep), **self.facts}
        with replace_file(Path(path)) as temporary:
            temporary.write_text(json.dumps(content, indent=1))

    @classmethod
    def load(cls, path: Path) -> "MixedRecipe":
        """Raises BadInput for a file that is missing, no recipe, or of a newer version."""
        remedy = "write one with `mobile-avatar quantize-report`"
        path = Path(path)
        if not path.is_file():
            raise BadInput(f"{path} does not exist; {remedy}")
        try:
            if path.stat().st_size > LARGEST:
                raise ValueError("too large")
            content = json.loads(path.read_text())
            kind, version, keep = content.pop("format"), content.pop("version"), content.pop("keep")
            if kind != FORMAT or not isinstance(version, int) or not _are_names(keep):
                raise ValueError("not a recipe")
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise BadInput(f"{path} is not a quantisation recipe; {remedy}") from error
        if version > VERSION:
            raise BadInput(f"{path} has format version {version}, this program reads up to {VERSION}; update it")
        return cls(tuple(keep), content)

    def check(self, layers: list[str], path: Path) -> None:
        """BadInput when a name is not one of the graph's `layers`."""
        unknown = [name for name in self.keep if name not in layers]
        if unknown:
            raise BadInput(f"{path} names the layer {unknown[0]}, which this avatar does not have; make one for it")


def _are_names(keep: object) -> bool:
    return isinstance(keep, list) and all(isinstance(name, str) for name in keep)
