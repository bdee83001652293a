"""The `adb` of a scripted phone: a program of its own, and the same in this process. See scripted_phone.py."""

import json
import os
import signal
import subprocess
import sys
import time

STORAGE = "/data/local/tmp"


def answer(root: str, arguments: list[str]) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr of `adb ARGUMENTS` for the phone in the folder `root`."""
    with open(f"{root}/calls.jsonl", "a") as log:
        log.write(json.dumps(arguments) + "\n")
    serial = ""
    if arguments[0] == "-s":
        serial, arguments = arguments[1], arguments[2:]
    fault = _due(root, " ".join(arguments))
    if fault is not None:
        return _fail(root, fault)
    if arguments[0] == "devices":
        with open(f"{root}/devices.txt", "rb") as file:
            return 0, file.read(), b""
    if os.path.exists(f"{root}/gone"):
        return 1, b"", f"error: device '{serial}' not found\n".encode()
    return COMMANDS[arguments[0]](root, arguments[1:])


def _shell(root: str, arguments: list[str]) -> tuple[int, bytes, bytes]:
    """As adbd does it: the script gets a session of its own and outlives the connection."""
    paths = {**os.environ, "PATH": f"{root}/bin:{os.environ['PATH']}", "PHONE": root}
    with open(f"{root}/shell") as file:
        command = [file.read(), "-c", inside(root, arguments[0])]
    if sys.argv[0].endswith("/adb"):
        # Through a pipe, as through the connection: a script that prints without end must notice that nobody listens
        # any more. With our own output in its hands it would go on until the disk is full.
        with subprocess.Popen(command, env=paths, start_new_session=True, stdout=subprocess.PIPE) as script:
            while part := script.stdout.read1():
                sys.stdout.buffer.write(part)
                sys.stdout.buffer.flush()
        return script.returncode, b"", b""
    done = subprocess.run(command, env=paths, start_new_session=True, capture_output=True)
    return done.returncode, done.stdout, done.stderr


def _push(root: str, arguments: list[str]) -> tuple[int, bytes, bytes]:
    _copy(arguments[0], inside(root, arguments[1]))
    return 0, f"{arguments[0]}: 1 file pushed, 0 skipped.\n".encode(), b""


def _pull(root: str, arguments: list[str]) -> tuple[int, bytes, bytes]:
    for path in arguments[:-1]:
        _copy(inside(root, path), os.path.join(arguments[-1], os.path.basename(path)))
    return 0, b"", b""


COMMANDS = {"shell": _shell, "push": _push, "pull": _pull}


def _copy(source: str, target: str) -> None:
    with open(source, "rb") as old, open(target, "wb") as new:
        new.write(old.read())
    os.chmod(target, 0o600)


def inside(root: str, text: str) -> str:
    return text.replace(STORAGE, root + STORAGE)


def _due(root: str, line: str) -> dict | None:
    """The fault that was ordered for this call."""
    with open(f"{root}/faults.json") as file:
        faults = json.load(file)
    for number, fault in enumerate(faults):
        if fault["at"] in line:
            with open(f"{root}/fault-{number}", "a+") as counter:
                seen = counter.tell()
                counter.write("x")
            if seen >= fault.get("after", 0):
                return fault
    return None


def _fail(root: str, fault: dict) -> tuple[int, bytes, bytes]:
    if fault.get("gone"):
        open(f"{root}/gone", "w").close()
    if fault.get("hang"):
        with open(f"{root}/hanging", "w") as file:
            file.write(str(os.getpid()))
        time.sleep(60)
    if fault.get("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    return fault.get("code", 1), fault.get("out", "").encode(), fault.get("err", "").encode()


if __name__ == "__main__":
    code, out, err = answer(os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0]))), sys.argv[1:])
    os.write(1, out)
    os.write(2, err)
    sys.exit(code)
