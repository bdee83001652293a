"""Reading a model's config back from metadata: the same rules for every model."""

import dataclasses
from typing import TypeVar

from mobile_avatar.errors import BadInput

Config = TypeVar("Config")


def config_from_dict(kind: type[Config], values: dict, source: str) -> Config:
    """A config dataclass of plain numbers from its `asdict`; fields that are missing keep their defaults.

    Raises BadInput, naming `source`, when a field is unknown or of the wrong type.
    """
    known = {field.name: field.type for field in dataclasses.fields(kind)}
    for name, value in values.items():
        if name not in known:
            raise BadInput(f"{source}: unknown model option {name!r}; it was written by another version")
        if type(value) is not known[name]:
            raise BadInput(f"{source}: model option {name} should be {known[name].__name__}, not {value!r}")
    return kind(**values)
