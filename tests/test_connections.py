"""More connections than the server keeps, or than it can: --max-connections.

Section Server: what waits longest has to go, and who cannot be served is
told so.
"""

import contextlib
import os
import select
import socket
import threading
import time
import unittest
import zipfile
from unittest import mock
from urllib.parse import urlsplit

import pypi_server
from tests import archives, forms
from tests.helpers import (
    SCRIPT, ServerProcess, SharedTestCase, Wire, running, wait_for,
)
from tests.test_server import get

WHEEL = "foo-1.0-py3-none-any.whl"
SHA = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="  # of "secret"
JOE = b"Authorization: " + forms.credentials(
    "joe", "secret")["Authorization"].encode()
LARGE = "large-1.0-py3-none-any.whl"
SMALL = archives.wheel("foo", "1.0")
# Larger than what the system buffers between two sockets.
BIG = archives.wheel("large", "1.0", files={"zeros": b"\0" * (24 * 2 ** 20)},
                     compression=zipfile.ZIP_STORED)
# The limit counts what a user runs, so it must be one who runs nothing else.
FEW_THREADS = """
import os, resource, sys
sys.path.insert(0, sys.argv.pop(1))
import pypi_server
# These import what that user cannot read.
"localhost".encode("idna")
pypi_server.make_parser().parse_args(sys.argv[1:])
os.setgid(61234)
os.setuid(61234)
resource.setrlimit(resource.RLIMIT_NPROC, (20, 20))
sys.exit(pypi_server.main(sys.argv[1:]))
"""


class ConnectionsTestCase(SharedTestCase):
    @classmethod
    def fill(cls, root):
        archives.put(root, WHEEL, SMALL)
        archives.put(root, LARGE, BIG)
        return [WHEEL, LARGE]

    @contextlib.contextmanager
    def serve(self, limit):
        with running(self.make_app(max_connections=limit)) as server:
            self.address = server.server_address[:2]
            self.server = server
            yield

    def connect(self, data=b""):
        wire = Wire(self.address)
        self.addCleanup(wire.socket.close)
        wire.send(data)
        return wire

    def ask(self, path="/health"):
        """Return a connection that got an answer, and its status."""
        wire = self.connect(get(path))
        return wire, wire.answer()[0]

    def download(self):
        """Return a connection that the server is busy with."""
        wire = self.connect(get("/packages/" + LARGE))
        self.assertEqual(200, wire.head()[0])
        return wire

    def is_served(self):
        wire, status = self.ask()
        wire.socket.close()
        return status == 200

    def wait_for_waits(self):
        """Wait until no connection answers any more."""
        wait_for(lambda: all(connection.wire.waits_since for connection
                             in list(self.server.connections)), "all wait")

    def left(self):
        with self.server.changed:
            return self.server.count


