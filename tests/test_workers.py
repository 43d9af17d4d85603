"""--workers: processes that share a socket and know of each other's changes.

Sections Server and Workers, as users start them.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import unittest
import zipfile
from urllib.parse import urlsplit

from tests import archives, forms
from tests.helpers import (
    SCRIPT, DirectoryTestCase, ServerProcess, Wire, wait_for,
)
from tests.test_server import get

WHEEL = "foo-1.0-py3-none-any.whl"
LARGE = "large-1.0-py3-none-any.whl"
# Larger than what the system buffers between two sockets.
BIG = archives.wheel("large", "1.0", files={"zeros": b"\0" * (24 * 2 ** 20)},
                     compression=zipfile.ZIP_STORED)
OPEN = "-a", ".", "-P", "."
NO_FORK = """
import os, sys
del os.fork
sys.path.insert(0, sys.argv.pop(1))
import pypi_server
sys.exit(pypi_server.main(sys.argv[1:]))
"""
# The limit of processes does not hold for root, who runs many of the tests.
FORK_FAILS = """
import errno, os, sys
fork, left = os.fork, [2, 1, 0]
def scarce():
    if left and left.pop():
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()
os.fork = scarce
sys.path.insert(0, sys.argv.pop(1))
import pypi_server
sys.exit(pypi_server.main(sys.argv[1:]))
"""


def children(process):
    """Return the ids of the child processes of a process."""
    try:
        with open("/proc/%d/task/%d/children" % (process, process)) as file:
            return sorted(map(int, file.read().split()))
    except OSError:
        return []


def is_alive(process):
    try:
        with open("/proc/%d/stat" % process) as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@unittest.skipUnless(
    os.path.exists("/proc/%d/task/%d/children" % (os.getpid(), os.getpid())),
    "children are not told here")
class WorkersTestCase(DirectoryTestCase):
    count = 3
    maxDiff = None

    def setUp(self):
        super().setUp()
        archives.put(self.root, WHEEL, archives.wheel("foo", "1.0"))

    @contextlib.contextmanager
    def serve(self, *options):
        with ServerProcess("--workers", str(self.count), *options
                           + (self.root,)) as server:
            address = urlsplit(server.url)
            server.address = address.hostname, address.port
            yield server

    def workers(self, server, without=()):
        """Return the ids of the workers, when all of them are there."""
        def all_of_them():
            found = children(server.process.pid)
            return found if len(found) == self.count \
                and not set(found) & set(without) else None
        return wait_for(all_of_them, "all workers run")

    def connect_each(self, server):
        """Return {process id: a connection to that worker}."""
        wires = {}
        workers = self.workers(server)
        for worker in workers:
            others = [other for other in workers if other != worker]
            for other in others:
                os.kill(other, signal.SIGSTOP)
            try:
                wires[worker] = self.connect(server)
                self.status(wires[worker], "/health")
            finally:
                for other in others:
                    os.kill(other, signal.SIGCONT)
        return wires

    def connect(self, server):
        wire = Wire(server.address)
        self.addCleanup(wire.socket.close)
        return wire

    def status(self, wire, path):
        wire.send(get(path))
        status, _, body = wire.answer()
        wire.body = body
        return status

    def post(self, wire, message):
        headers, body = message
        wire.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + b"".join(
            b"%s: %s\r\n" % (name.encode(), text.encode())
            for name, text in headers.items())
            + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        status, _, text = wire.answer()
        self.assertEqual(200, status, text)

    def is_refused(self, server):
        try:
            socket.create_connection(server.address, 5).close()
        except ConnectionError:
            return True
        return False

    def begin_download(self, server):
        """Return a connection that waits for the rest of a large file."""
        archives.put(self.root, LARGE, BIG)
        wait_for(lambda: server.get(
            "packages/" + LARGE, method="HEAD").status == 200, "served")
        wire = self.connect(server)
        wire.send(get("/packages/" + LARGE))
        self.assertEqual(200, wire.head()[0])
        return wire

    def received(self, wire):
        """Return what comes until the connection ends."""
        pieces = [wire.buffer]
        with contextlib.suppress(ConnectionError):
            for piece in iter(lambda: wire.socket.recv(2 ** 20), b""):
                pieces.append(piece)
        return b"".join(pieces)


class TestChanges(WorkersTestCase):
    """What one worker did, every other one shows in its next answer."""

    def test_uploads_overwrites_and_removals(self):
        with self.serve(*OPEN, "-o") as server:
            wires = list(self.connect_each(server).values())
            for number, writer in enumerate(wires):
                version = "1.%d" % number
                name = "new-%s-py3-none-any.whl" % version
                for text in "first", "second":
                    for wire in wires:  # an answer that may be repeated
                        self.status(wire, "/simple/new/")
                        self.status(wire, "/packages/" + name)
                    data = archives.wheel("new", version, body=text)
                    self.post(writer, forms.upload(name, data))
                    digest = forms.digests(data)["sha256_digest"].encode()
                    for wire in wires:
                        self.assertEqual(200, self.status(
                            wire, "/simple/new/"))
                        self.assertIn(digest, wire.body)
                        self.assertEqual(200, self.status(
                            wire, "/packages/" + name))
                        self.assertEqual(data, wire.body)
                        self.assertEqual(200, self.status(wire, "/simple/"))
                        self.assertIn(b"new", wire.body)
                self.post(writer, forms.post([
                    (":action", "remove_pkg"), ("name", "new"),
                    ("version", version)]))
                for wire in wires:
                    self.assertNotEqual(200, self.status(
                        wire, "/packages/" + name))
                    self.status(wire, "/simple/")
                    self.assertNotIn(b"new", wire.body)
        self.assertNotIn("Traceback", server.output)

    def test_no_worker_waits_for_a_file_to_settle(self):
        """What one knows of an upload, the others find in the cache."""
        with self.serve(*OPEN) as server:
            wires = list(self.connect_each(server).values())
            started = time.monotonic()
            for number in range(20):
                name = "new-1.%d-py3-none-any.whl" % number
                self.post(wires[0], forms.upload(
                    name, archives.wheel("new", "1.%d" % number)))
                for wire in wires:
                    self.assertEqual(200, self.status(wire, "/simple/new/"))
                    self.assertIn(name.encode(), wire.body)
            # Twenty times half a second it would be.
            self.assertLess(time.monotonic() - started, 8)

    def test_new_connections(self):
        """Whichever worker takes them."""
        with self.serve(*OPEN) as server:
            for number in range(10):
                name = "new%d-1.0-py3-none-any.whl" % number
                self.post(self.connect(server), forms.upload(
                    name, archives.wheel("new%d" % number, "1.0")))
                for _ in range(10):
                    with Wire(server.address) as wire:
                        self.assertEqual(200, self.status(
                            wire, "/simple/new%d/" % number))
                        self.assertIn(name.encode(), wire.body)

    def test_copied_file_shows_in_all(self):
        with self.serve() as server:
            wires = self.connect_each(server).values()
            archives.put(self.root, "new-1.0-py3-none-any.whl",
                         archives.wheel("new", "1.0"))
            for wire in wires:
                wait_for(lambda wire=wire: self.status(
                    wire, "/packages/new-1.0-py3-none-any.whl") == 200,
                    "listed", 5)


class TestCaches(WorkersTestCase):
    @unittest.skipUnless(os.path.isdir("/proc/self"), "no /proc")
    def test_each_reads_for_itself_where_none_can_be_shared(self):
        with self.serve("--cache-dir", "/proc/none") as server:
            for wire in self.connect_each(server).values():
                def is_read(wire=wire):
                    self.assertEqual(200, self.status(
                        wire, "/withheld/?format=application/json"))
                    return json.loads(wire.body.decode())["projects_read"]
                self.assertEqual(1, wait_for(is_read, "all is read"))


class TestReplacement(WorkersTestCase):
    def test_killed_worker_is_replaced(self):
        with self.serve(*OPEN) as server:
            wires = self.connect_each(server)
            killed = min(wires)
            os.kill(killed, signal.SIGKILL)
            self.assertEqual(b"", self.received(wires.pop(killed)))
            for wire in wires.values():
                self.assertEqual(200, self.status(wire, "/simple/foo/"))
            new, = set(self.workers(server, (killed,))) - set(wires)
            # It sees and makes changes as the others do.
            wires = self.connect_each(server)
            for number, worker in enumerate(sorted(wires)):
                name = "new%d-1.0-py3-none-any.whl" % number
                self.post(wires[worker], forms.upload(
                    name, archives.wheel("new%d" % number, "1.0")))
                for wire in wires.values():
                    self.assertEqual(200, self.status(
                        wire, "/simple/new%d/" % number))
            self.assertIn(new, wires)
        self.assertEqual(0, server.process.returncode)
        self.assertEqual(1, server.output.count("worker %d ended" % killed),
                         server.output)
        self.assertNotIn("Traceback", server.output)
        self.assertNotIn("Warning", server.output)

    def test_also_where_the_signals_of_children_are_ignored(self):
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGCHLD, before)
        with self.serve() as server:
            signal.signal(signal.SIGCHLD, before)
            killed = self.workers(server)[0]
            os.kill(killed, signal.SIGKILL)
            self.workers(server, (killed,))
        self.assertEqual(0, server.process.returncode)

    def test_upload_of_a_killed_worker_leaves_nothing(self):
        with self.serve(*OPEN) as server:
            headers, body = forms.upload(
                "cut-1.0.tar.gz", os.urandom(2 ** 20))
            address = urlsplit(server.url)
            with Wire((address.hostname, address.port)) as wire:
                wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: %s"
                          b"\r\nContent-Length: %d\r\n\r\n" % (
                              headers["Content-Type"].encode(), len(body))
                          + body[:500000])
                name, = wait_for(lambda: [
                    name for name in os.listdir(self.root)
                    if name.startswith(".upload-")], "it is written")
                os.kill(int(name.split("-")[1]), signal.SIGKILL)
                wait_for(lambda: name not in os.listdir(self.root),
                         "it is removed", 20)
            self.assertEqual(0, server.stop())
        self.assertEqual(1, server.output.count("left by an upload"))

    def test_no_storm_of_workers(self):
        """Each that ends at once is started again after a second."""
        with self.serve() as server:
            begun = set()
            deadline = time.monotonic() + 3
            while time.monotonic() < deadline:
                for worker in children(server.process.pid):
                    begun.add(worker)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGKILL)
            self.assertGreater(len(begun), self.count)
            self.assertLess(len(begun), self.count * 6)
            self.assertEqual(200, server.get("simple/").status)
            self.workers(server)
            self.assertEqual(0, server.stop())

    def test_too_many_processes(self):
        """It goes on trying, and serves with those that there are."""
        with self.changed_system(FORK_FAILS) as server:
            self.workers(server)
            self.assertEqual(200, server.get("simple/").status)
        self.assertEqual(0, server.process.returncode)
        self.assertIn("no process for a worker", server.output)
        self.assertNotIn("Traceback", server.output)

    def changed_system(self, program):
        return ServerProcess(
            "--workers", str(self.count), self.root,
            program=("-c", program, os.path.dirname(SCRIPT)))

    def test_system_without_fork(self):
        server = self.changed_system(NO_FORK)
        process = subprocess.Popen(
            server.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            universal_newlines=True)
        out, err = process.communicate(timeout=60)
        server.cache.cleanup()
        self.assertEqual((2, ""), (process.returncode, out))
        self.assertRegex(
            err, r"\Apypi-server: error: --workers 3 needs fork.*\n\Z")


class TestSignals(WorkersTestCase):
    def test_all_end(self):
        for number in signal.SIGTERM, signal.SIGINT:
            with self.subTest(number), self.serve() as server:
                wires = self.connect_each(server)
                started = time.monotonic()
                self.assertEqual(0, server.stop(number))
                self.assertLess(time.monotonic() - started, 10)
                for worker, wire in wires.items():
                    self.assertFalse(is_alive(worker))
                    self.assertTrue(wire.is_closed())
            self.assertEqual("", server.output)

    def test_running_answers_are_completed(self):
        """Whether the supervisor gets the signal, or all processes do, as
        from a terminal or from systemd.
        """
        for is_for_all in False, True:
            with self.subTest(is_for_all), self.serve() as server:
                workers = self.workers(server)
                wire = self.begin_download(server)
                server.process.send_signal(signal.SIGINT)
                for worker in workers if is_for_all else ():
                    os.kill(worker, signal.SIGINT)
                wait_for(lambda: self.is_refused(server), "no more taken")
                # Only the one with the download is left.
                wait_for(lambda: len(list(filter(is_alive, workers))) == 1,
                         "the others end")
                self.assertEqual(len(BIG), len(self.received(wire)))
                self.assertEqual(0, server.process.wait(20))
            self.assertEqual("", server.output)

    def test_second_signal_ends_all_at_once(self):
        with self.serve() as server:
            workers = self.workers(server)
            wire = self.begin_download(server)
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: len(list(filter(is_alive, workers))) == 1,
                     "the others end")
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(10)
            self.assertLess(len(self.received(wire)), len(BIG))
            self.assertFalse(any(map(is_alive, workers)))

    def test_supervisor_that_is_killed(self):
        """Its workers end by themselves and leave the port."""
        with self.serve() as server:
            workers = self.workers(server)
            server.process.kill()
            server.process.wait()
            wait_for(lambda: not any(map(is_alive, workers)), "they end")
            with socket.socket() as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                other.bind(server.address)
        self.assertIn("the supervisor is gone", server.output)

    def test_log_files_are_opened_anew_by_all(self):
        log = os.path.join(self.folder, "log")
        with self.serve("-v", "--log-file", log, "--log-stream", "none",
                        "--log-frmt", "%(process)d %(message)s") as server:
            wires = self.connect_each(server)

            def logged(path):
                """Return which workers have logged a request."""
                for wire in wires.values():
                    self.status(wire, "/simple/")
                try:
                    with open(path) as file:
                        return {int(line.split()[0]) for line in file
                                if "GET /simple/ 200" in line}
                except OSError:
                    return set()
            wait_for(lambda: logged(log) == set(wires), "all log")
            os.rename(log, log + ".1")
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda: logged(log) == set(wires), "all log again")
            size = os.path.getsize(log + ".1")
            logged(log)
            self.assertEqual(size, os.path.getsize(log + ".1"))
        self.assertEqual(0, server.process.returncode)


class TestStart(WorkersTestCase):
    def test_one_line(self):
        with self.serve() as server:
            self.workers(server)
            self.assertRegex(server.line, "^Serving 1 projects from ")
            # A warning before the fork is one as well.
        self.assertEqual("", server.output)

    def test_warnings_before_the_fork(self):
        """The log has a thread: it stays behind, and nothing is lost."""
        users = os.path.join(self.folder, "users")
        with open(users, "w") as file:
            file.write("joe:plain\n")
        with self.serve("-P", users) as server:
            self.workers(server)
            self.assertEqual(200, server.get("simple/").status)
        self.assertEqual(1, server.output.count("'joe'"), server.output)
        self.assertNotIn("DeprecationWarning", server.output)

    def test_one_per_core(self):
        self.count = os.cpu_count() if os.cpu_count() > 1 else 0
        with ServerProcess("--workers", "0", self.root) as server:
            self.assertEqual(200, server.get("simple/").status)
            wait_for(lambda: len(children(server.process.pid)) == self.count,
                     "as many workers as cores")

    def test_one_is_no_child(self):
        with ServerProcess("--workers", "1", self.root) as server:
            self.assertEqual(200, server.get("simple/").status)
            self.assertEqual([], children(server.process.pid))

    def test_bad_numbers(self):
        for text in "-1", "1001", "two", "", "1.5":
            process = subprocess.Popen(
                [sys.executable, SCRIPT, "run", "--workers=" + text,
                 self.root], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                universal_newlines=True)
            out, err = process.communicate(timeout=60)
            self.assertEqual((2, ""), (process.returncode, out))
            self.assertTrue(re.search("--workers", err), err)


if __name__ == "__main__":
    unittest.main()
