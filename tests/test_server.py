"""Section Server, over real sockets, and the commands that start it."""

import contextlib
import io
import logging
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import zipfile
from urllib.parse import urlsplit

import pypi_server
from tests import archives
from tests.helpers import (
    PROGRAM, SCRIPT, DirectoryTestCase, ServerProcess, SharedTestCase, Wire,
    ask, listening, wait_for,
)
from tests.test_headers import BAD_HEADS, BAD_TARGETS, LENGTHS

WHEEL = "foo-1.0-py3-none-any.whl"
LARGE = "large-1.0-py3-none-any.whl"
SMALL = archives.wheel("foo", "1.0", body="text\n" * 500)
# Larger than what the system buffers between two sockets.
BIG = archives.wheel("large", "1.0", files={"zeros": b"\0" * (24 * 2 ** 20)},
                     compression=zipfile.ZIP_STORED)


def get(path="/simple/", *lines, version=b"1.1", method=b"GET", body=b""):
    """Return the bytes of a request."""
    head = (method + b" " + path.encode() + b" HTTP/" + version, b"Host: a")
    return b"\r\n".join(head + lines + (b"", b"")) + body


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


class WireTestCase(SharedTestCase):
    """One server for all tests of a class; each connects to it."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.listening = listening(cls.app)
        cls.address = cls.listening.__enter__()

    @classmethod
    def tearDownClass(cls):
        if hasattr(cls, "listening"):
            cls.listening.__exit__(None, None, None)
        super().tearDownClass()

    @classmethod
    def fill(cls, root):
        archives.put(root, WHEEL, SMALL)
        archives.put(root, LARGE, BIG)
        return [WHEEL, LARGE]

    def connect(self, data=b"", timeout=20):
        wire = Wire(self.address, timeout)
        self.addCleanup(wire.socket.close)
        if data:
            wire.send(data)
        return wire

    def exchange(self, data):
        """Return (status, headers, body) of the one answer to some bytes."""
        wire = self.connect(data)
        answer = wire.answer()
        self.assertTrue(wire.is_closed(), "not closed, or more answers")
        return answer


class TestConnections(WireTestCase):
    def test_keep_alive(self):
        """One connection serves one request after another."""
        wire = self.connect()
        for method, path, lines, status in (
                ("GET", "/simple/", (), 200), ("HEAD", "/simple/", (), 200),
                ("GET", "/simple/foo/", (), 200), ("GET", "/a/b/c", (), 404),
                ("HEAD", "/a/b/c", (), 404), ("GET", "/simple/Foo/", (), 302),
                ("DELETE", "/simple/foo/", (), 405),
                ("GET", "/packages/" + WHEEL, (), 200),
                ("HEAD", "/packages/" + LARGE, (), 200),
                ("GET", "/packages/" + WHEEL, (b"Range: bytes=1-2",), 206),
                ("GET", "/packages/" + WHEEL, (b"Range: bytes=-0",), 416),
                ("GET", "/simple/", (b"If-None-Match: *",), 304),
                ("GET", "/packages/" + WHEEL, (b"If-None-Match: *",), 304),
                ("GET", "/simple/", (b"Accept: x/y",), 406),
                ("GET", "/health", (), 200)):
            with self.subTest(method=method, path=path):
                wire.send(get(path, *lines, method=method.encode()))
                found = wire.answer(method)
                self.assertEqual(status, found[0])
                self.assertNotIn("connection", found[1])
                self.assertRegex(found[1]["date"], r"^\w{3}, \d\d .* GMT$")
                if status != 304:
                    self.assertIn("content-length", found[1])

    def test_pipelined_requests_are_answered_in_order(self):
        paths = ["/packages/" + WHEEL, "/simple/", "/a/b/c", "/health"] * 9
        wire = self.connect(b"".join(
            get(path, b"Range: bytes=%d-%d" % (number, number))
            for number, path in enumerate(paths)))
        for number, path in enumerate(paths):
            status, _, body = wire.answer()
            if path.startswith("/packages"):
                self.assertEqual((206, SMALL[number:number + 1]),
                                 (status, body))
            elif path == "/health":
                self.assertEqual(b"Ok", body)
            else:
                self.assertEqual(404 if "b" in path else 200, status)

    def test_request_in_pieces(self):
        wire = self.connect()
        for byte in get("/health", b"X: y") * 2:
            wire.send(bytes([byte]))
        self.assertEqual(b"Ok", wire.answer()[2])
        self.assertEqual(b"Ok", wire.answer()[2])

    def test_one_empty_line_may_come_first(self):
        wire = self.connect(b"\r\n" + get("/health") * 2)
        self.assertEqual(200, wire.answer()[0])
        self.assertEqual(200, wire.answer()[0])

    def test_close_is_heard_and_said(self):
        for lines in (b"Connection: close",), (b"Connection: x, Close",):
            status, headers, _ = self.exchange(get("/simple/", *lines))
            self.assertEqual((200, "close"), (status, headers["connection"]))

    def test_http_1_0(self):
        for data in (get(version=b"1.0"), b"GET /simple/ HTTP/1.0\r\n\r\n"):
            status, headers, body = self.exchange(data)
            self.assertEqual((200, "close"), (status, headers["connection"]))
            self.assertIn(b"foo", body)
        wire = self.connect(get(
            "/health", b"Connection: Keep-Alive", version=b"1.0") * 2)
        for _ in range(2):
            status, headers, _ = wire.answer()
            self.assertEqual("keep-alive", headers["connection"].lower())

    def test_no_delay_between_answers(self):
        """With Nagle's algorithm each of them takes 40 ms."""
        wire = self.connect()
        started = time.monotonic()
        for _ in range(60):
            wire.send(get("/packages/" + WHEEL))
            self.assertEqual(SMALL, wire.answer()[2])
            wire.send(get("/simple/"))
            wire.answer()
        self.assertLess(time.monotonic() - started, 2.4)

    def test_small_answer_comes_at_once(self):
        """Head and body are one send, so one receive gets both."""
        for path in "/health", "/simple/", "/simple/foo/", "/a/b/c":
            wire = self.connect(get(path))
            self.assertTrue(wire.receive())
            length = len(wire.buffer)
            wire.answer()
            self.assertGreater(length, 100)
            self.assertEqual(b"", wire.buffer)

    def test_many_parallel_connections(self):
        wires = [self.connect() for _ in range(200)]
        started = time.monotonic()
        for wire in wires:
            wire.send(get("/simple/foo/"))
        for wire in wires:
            self.assertEqual(200, wire.answer()[0])
        self.assertLess(time.monotonic() - started, 5)
        # They stay open, all of them.
        for wire in wires:
            wire.send(get("/packages/" + WHEEL))
        for wire in wires:
            self.assertEqual(SMALL, wire.answer()[2])

    def test_burst_of_connections(self):
        """The backlog takes them: no connection waits a second for its
        second attempt."""
        slowest = []

        def run():
            for _ in range(10):
                started = time.monotonic()
                with Wire(self.address) as wire:
                    wire.send(get("/health"))
                    wire.answer()
                slowest.append(time.monotonic() - started)
        threads = [threading.Thread(target=run) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(300, len(slowest))
        self.assertLess(sorted(slowest)[150], 1)

    def test_slow_clients_delay_nobody(self):
        for data in (b"", b"GET", get()[:-2], get("/packages/" + LARGE),
                     get("/simple/", b"Content-Length: 9"),
                     get("/", b"Transfer-Encoding: chunked",
                         method=b"POST")):
            for _ in range(10):
                self.connect(data)
        for _ in range(5):
            started = time.monotonic()
            wire = self.connect(get("/simple/"))
            self.assertEqual(200, wire.answer()[0])
            self.assertLess(time.monotonic() - started, 1)


class TestBodies(WireTestCase):
    def test_unread_body_is_no_request(self):
        body = get("/a/b/c")
        wire = self.connect(get(
            "/health", b"Content-Length: %d" % len(body), body=body)
            + get("/simple/"))
        self.assertEqual((200, b"Ok"), wire.answer()[::2])
        self.assertEqual(200, wire.answer()[0])

    def test_unread_chunks_are_no_request(self):
        piece = get("/a/b/c")
        body = (b"%x\r\n%s\r\n" % (len(piece), piece)) * 3 + (
            b"A;name=value\r\n0123456789\r\n0\r\n\r\n")
        wire = self.connect(get(
            "/health", b"Transfer-Encoding: chunked", body=body)
            + get("/simple/"))
        self.assertEqual((200, b"Ok"), wire.answer()[::2])
        self.assertEqual(200, wire.answer()[0])

    def test_body_of_refused_requests(self):
        body = get("/simple/")
        for path, method, status in (
                ("/a/b/c", b"GET", 404), ("/simple/foo/", b"POST", 405),
                ("/packages/" + WHEEL, b"PUT", 405), ("/", b"BREW", 501)):
            wire = self.connect(get(
                path, b"Content-Length: %d" % len(body), method=method,
                body=body) + get("/health"))
            self.assertEqual(status, wire.answer()[0])
            self.assertEqual(b"Ok", wire.answer()[2])

    def test_large_body_is_answered_and_not_read(self):
        """The client sees the answer although it is still sending."""
        length = 8 * 2 ** 20
        wire = self.connect(get(
            "/health", b"Content-Length: %d" % length))
        block = b"x" * 65536
        with contextlib.suppress(ConnectionError):
            for _ in range(length // len(block)):
                wire.send(block)
        status, headers, body = wire.answer()
        self.assertEqual((200, b"Ok", "close"),
                         (status, body, headers["connection"]))
        self.assertTrue(wire.is_closed())

    def test_expectation_is_not_met_by_who_reads_nothing(self):
        wire = self.connect(get(
            "/health", b"Content-Length: 5", b"Expect: 100-continue"))
        status, headers, _ = wire.answer()
        self.assertEqual((200, "close"), (status, headers["connection"]))
        self.assertTrue(wire.is_closed())
        wire = self.connect(get("/health", b"Expect: 100-continue") * 2)
        self.assertEqual(200, wire.answer()[0])
        self.assertEqual(200, wire.answer()[0])

    def test_bad_chunks_end_the_connection(self):
        """The answer may have been sent, but nothing more is read."""
        smuggled = get("/a/b/c")
        for chunk in (b"0x3\r\nabc\r\n", b"+3\r\nabc\r\n", b"-1\r\n",
                      b"0_3\r\nabc\r\n", b"\r\n", b" \r\n", b"3 \r\nabc\r\n",
                      b" 3\r\nabc\r\n", b"zz\r\n", b"fffffffff\r\n",
                      b"ffffffffffffffffff\r\n", b"3\nabc\r\n",
                      b"3;a\nb\r\nabc\r\n", b"3\r\nabcXX", b"3\r\nabc\n",
                      b"3;" + b"x" * 70000 + b"\r\nabc\r\n",
                      b"0\r\nContent-Length: 9\r\n\r\n",
                      b"0\r\nHost: b\r\n\r\n", b"0\r\nX: y\r\n\r\n",
                      b"\xb2\r\nab\r\n"):
            with self.subTest(chunk[:30]):
                wire = self.connect(get(
                    "/health", b"Transfer-Encoding: chunked", body=chunk))
                with contextlib.suppress(ConnectionError):
                    wire.send(b"0\r\n\r\n" + smuggled * 3)
                self.assertIn(wire.answer()[0], (200, 400))
                self.assertTrue(wire.is_closed())


class TestMalformed(WireTestCase):
    """Answered in HTTP, with the right status, and closed."""

    def check(self, data, *statuses):
        # Whatever the reading of the first, this is never answered.
        status, headers, body = self.exchange(data + get("/health"))
        self.assertIn(status, statuses)
        self.assertEqual("close", headers["connection"])
        self.assertEqual(headers["content-length"], str(len(body)))
        self.assertLess(len(body), 300)

    def test_heads(self):
        for name, data, status in BAD_HEADS:
            if name in ("empty", "blank first", "empty line"):
                continue  # over a socket these are other requests
            with self.subTest(name):
                self.check(data + b"\r\n\r\n", status)

    def test_targets(self):
        for target in BAD_TARGETS:
            with self.subTest(target):
                self.check(get(target), 400)

    def test_lengths(self):
        for lines, wanted in LENGTHS:
            if wanted is pypi_server.HTTPError:
                with self.subTest(lines):
                    self.check(get("/health", *lines), 400, 501)

    def test_length_and_coding_in_http_1_0(self):
        self.check(get("/health", b"Transfer-Encoding: chunked",
                       version=b"1.0"), 400, 501)

    def test_head_has_no_body_even_then(self):
        for target in "/%00", "/%zz":
            wire = self.connect(get(target, method=b"HEAD"))
            self.assertEqual(400, wire.head()[0])
            self.assertTrue(wire.is_closed())

    def test_long_lines(self):
        """The same answer, however the bytes arrive."""
        for name, data, status in (
                ("a long target", get("/" + "x" * 9000), 414),
                ("a very long target", get("/" + "x" * 70000), 414),
                ("a long query", get("/simple/?" + "x" * 9000), 414),
                ("no end", b"x" * 70000, 414),
                ("a large head", get("/health", *[
                    b"X-%d: %s" % (number, b"y" * 1000)
                    for number in range(40)]), 431),
                ("a very large head", get("/health", *[
                    b"X-%d: %s" % (number, b"y" * 8000)
                    for number in range(90)]), 431),
                ("many fields", get("/health", *[b"X: y"] * 101), 431)):
            for size in (len(data), 5000, 1000):
                with self.subTest(name, size=size):
                    wire = self.connect()
                    with contextlib.suppress(ConnectionError):
                        for at in range(0, len(data), size):
                            wire.send(data[at:at + size])
                            # So that they do not arrive as one.
                            if size < len(data) < 20000:
                                time.sleep(0.002)
                    self.assertEqual(status, wire.answer()[0])
                    self.assertTrue(wire.is_closed())

    def test_head_of_a_browser_with_many_cookies(self):
        wire = self.connect(get(
            "/health", b"Cookie: " + b"c" * 7000, b"X: " + b"y" * 7000))
        self.assertEqual(200, wire.answer()[0])

    def test_tls_on_this_port_is_refused_soon(self):
        """A client with https:// learns at once that this is not it."""
        started = time.monotonic()
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with self.assertRaises(OSError), \
                socket.create_connection(self.address, 20) as plain:
            context.wrap_socket(plain).close()
        self.assertLess(time.monotonic() - started, 5)

    def test_other_requests_go_on(self):
        for data in b"\0" * 9, b"\xff\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n":
            self.connect(data)
        self.assertEqual(200, self.connect(get("/health")).answer()[0])


class TestDownloads(WireTestCase):
    def test_large_file_to_a_slow_reader(self):
        wire = self.connect(get("/packages/" + LARGE))
        _, headers = wire.head()
        self.assertEqual(str(len(BIG)), headers["content-length"])
        other = self.connect(get("/packages/" + WHEEL))
        self.assertEqual(SMALL, other.answer()[2])
        # In pieces: it would be slow to add small ones to a large text.
        pieces, left = [wire.buffer], len(BIG) - len(wire.buffer)
        while left:
            data = wire.socket.recv(min(left, 2 ** 20))
            self.assertTrue(data)
            pieces.append(data)
            left -= len(data)
        self.assertEqual(BIG, b"".join(pieces))
        wire.buffer = b""
        wire.send(get("/health"))
        self.assertEqual(200, wire.answer()[0])

    def test_range_of_a_large_file(self):
        wire = self.connect()
        for start, stop in (0, 1), (len(BIG) - 9, len(BIG)), (
                10 ** 6, 3 * 10 ** 6):
            wire.send(get("/packages/" + LARGE, b"Range: bytes=%d-%d" % (
                start, stop - 1)))
            status, _, body = wire.answer()
            self.assertEqual(206, status)
            self.assertTrue(BIG[start:stop] == body)

    def test_file_cut_short_meanwhile_closes_the_connection(self):
        """The client must see that it did not get all that was promised."""
        path = archives.put(self.root, "cut-1.0-py3-none-any.whl",
                            BIG.replace(b"large-1.0", b"cut__-1.0"))
        os.rename(path, path.replace("cut-", "cut__-"))
        path = path.replace("cut-", "cut__-")
        self.addCleanup(os.remove, path)
        target = "/packages/" + os.path.basename(path)

        def begin():
            wire = self.connect(get(target))
            return wire if wire.head()[0] == 200 else None
        wire = wait_for(begin, "it is served")
        os.truncate(path, 10 ** 6)
        received = len(wire.buffer)
        while True:
            try:
                data = wire.socket.recv(2 ** 20)
            except ConnectionError:
                break
            if not data:
                break
            received += len(data)
        self.assertLess(received, len(BIG))


class ProcessTestCase(DirectoryTestCase):
    def setUp(self):
        super().setUp()
        archives.put(self.root, WHEEL, SMALL)

    def connect(self, server):
        address = urlsplit(server.url)
        wire = Wire((address.hostname, address.port))
        self.addCleanup(wire.socket.close)
        return wire

    def wait_for_large(self, server):
        """Put a large file there, and wait until it is served."""
        archives.put(self.root, LARGE, BIG)
        wait_for(lambda: server.get(
            "packages/" + LARGE, method="HEAD").status == 200, "served")


class TestStopping(ProcessTestCase):
    def test_signals_end_it_cleanly(self):
        for number in signal.SIGTERM, signal.SIGINT:
            with self.subTest(number):
                with ServerProcess(self.root) as server:
                    self.assertEqual(200, server.get("simple/").status)
                    started = time.monotonic()
                    self.assertEqual(0, server.stop(number))
                    self.assertLess(time.monotonic() - started, 5)
                self.assertEqual("", server.output)

    def test_idle_connections_do_not_hold_it_up(self):
        with ServerProcess(self.root) as server:
            wires = [self.connect(server) for _ in range(3)]
            wires[1].send(get("/health"))
            wires[1].answer()
            wires[2].send(b"GET / HT")
            started = time.monotonic()
            self.assertEqual(0, server.stop())
            self.assertLess(time.monotonic() - started, 5)
            for wire in wires:
                self.assertTrue(wire.is_closed())
        self.assertEqual("", server.output)

    def test_running_download_is_completed(self):
        for number in signal.SIGTERM, signal.SIGINT:
            with self.subTest(number), ServerProcess(self.root) as server:
                self.wait_for_large(server)
                wire = self.connect(server)
                wire.send(get("/packages/" + LARGE))
                wire.head()
                server.process.send_signal(number)
                address = urlsplit(server.url)
                wait_for(lambda: self.is_refused(
                    (address.hostname, address.port)), "no more taken")
                pieces = [wire.buffer]
                while sum(map(len, pieces)) < len(BIG):
                    data = wire.socket.recv(2 ** 20)
                    self.assertTrue(data)
                    pieces.append(data)
                self.assertTrue(b"".join(pieces) == BIG)
                try:
                    self.assertEqual(0, server.process.wait(5))
                except subprocess.TimeoutExpired:
                    self.fail("it does not end after the download")
            self.assertEqual("", server.output)

    def is_refused(self, address):
        try:
            socket.create_connection(address, 5).close()
        except ConnectionError:
            return True
        return False

    def test_started_again_at_once_on_the_same_port(self):
        with ServerProcess(self.root) as server:
            self.connect(server).send(get("/health"))
            port = str(urlsplit(server.url).port)
        for _ in range(2):
            with ServerProcess("-p", port, self.root) as server:
                self.assertEqual(int(port), urlsplit(server.url).port)
                self.assertEqual(b"Ok", server.get("health").body)


class TestStarting(ProcessTestCase):
    def test_line_says_what_is_served(self):
        second = os.path.join(self.folder, "second")
        archives.put(second, "bar-1.0-py3-none-any.whl", SMALL)
        with ServerProcess(self.root, second) as server:
            self.assertEqual(
                "Serving 2 projects from %s, %s at %s\n" % (
                    self.root, second, server.url), server.line)
            self.assertNotEqual(0, urlsplit(server.url).port)

    def test_addresses(self):
        for host in ["127.0.0.1", "localhost", "0.0.0.0"] + (
                ["::1", "::"] if has_ipv6() else []):
            with self.subTest(host), ServerProcess(
                    "-H", host, self.root) as server:
                self.assertEqual(b"Ok", server.get("health").body)
                self.assertIn(urlsplit(server.url).hostname,
                              (host, "localhost", "127.0.0.1"))

    def test_all_addresses_are_of_both_families(self):
        if not has_ipv6():
            self.skipTest("no IPv6 here")
        with ServerProcess("-H", "::", self.root) as server:
            port = urlsplit(server.url).port
            for host in "127.0.0.1", "::1":
                with Wire((host, port)) as wire:
                    wire.send(get("/health"))
                    self.assertEqual(200, wire.answer()[0])

    def test_prefix_is_in_the_line(self):
        with ServerProcess("--server-base-url", "/a/b", self.root) as server:
            self.assertTrue(server.url.endswith("/a/b/"))
            self.assertEqual(200, server.get("simple/").status)

    def test_options_before_the_command(self):
        path = os.path.join(self.folder, "log")
        command = [sys.executable, "-W", "error", SCRIPT, "-v", "--log-file",
                   path, "run", "-p", "0", "-H", "127.0.0.1", "--cache-dir",
                   self.folder, self.root]
        server = ServerProcess()
        server.command = command
        with server:
            self.assertEqual(200, server.get("simple/?x").status)
        with open(path) as file:
            self.assertIn("GET /simple/ 200", file.read())

    def test_version(self):
        for arguments in (["--version"], ["run", "--version"]):
            found = subprocess.check_output(
                [sys.executable, SCRIPT] + arguments,
                stderr=subprocess.STDOUT)
            self.assertIn(pypi_server.__version__.encode(), found)


# options of `run`, what the sentence names; the directory is added
MISTAKES = (
    (("-p", "abc"), "'abc'"), (("-p", "65536"), "'65536'"),
    (("--port", "80 80"), "'80 80'"), (("-p", ""), "''"),
    (("-H", "256.1.1.1"), "'256.1.1.1'"), (("-H", "a b"), "'a b'"),
    (("-H", "192.0.2.1"), "'192.0.2.1'"),
    (("--health-endpoint", "health"), "'health'"),
    (("--health-endpoint", "/a b"), "'/a b'"),
    (("--fallback-url", "ftp://a/"), "'ftp://a/'"),
    (("--fallback-url", "pypi.org"), "'pypi.org'"),
    (("--server-base-url", "pypi"), "'pypi'"),
    (("--server-base-url", "ftp://a/"), "'ftp://a/'"),
    (("--server-base-url", "/a?b"), "'/a?b'"),
    (("--hash-algo", "crc32"), "'crc32'"),
    (("--hash-algo", ""), "''"),
    (("--backend", "magic"), "'magic'"),
    (("--cache-control", "1 day"), "'1 day'"),
    (("--cache-control", "-5"), None),
    (("--log-stream", "paper"), "'paper'"),
    (("--log-file", "{folder}/none/log"), "none/log"),
    (("--log-frmt", "%(nothing)s"), "nothing"),
    (("--log-frmt", "no key"), "'no key'"),
    (("--log-req-frmt", "%(nothing)s"), "nothing"),
    (("--log-res-frmt", "%(status)"), "%(status)"),
    (("--log-err-frmt", "%(error)d %s"), "%(error)d %s"),
    (("--welcome", "{folder}/none.html"), "none.html"),
    (("--welcome", "{folder}"), "{folder}"),
    (("--trusted-proxy", "proxy.example"), "'proxy.example'"),
    (("--trusted-proxy", "10.0.0.0/99"), "'10.0.0.0/99'"),
    (("{folder}/none/deeper",), "none/deeper"),
    (("{folder}/file",), "{folder}/file"),
    (("{folder}/loop",), "{folder}/loop"),
)


@contextlib.contextmanager
def kill_at_last(process):
    try:
        yield
    except BaseException:
        process.kill()
        raise


class TestMainScript(ProcessTestCase):
    """A script becomes a module, so that its syntax tree takes no memory."""

    def start(self, *command, cwd=None):
        """Start a server by its command line; return what it runs as."""
        process = subprocess.Popen(
            [sys.executable, *command, "run", "-p", "0", "-i", "127.0.0.1",
             self.root], stdout=subprocess.PIPE, cwd=cwd,
            universal_newlines=True)
        with process, kill_at_last(process):
            url = process.stdout.readline().split()[-1]
            address = urlsplit(url)
            self.assertEqual(200, ask(
                address.hostname, address.port, "GET", "/health").status)
            found = []
            if os.path.exists("/proc/self/cmdline"):
                with open("/proc/%d/cmdline" % process.pid) as file:
                    found = file.read().split("\0")[1:-1]
            process.send_signal(signal.SIGTERM)
        self.assertEqual(0, process.returncode)
        return found

    def test_the_same_process_with_the_same_flags(self):
        folder = os.path.join(self.folder, "a 'place'")
        os.mkdir(folder)
        shutil.copy(SCRIPT, os.path.join(folder, "my index.py"))
        for flags in ((), ("-I", "-W", "error"), ("-X", "utf8", "-Es")):
            for cwd, script in ((None, SCRIPT), (folder, "my index.py"),
                                (folder, "./my index.py")):
                with self.subTest(flags=flags, script=script):
                    found = self.start(*flags, script, cwd=cwd)
                    self.assertEqual(list(flags), found[:len(flags)])
                    self.assertEqual(
                        [script, "run", "-p", "0", "-i", "127.0.0.1",
                         self.root], found[-7:])
                    if hasattr(sys, "orig_argv") \
                            and sys.implementation.name == "cpython":
                        self.assertRegex(
                            " ".join(found[len(flags):-7]), "^-c " + re.escape(
                                pypi_server.AS_MODULE).replace(
                                    r"\{file\}", "[0-9]+").replace(
                                        r"\{size\}", "[0-9]+") + "$")
                    self.assertEqual(["my index.py"], os.listdir(folder))

    def test_what_runs_as_a_module_stays(self):
        found = self.start("-m", "pypi_server", cwd=os.path.dirname(SCRIPT))
        self.assertEqual(["-m", "pypi_server", "run"], found[:3] or [
            "-m", "pypi_server", "run"])


class TestMistakes(ProcessTestCase):
    """Exit status 2 and one sentence that names the value."""

    def setUp(self):
        super().setUp()
        open(os.path.join(self.folder, "file"), "w").close()
        os.symlink("loop", os.path.join(self.folder, "loop"))
        # Taken, so that nothing of this ends with a running server.
        self.taken = socket.socket()
        self.addCleanup(self.taken.close)
        self.taken.bind(("127.0.0.1", 0))
        self.taken.listen(1)
        self.port = self.taken.getsockname()[1]
        for name in "handlers", "propagate", "level":
            value = getattr(pypi_server.LOG, name)
            self.addCleanup(setattr, pypi_server.LOG, name,
                            list(value) if name == "handlers" else value)

    def arguments(self, *options):
        return ["run", "-p", str(self.port), "-H", "127.0.0.1",
                "--cache-dir", self.folder, self.root] + [
                    option.format(folder=self.folder) for option in options]

    def run_main(self, *options):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = pypi_server.main(self.arguments(*options))
            except SystemExit as stop:  # argparse's own mistakes
                status = stop.code
        for handler in pypi_server.LOG.handlers:
            handler.close()
        return status, out.getvalue(), err.getvalue()

    def test_bad_values(self):
        for options, named in MISTAKES:
            with self.subTest(options):
                status, out, err = self.run_main(*options)
                self.assertEqual((2, ""), (status, out))
                if named:
                    self.assertIn(named.format(folder=self.folder), err)
                    self.assertEqual(1, err.count("\n"), err)
                    self.assertTrue(err.startswith("pypi-server: error: "))
                    self.assertGreater(len(err), 40)
                else:
                    self.assertNotIn("Traceback", err)

    def test_port_in_use(self):
        status, out, err = self.run_main()
        self.assertEqual((2, ""), (status, out))
        self.assertIn("port %d" % self.port, err)
        self.assertEqual(1, err.count("\n"), err)

    def test_as_a_process(self):
        for options in ((), ("-p", "abc"), ("{folder}/none/deeper",),
                        ("--no-such-option",)):
            process = subprocess.run(
                [sys.executable, "-W", "error", SCRIPT]
                + self.arguments(*options), stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, timeout=60)
            self.assertEqual((2, b""), (process.returncode, process.stdout))
            self.assertNotIn(b"Traceback", process.stderr)
            self.assertNotEqual(b"", process.stderr)

    def test_nothing_is_left_behind_by_a_mistake(self):
        before = sorted(os.listdir(self.folder))
        self.run_main("-p", "abc")
        self.assertEqual(before, sorted(os.listdir(self.folder)))


class TestLog(ProcessTestCase):
    def test_aborted_downloads_leave_no_traceback(self):
        with ServerProcess("-vv", self.root) as server:
            self.wait_for_large(server)
            folder = "/proc/%d/fd" % server.process.pid
            has_proc = os.path.isdir(folder)
            before = len(os.listdir(folder)) if has_proc else 0
            for number in range(40):
                wire = self.connect(server)
                wire.send(get("/packages/" + LARGE))
                if number % 2:
                    wire.head()
                # Reset, as an aborted client does.
                wire.socket.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER,
                    b"\1\0\0\0\0\0\0\0")
                wire.socket.close()
            self.assertEqual(200, server.get("packages/" + WHEEL).status)
            if has_proc:
                wait_for(lambda: len(os.listdir(folder)) <= before + 1,
                         "all files are closed")
        start = server.output.find("Traceback")
        self.assertEqual(-1, start, server.output[start - 300:start + 2000])

    def test_streams_and_levels(self):
        path = os.path.join(self.folder, "log")
        for options, is_printed, has_requests in (
                ((), False, False), (("-v",), True, True),
                (("-vv",), True, True),
                (("-v", "--log-stream", "stdout"), True, True),
                (("-v", "--log-stream", "none"), False, True)):
            with self.subTest(options):
                with ServerProcess("--log-file", path, *options,
                                   self.root) as server:
                    server.get("simple/")
                    server.get("a/b/c")
                with open(path) as file:
                    log = file.read()
                os.remove(path)
                for text in "GET /simple/ 200", "GET /a/b/c 404":
                    self.assertEqual(is_printed, text in server.output)
                    self.assertEqual(has_requests, text in log)

    def test_formats(self):
        with ServerProcess(
                "-vv", "--log-frmt", "<%(message)s>", "--log-req-frmt",
                "ask %(method)s %(path)s %(query)s %(agent)s",
                "--log-res-frmt", "%(status)s %(type)s %(length)s",
                "--log-err-frmt", "%s", self.root) as server:
            server.get("health?a=b", {"User-Agent": "tests/1"})
            server.get("a/b/c")
        self.assertIn("<ask GET /health a=b tests/1>\n", server.output)
        self.assertIn("<200 text/plain; charset=utf-8 2>\n", server.output)
        self.assertRegex(server.output, "<method=GET path=/a/b/c .*status=404"
                         ".*error=nothing at this address>\n")

    def test_nothing_gets_into_the_log_unprintable(self):
        """A line of the log is a line, and no terminal obeys it."""
        with ServerProcess(
                "-vv", "--log-req-frmt", "%s", "--log-res-frmt", "%s",
                "--log-err-frmt", "%s", self.root) as server:
            with self.connect(server) as wire:
                for path in ("/%C2%9B31m", "/simple/%E2%80%A8x/",
                             "/packages/%C2%85.whl", "/%E2%80%AEx/y/z"):
                    wire.send(get(path, b"User-Agent: a\x9bb\x85c"))
                    wire.answer()
                wire.send(get("/%1B%5B31m"))
                wire.answer()
            with self.connect(server) as wire:
                wire.send(b"\x1b[31m\x9b GET / HTTP/1.1\r\nX: \x1b\r\n\r\n")
                wire.answer()
        lines = server.output.split("\n")
        self.assertGreater(len(lines), 8)
        for line in lines:
            self.assertTrue(line.isprintable(), ascii(line))
            self.assertTrue(not line or re.match(r"20\d\d-", line), line)

    def test_credentials_are_not_logged(self):
        with ServerProcess(
                "-vv", "--log-req-frmt", "%s", "--log-res-frmt", "%s",
                "--log-err-frmt", "%s", self.root) as server:
            for path in "simple/", "a/b/c", "%00":
                server.get(path, {"Authorization": "Basic c2VjcmV0OnB3"})
        self.assertNotIn("c2VjcmV0", server.output)
        self.assertNotIn("secret", server.output)

    def test_full_pipe_does_not_stop_the_server(self):
        """Nobody reads what it prints."""
        reader, writer = os.pipe()
        process = None
        try:
            process = subprocess.Popen(
                [sys.executable, SCRIPT, "run", "-vv", "-p", "0", "-H",
                 "127.0.0.1", "--cache-dir", self.folder, self.root],
                stdout=subprocess.PIPE, stderr=writer,
                universal_newlines=True)
            url = urlsplit(process.stdout.readline().split()[-1])
            with Wire((url.hostname, url.port), timeout=10) as wire:
                for _ in range(1500):
                    wire.send(get("/health"))
                    wire.answer()
        finally:
            if process:
                process.kill()
                process.communicate()
            os.close(reader)
            os.close(writer)


class TestStalledLog(DirectoryTestCase):
    def test_full_pipe_does_not_stop_the_end(self):
        """Nor is a part of it waited for that could still be written."""
        reader, writer = os.pipe()
        environment = {name: text for name, text in os.environ.items()
                       if name != "PYTHONUNBUFFERED"}
        process = subprocess.Popen(
            [sys.executable, *PROGRAM, "run", "-vv", "--log-stream", "stdout",
             "-p", "0", "-H", "127.0.0.1", "--cache-dir", self.folder,
             self.root], stdout=writer, stderr=subprocess.DEVNULL,
            env=environment)
        try:
            line = b""
            while b"Serving" not in line or not line.endswith(b"\n"):
                line += os.read(reader, 1)
            url = urlsplit(re.search(b"http://[^\\s]+", line.rpartition(
                b"Serving")[2]).group(0).decode())
            with Wire((url.hostname, url.port), timeout=10) as wire:
                for _ in range(1500):
                    wire.send(get("/health"))
                    wire.answer()
            process.send_signal(signal.SIGTERM)
            self.assertEqual(0, process.wait(30))
        finally:
            process.kill()
            process.wait()
            os.close(reader)
            os.close(writer)


class SlowHead(threading.Thread):
    """Sends a head byte by byte, while the other tests run."""

    def __init__(self):
        super().__init__(daemon=True)
        self.stopping = threading.Event()
        self.seconds = 0.0
        self.status = 0

    def run(self):
        with tempfile.TemporaryDirectory() as folder:
            app = pypi_server.make_app(pypi_server.Config(
                roots=(folder,), cache_dir=folder))
            with listening(app) as address, Wire(address) as wire:
                wire.send(b"GET /health HTTP/1.1\r\nHost: a\r\nX: ")
                self.trickle(wire)
            app.warmer.stop()

    def trickle(self, wire):
        wire.socket.settimeout(0.001)
        started = time.monotonic()
        while not wire.buffer and not self.stopping.wait(0.3):
            with contextlib.suppress(socket.timeout):
                if not wire.receive():
                    return
            if not wire.buffer:
                wire.send(b"y")
        self.seconds = time.monotonic() - started
        self.status = wire.answer()[0] if wire.buffer else 0


SLOW_HEAD = SlowHead()


def setUpModule():
    SLOW_HEAD.start()


def tearDownModule():
    SLOW_HEAD.stopping.set()
    SLOW_HEAD.join()


class TestTimeouts(unittest.TestCase):
    """By its name the last of this file: what it waits for is over."""

    def test_slow_head_is_cut_off(self):
        """From its first byte, however often another one comes."""
        SLOW_HEAD.join(20)
        self.assertEqual(408, SLOW_HEAD.status)
        self.assertTrue(8 < SLOW_HEAD.seconds < 13, SLOW_HEAD.seconds)


REQUEST = pypi_server.Request("GET", "/", "", {}, io.BytesIO().read, "", "")


class TestHead(unittest.TestCase):
    def test_line_break_in_a_header_is_never_sent(self):
        """http.server does not check: whoever writes a head must."""
        for name, text in (("X", "a\r\nY: b"), ("X", "a\nb"), ("X", "a\rb"),
                           ("X\r\nY", "a"), ("X", "a\0b")):
            response = pypi_server.Response(200, ((name, text),))
            with self.assertRaises(ValueError):
                pypi_server.message(REQUEST, None, response, True)

    def test_reason_cannot_break_the_line(self):
        for reason in "a\r\nX: y", "a\nb":
            response = pypi_server.Response(200, (), b"", reason)
            with self.assertRaises(ValueError):
                pypi_server.message(REQUEST, None, response, True)

    def test_logging_is_quiet_by_default(self):
        self.assertIsInstance(pypi_server.LOG, logging.Logger)


if __name__ == "__main__":
    unittest.main()