class TestLimit(ConnectionsTestCase):
    def test_who_waits_longest_is_closed(self):
        with self.serve(3):
            wires = []
            for _ in range(3):
                wires.append(self.ask()[0])
                self.wait_for_waits()
            first, second, third = wires
            for wire in first, third:  # now the second waits longest
                wire.send(get("/simple/"))
                self.assertEqual(200, wire.answer()[0])
                self.wait_for_waits()
            fourth, status = self.ask()
            self.assertEqual(200, status)
            self.assertTrue(second.is_closed())
            self.wait_for_waits()
            self.assertEqual(200, self.ask()[1])
            self.assertTrue(first.is_closed())
            for wire in third, fourth:
                wire.send(get("/simple/"))
                self.assertEqual(200, wire.answer()[0])

    def test_many_more_than_the_limit(self):
        """Each is served, one after the other."""
        with self.serve(5):
            wires = [self.ask() for _ in range(100)]
            self.assertEqual({200}, {status for _, status in wires})
            closed = [wire for wire, _ in wires[:-5] if wire.is_closed()]
            self.assertEqual(95, len(closed))
            wait_for(lambda: self.left() <= 5, "the others are gone")

    def test_connection_without_a_request_gives_way(self):
        """Those that begin and never go on keep nobody out."""
        with self.serve(4):
            idle = []
            while len(idle) < 4:
                idle.append(self.connect(b"GET / HT" * (len(idle) % 2)))
                wait_for(lambda: len(self.server.connections) == len(idle),
                         "taken")
            self.assertEqual(200, self.ask()[1])
            self.assertTrue(idle[0].is_closed())

    def test_busy_connections_are_not_closed(self):
        with self.serve(3):
            busy = [self.download() for _ in range(3)]
            for _ in range(30):
                wire = self.connect(get("/health"))
                status, headers, body = wire.answer()
                self.assertEqual((503, b""), (status, body))
                self.assertEqual("1", headers["retry-after"])
                self.assertEqual("close", headers["connection"])
            # Nor do those that were refused count for long.
            busy.pop().socket.close()
            wait_for(self.is_served, "a place is free", 10)
            for wire in busy:
                size = len(wire.buffer)
                while size < len(BIG):
                    data = wire.socket.recv(2 ** 20)
                    self.assertTrue(data, "cut off")
                    size += len(data)
                wire.buffer = b""
                wire.send(get("/health"))
                self.assertEqual(200, wire.answer()[0])

    def test_refusal_is_read_whenever_it_comes(self):
        """Before the request, after it, or in the middle of a body."""
        with self.serve(1):
            busy = self.download()
            for data in (b"", b"GET", get("/health"), get(
                    "/", b"Content-Length: 100000", method=b"POST",
                    body=b"x" * 1000)):
                wire = self.connect(data)
                self.assertEqual(503, wire.answer()[0])
                with contextlib.suppress(ConnectionError):
                    wire.send(b"y")
                self.assertTrue(wire.is_closed())
            busy.socket.close()

    def test_flood(self):
        """Far beyond the limit; then all is as before."""
        with self.serve(3):
            busy = [self.download() for _ in range(3)]
            refused = [self.connect(get("/health")) for _ in range(300)]
            for wire in refused:
                with contextlib.suppress(AssertionError):
                    self.assertEqual(503, wire.answer()[0])
                wire.socket.close()
            for wire in busy:
                wire.socket.close()
            wait_for(self.is_served, "served again", 10)
            wait_for(lambda: not self.left(), "all are gone", 10)
            self.assertEqual({200}, {self.ask()[1] for _ in range(20)})

    def test_uploads_are_not_cut_off_by_new_connections(self):
        """A connection that just got busy is none that waits."""
        app = self.make_app(max_connections=8, authenticated=(),
                            password_file=".")
        body = b"x" * 60000
        request = get("/", b"Content-Type: multipart/form-data; boundary=b",
                      b"Content-Length: %d" % len(body), method=b"POST")
        stop, found = threading.Event(), []

        def knock():
            while not stop.is_set():
                with contextlib.suppress(OSError, AssertionError):
                    self.ask()
        with running(app) as server:
            self.address = server.server_address[:2]
            threads = [threading.Thread(target=knock) for _ in range(3)]
            for thread in threads:
                thread.start()
            try:
                for _ in range(150):
                    wire = self.connect()
                    with contextlib.suppress(AssertionError, OSError):
                        wire.send(request)
                        wire.send(body)
                        found.append(wire.answer()[2])
                    wire.socket.close()
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
        self.assertGreater(len(found), 50)
        self.assertEqual([], [text for text in found
                              if b"incomplete" in text])

    def test_real_server_has_the_option(self):
        with ServerProcess("--max-connections", "2", self.root) as server:
            address = urlsplit(server.url)
            self.address = address.hostname, address.port
            first, second, _ = (self.ask()[0].socket for _ in range(3))
            closed = select.select([first, second], [], [], 20)[0]
            self.assertEqual([b""], [sock.recv(1) for sock in closed])
            self.assertEqual(0, server.stop())
        self.assertEqual("", server.output)


class Trickle:
    """Clients that send the next byte of what never ends, until they stop."""

    def __init__(self, wires):
        self.wires = wires
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *exception):
        self.ending.set()
        self.thread.join()
        for wire in self.wires:
            wire.socket.close()

    def run(self):
        while not self.ending.wait(0.2):
            for wire in self.wires:
                with contextlib.suppress(OSError):
                    wire.send(b"a" * 150)


