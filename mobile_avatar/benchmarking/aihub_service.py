"""Talking to Qualcomm AI Hub through its library `qai_hub`: account, devices, and every failure as one sentence."""

import contextlib
import difflib
import importlib
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mobile_avatar.errors import BadInput, CheckFailed, MissingTool, MobileAvatarError, first_line

HINT = "pip install 'mobile-avatar[hub]'"
BOX_WIDTH = 66  # of the text in the boxes that the library draws around its messages


def connect() -> tuple[Any, list]:
    """A client of the account that is configured on this computer, and the devices it may use.

    Raises:
        MissingTool: no library, no token, a token that is not accepted, or no way to the service.
    """
    try:
        hub = importlib.import_module("qai_hub")
    except ImportError as error:
        raise MissingTool(f"measuring on AI Hub needs its library ({HINT})") from error
    with _failures(hub.client, "the list of devices", account=True):
        client = hub.Client()
        client.set_verbose(False)
        return client, client.get_devices()


@contextlib.contextmanager
def asking(what: str) -> Iterator[None]:
    """Around calls of the library: its exceptions become ours, and what it prints goes to stderr.

    Args:
        what: what is asked for, as it stands in a sentence.

    Raises:
        MissingTool: the service cannot be reached, or asks for a pause.
        CheckFailed: it said no, or answered with something else than what was asked for.
    """
    with _failures(importlib.import_module("qai_hub.client"), what, account=False):
        yield


class Refused(CheckFailed):
    """The service understood the request and said no."""


@contextlib.contextmanager
def _failures(library: ModuleType, what: str, account: bool) -> Iterator[None]:
    import requests

    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout holds results only
            yield
    except MobileAvatarError:
        raise
    except library.UserError as error:
        if account or "authenticate" in str(error):
            raise MissingTool(f"AI Hub account: {plain(error)}") from error
        raise Refused(f"AI Hub refused {what}: {plain(error)}") from error
    except library.RateLimitedError as error:
        raise MissingTool(f"AI Hub wants a pause ({plain(error)}); run the same command again later") from error
    except (library.InternalError, requests.RequestException) as error:
        again = "nothing is lost, run the same command again"
        raise MissingTool(f"AI Hub could not be reached for {what}: {plain(error)} ({again})") from error
    except Exception as error:  # whatever the library and those below it raise
        if account:
            raise MissingTool(
                f"AI Hub's settings cannot be read ({first_line(error)}); run `qai-hub configure --api_token TOKEN`"
            ) from error
        raise CheckFailed(f"AI Hub: {what} failed ({first_line(error)})") from error


def plain(error: BaseException) -> str:
    """A message of the library without the box that it draws around the important part."""
    lines = [line.strip("|┌─┐└┘ ") for line in str(error).splitlines()]
    text = ""
    for line, last in zip(lines, ["", *lines], strict=False):
        # Only a word that is longer than the box, an address, was cut at its edge.
        word = text.rsplit(" ", 1)[-1] + line.split(" ", 1)[0]
        cut = len(last) == BOX_WIDTH and len(word) > BOX_WIDTH
        text += line if cut else f" {line}"
    text = " ".join(text.split()).removeprefix("Internal API failure. ")
    return text.rstrip(".")[:600] or type(error).__name__


def find_device(devices: list, name: str) -> Any:
    """The hosted device of a name, with its newest system; BadInput with near names when there is none."""
    found = [device for device in devices if device.name.lower() == name.lower()]
    if not found:
        names = sorted({device.name for device in devices})
        parts = [n for n in names if name.lower() in n.lower()]
        near = (parts or difflib.get_close_matches(name, names, 5, 0.4))[:5]
        raise BadInput(
            f"AI Hub has no device {name!r} (nearest: {', '.join(near) or 'none'}); choose one with --device"
        )
    return max(found, key=lambda device: [int(part) for part in re.findall(r"\d+", device.os)])


def need_framework(devices: list, device: Any, framework: str, what: str) -> None:
    """BadInput, with devices that would do, when a device does not run files of this kind."""
    wanted = f"framework:{framework}"
    if wanted in device.attributes:
        return
    others = sorted({other.name for other in devices if wanted in other.attributes})
    told = f"choose another with --device, as {', '.join(others[:5])}" if others else "no device there does"
    raise BadInput(f"{device.name} on AI Hub does not run {what} ({wanted} is not among its attributes); {told}")


def chip_of(device: Any) -> str:
    """`snapdragon-855` from a device's attributes; empty when they name none."""
    chips = [a.removeprefix("chipset:") for a in device.attributes if a.startswith("chipset:")]
    named = [chip for chip in chips if chip.startswith("qualcomm-")] or chips
    return named[0].removeprefix("qualcomm-") if named else ""
