"""Programs of others that serve, on a port that was free a moment ago."""

import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time

from tests.helpers import SCRIPT, ask, wait_for
from tests.upstream import isolated

TOP = os.path.dirname(SCRIPT)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Process:
    """Any command that serves on a port that is already chosen."""

    def __init__(self, command, port, folder, **environment):
        self.port = port
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=self.log, cwd=folder,
            stdin=subprocess.DEVNULL,
            env=isolated(folder, PYTHONPATH=TOP, **environment))

    def __enter__(self):
        try:
            wait_for(self.is_up, "it serves", 30)
        except AssertionError:
            self.stop()
            printed = self.printed()
            self.log.close()
            raise AssertionError("no server: " + printed)
        return self

    def __exit__(self, *exception):
        self.stop()
        self.log.close()

    def is_up(self):
        if self.process.poll() is not None:
            raise AssertionError("it ended")
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def stop(self, number=signal.SIGTERM, seconds=20):
        """Stop it as systemd does; return the seconds that it took."""
        started = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return time.monotonic() - started

    def printed(self):
        # Not through the file object: it shares its place with the server.
        size = os.fstat(self.log.fileno()).st_size
        return os.pread(self.log.fileno(), size, 0).decode("utf-8", "replace")

    def get(self, path, headers=None, method="GET", body=b""):
        return ask("127.0.0.1", self.port, method, path, headers, body)

    def post(self, message, chunk=None):
        """Upload; in chunks of this many bytes, if any."""
        headers, body = message
        if not chunk:
            return self.get("/", headers, "POST", body)
        client = http.client.HTTPConnection("127.0.0.1", self.port,
                                            timeout=30)
        try:
            client.putrequest("POST", "/")
            for name, text in headers.items():
                client.putheader(name, text)
            client.putheader("Transfer-Encoding", "chunked")
            client.endheaders()
            for start in range(0, len(body), chunk):
                piece = body[start:start + chunk]
                client.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            client.send(b"0\r\n\r\n")
            response = client.getresponse()
            return response.status, response.read()
        finally:
            client.close()