class TestHolding(ConnectionsTestCase):
    """Who asks for nothing that an account allows cannot keep a place."""

    POST = get("/", b"Content-Length: 90000000", method=b"POST")
    SEARCH = get("/RPC2", b"Content-Type: text/xml",
                 b"Content-Length: 60000", method=b"POST")
    FORM = (b"Content-Type: multipart/form-data; boundary=b",
            b"Content-Length: 400")

    def test_ways_to_go_on_for_ever(self):
        for data in (b"GET / HTTP/1.1\r\nno field\r\n\r\n", self.POST,
                     self.SEARCH):
            with self.subTest(data), self.serve(5), \
                    Trickle([self.connect(data) for _ in range(8)]):
                wait_for(self.is_served, "served in spite of them", 10)

    def test_what_is_no_request_is_listened_to_shortly(self):
        with mock.patch.object(pypi_server, "LINGER_REFUSED", 0.5), \
                self.serve(5):
            wire = self.connect(b"GET / HTTP/1.1\r\nno field\r\n\r\n")
            with Trickle([wire]):
                self.assertEqual(400, wire.answer()[0])
                wait_for(lambda: not self.left(), "it is gone", 10)

    def test_bodies_give_way_unless_an_account_stands_for_them(self):
        users = os.path.join(self.folder, "users")
        with open(users, "w") as file:
            file.write("joe:%s\n" % SHA)
        with mock.patch.object(pypi_server, "BODY_CLAIM", 0.3):
            for settings, lines, expected in (
                    ({"authenticated": (), "password_file": "."}, (), 503),
                    ({"password_file": users}, (JOE,), 400)):
                app = self.make_app(max_connections=3, **settings)
                with running(app) as server:
                    self.address = server.server_address[:2]
                    upload = self.connect(get(
                        "/", *self.FORM + lines, method=b"POST"))
                    time.sleep(0.5)
                    for _ in range(20):
                        wait_for(lambda server=server: self.has_room(server),
                                 "the last one is answered to its end")
                        self.assertEqual(200, self.ask()[1])
                    wait_for(lambda server=server: len([
                        connection for connection in server.connections
                        if connection.wire.waits_since]) > 1, "they wait")
                    with contextlib.suppress(OSError):
                        upload.send(b"x" * 400)
                    self.assertEqual(expected, upload.answer()[0])

    def has_room(self, server):
        """Tell whether one that waits can make room for another."""
        with server.changed:
            return server.count < 3 or any(
                0 < connection.wire.waits_since <= time.monotonic()
                and not connection.wire.is_ended
                for connection in server.connections)

    def test_slow_readers_of_what_is_kept_ready(self):
        """They are as many as the limit says; the others are refused."""
        path = os.path.join(self.folder, "welcome")
        with open(path, "w") as file:
            file.write("x" * 12 * 2 ** 20)
        app = self.make_app(max_connections=5, welcome_file=path)
        with mock.patch.multiple(
                pypi_server, REPEAT=600, REPEAT_AT_MOST=600), \
                running(app) as server:
            self.address = server.server_address[:2]
            wire = self.connect(get("/"))  # the others get the same bytes
            self.assertEqual(200, wire.answer()[0])
            wire.socket.close()
            wait_for(lambda: not server.count, "it is gone")
            readers, heads = [], []
            for _ in range(25):
                sock = socket.socket()
                self.addCleanup(sock.close)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                sock.settimeout(20)
                sock.connect(self.address)
                sock.sendall(get("/"))
                readers.append(sock)
                # Before the next one comes: until it is answered, it waits.
                heads.append(sock.recv(12)[9:])
            self.assertEqual({b"200", b"503"}, set(heads))
            self.assertEqual(5, heads.count(b"200"))
            self.assertEqual(5, len(server.connections))
            for sock in readers:
                sock.close()
            wait_for(self.is_served, "served again", 10)


