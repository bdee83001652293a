"""The phone's end of adb's protocol, so that the real `adb` can be tested without a phone.

It stands for adbd: what arrives over the wire is what a phone would get, and it is answered by a ScriptedPhone. Served
are `shell` in its old and new form and the copying of files.
"""

import contextlib
import os
import queue
import socket
import struct
import subprocess
import threading
from pathlib import Path

from tests.benchmarking.scripted_adb import inside
from tests.benchmarking.scripted_phone import ScriptedPhone

VERSION = 0x01000001
MOST_DATA = 16_384
STDOUT, STDERR, EXIT = 1, 2, 3


class Daemon:
    """Listens on a port of this computer; `adb connect` finds a phone there.

    Args:
        phone: who answers.
        features: what it tells adb that it can do; without `shell_v2` exit codes and stderr are lost.
    """

    def __init__(self, phone: ScriptedPhone, features: str = "shell_v2,cmd") -> None:
        self.phone = phone
        self.features = features
        self.refuse = ""
        """What every file that is pushed is refused with."""
        self.leave_at = ""
        """The connection ends at a shell command that holds these words."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._connection: socket.socket | None = None
        threading.Thread(target=self._listen, daemon=True).start()

    def leave(self) -> None:
        """Go away as a phone does whose cable is pulled."""
        for end in (self._listener, self._connection):
            if end is not None:
                # Another thread may be waiting in it, and would keep it open.
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def _listen(self) -> None:
        try:
            while True:
                self._connection, _ = self._listener.accept()
                self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # small messages go at once
                _Link(self, self._connection).serve()
        except OSError:
            return


class _Link:
    """One connection: messages of 24 bytes and their data, for many streams."""

    def __init__(self, daemon: Daemon, connection: socket.socket) -> None:
        self.daemon = daemon
        self._connection = connection
        self._lock = threading.Lock()
        self._streams: dict[int, _Stream] = {}

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        number = int.from_bytes(command, "little")
        head = struct.pack("<6I", number, first, second, len(data), sum(data) & 0xFFFFFFFF, number ^ 0xFFFFFFFF)
        with self._lock:
            self._connection.sendall(head + data)

    def serve(self) -> None:
        while True:
            head = self._read(24)
            if len(head) < 24:
                return
            command, first, second, size = head[:4], *struct.unpack("<3I", head[4:16])
            data = self._read(size)
            if command == b"CNXN":
                banner = (
                    f"device::ro.product.name=p;ro.product.model=p;ro.product.device=p;features={self.daemon.features}"
                )
                self.send(b"CNXN", VERSION, MOST_DATA, banner.encode())
            elif command == b"OPEN":
                stream = _Stream(self, len(self._streams) + 1, first)
                self._streams[stream.number] = stream
                self.send(b"OKAY", stream.number, first)
                threading.Thread(target=stream.serve, args=(data.rstrip(b"\0").decode(),), daemon=True).start()
            elif command == b"WRTE":
                self.send(b"OKAY", second, first)
                self._streams[second].arrived.put(data)
            elif command == b"OKAY":
                self._streams[second].taken.release()
            elif command == b"CLSE" and second in self._streams:
                self._streams[second].arrived.put(b"")
                self._streams[second].taken.release()

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                more = self._connection.recv(size - len(data))
            except OSError:
                more = b""
            if not more:
                return data
            data += more
        return data


class _Stream:
    """One service that adb asked for."""

    def __init__(self, link: _Link, number: int, other: int) -> None:
        self.number = number
        self.arrived: queue.Queue[bytes] = queue.Queue()
        self.taken = threading.Semaphore(0)
        self._link, self._other = link, other
        self._rest = b""

    def serve(self, service: str) -> None:
        try:
            name, _, argument = service.partition(":")
            if name.startswith("shell"):
                self._shell(argument, framed="v2" in name)
            elif name == "sync":
                self._sync()
            self._link.send(b"CLSE", self.number, self._other)
        except OSError:
            return

    def _write(self, data: bytes) -> None:
        for start in range(0, len(data), MOST_DATA):
            self._link.send(b"WRTE", self.number, self._other, data[start : start + MOST_DATA])
            self.taken.acquire()

    def _read(self, size: int) -> bytes:
        while len(self._rest) < size:
            more = self.arrived.get()
            if not more:
                return b""
            self._rest += more
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def _shell(self, script: str, framed: bool) -> None:
        daemon, phone = self._link.daemon, self._link.daemon.phone
        if daemon.leave_at and daemon.leave_at in script:
            daemon.leave()
            return
        paths = {**os.environ, "PATH": f"{phone.root}/bin:{os.environ['PATH']}", "PHONE": str(phone.root)}
        command = ["sh", "-c", inside(str(phone.root), script)]
        done = subprocess.run(command, env=paths, start_new_session=True, capture_output=True, stdin=subprocess.DEVNULL)
        if not framed:
            self._write((done.stdout + done.stderr).replace(b"\n", b"\r\n"))
            return
        for kind, data in ((STDOUT, done.stdout), (STDERR, done.stderr), (EXIT, bytes([done.returncode & 0xFF]))):
            for start in range(0, len(data), 4096):
                part = data[start : start + 4096]
                self._write(struct.pack("<BI", kind, len(part)) + part)

    def _sync(self) -> None:
        while head := self._read(8):
            request, size = head[:4], int.from_bytes(head[4:], "little")
            if request == b"QUIT":
                return
            path = Path(inside(str(self._link.daemon.phone.root), self._read(size).decode()))
            {b"STAT": self._stat, b"SEND": self._take, b"RECV": self._give}[request](path)

    def _stat(self, path: Path) -> None:
        found = path.stat() if path.exists() else None
        values = (found.st_mode, found.st_size, int(found.st_mtime)) if found else (0, 0, 0)
        self._write(b"STAT" + struct.pack("<3I", *values))

    def _take(self, path: Path) -> None:
        # The path ends with ",mode".
        path = path.with_name(path.name.rpartition(",")[0])
        content = b""
        while (head := self._read(8))[:4] == b"DATA":
            content += self._read(int.from_bytes(head[4:], "little"))
        refused = self._link.daemon.refuse.encode()
        if refused:
            self._write(b"FAIL" + struct.pack("<I", len(refused)) + refused)
            return
        path.write_bytes(content)
        self._write(b"OKAY" + bytes(4))

    def _give(self, path: Path) -> None:
        content = path.read_bytes()
        for start in range(0, len(content), 65_536):
            part = content[start : start + 65_536]
            self._write(b"DATA" + struct.pack("<I", len(part)) + part)
        self._write(b"DONE" + bytes(4))