class TestWaits(ConnectionsTestCase):
    def test_idle_connections_are_closed(self):
        with mock.patch.multiple(pypi_server, IDLE_TIMEOUT=0.6,
                                 TEND_INTERVAL=0.1), self.serve(100):
            busy = self.download()
            started = time.monotonic()
            idle = self.connect(), self.ask()[0], self.ask("/simple/")[0]
            active = self.ask()[0]
            while time.monotonic() < started + 1.5:
                active.send(get("/health"))
                self.assertEqual(200, active.answer()[0])
                time.sleep(0.05)
            for wire in idle:
                self.assertTrue(wire.is_closed())
            self.assertTrue(busy.receive())
            busy.socket.close()
            active.send(get("/health"))
            self.assertEqual(200, active.answer()[0])

    def test_time_for_a_head_is_not_the_one_for_an_answer(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            wire = pypi_server.Wire(ours)
            theirs.sendall(b"GET")
            wire.receive(time.monotonic() + 20)
            self.assertIsNone(ours.gettimeout())
            with self.assertRaises(socket.timeout):
                wire.receive(time.monotonic())
            self.assertIsNone(ours.gettimeout())

    def test_stop_under_load(self):
        """It ends soon, whatever the connections are doing."""
        for _ in range(3):
            with ServerProcess(self.root) as server:
                address = urlsplit(server.url)
                self.address = address.hostname, address.port
                stop, count = threading.Event(), []

                def load(number, stop=stop, count=count):
                    with contextlib.suppress(OSError, AssertionError):
                        wire = self.connect()
                        while not stop.is_set():
                            wire.send(get("/health?%d" % (
                                len(count) if number % 2 else 0)))
                            wire.answer()
                            count.append(1)
                threads = [threading.Thread(target=load, args=(number,))
                           for number in range(16)]
                for thread in threads:
                    thread.start()
                try:
                    wait_for(lambda count=count: len(count) > 500, "load")
                    started = time.monotonic()
                    self.assertEqual(0, server.stop())
                    self.assertLess(time.monotonic() - started, 10)
                finally:
                    stop.set()
                    for thread in threads:
                        thread.join()
            self.assertEqual("", server.output)

    def test_body_that_nobody_reads_holds_no_connection(self):
        """Anybody may send one, and slowly."""
        with self.serve(5):
            wires = [self.connect(get("/health", b"Content-Length: 60000"))
                     for _ in range(5)]
            for wire in wires:
                status, headers, _ = wire.answer()
                self.assertEqual((200, "close"), (
                    status, headers["connection"]))


@unittest.skipUnless(hasattr(os, "getuid") and os.getuid() == 0,
                     "only root can become a user who runs nothing else")
class TestThreads(ConnectionsTestCase):
    def test_no_more_threads(self):
        """Who finds none is refused; when some are free, all is well."""
        server = ServerProcess(
            "--cache-dir", "/nonexistent/cache", self.root,
            program=("-c", FEW_THREADS, os.path.dirname(SCRIPT)))
        for path in self.folder, self.root:
            os.chmod(path, 0o755)
        with server:
            address = urlsplit(server.url)
            self.address = address.hostname, address.port
            wires = [self.connect(get("/health")) for _ in range(40)]
            found = [wire.answer()[0] for wire in wires]
            self.assertEqual({200, 503}, set(found))
            for wire, status in zip(wires, found):
                if status == 200:  # it does not suffer
                    wire.send(get("/simple/"))
                    self.assertEqual(200, wire.answer()[0])
            for wire in wires:
                wire.socket.close()
            wait_for(self.is_served, "served again", 10)
            self.assertEqual({200}, {self.ask()[1] for _ in range(5)})
            self.assertEqual(0, server.stop())
        self.assertNotIn("Traceback", server.output)
        self.assertIn("is refused", server.output)


class TestManyConnections(ConnectionsTestCase):
    def test_thousand_that_wait_delay_nobody(self):
        try:
            import resource
        except ImportError:
            self.skipTest("no limits here")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < 1200:
            self.skipTest("too few files may be open")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE,
                        (soft, hard))
        with ServerProcess(self.root) as server:
            address = urlsplit(server.url)
            self.address = address.hostname, address.port
            wires = [self.connect(get("/health")) for _ in range(1000)]
            self.assertEqual({200}, {wire.answer()[0] for wire in wires})
            times = []
            for _ in range(20):
                started = time.monotonic()
                self.assertEqual(200, self.ask()[1])
                times.append(time.monotonic() - started)
            self.assertLess(sorted(times)[10], 0.5)
            self.assertEqual(0, server.stop())
        self.assertEqual("", server.output)


if __name__ == "__main__":
    unittest.main()
