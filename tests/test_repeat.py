"""An answer that goes out again is the one that would be made anew.

Section Server, keeps the bytes of an answer for a moment, for whoever
sends the same head.
"""

import contextlib
import os
import re
import socket
import sys
import threading
import time
import unittest
from unittest import mock

import pypi_server
from tests import archives, forms
from tests.helpers import (
    DirectoryTestCase, ServerProcess, SharedTestCase, Wire, running, wait_for,
)
from tests.test_accounts import JOE, SHA, WRONG, write
from tests.test_server import get

WHEEL = "foo-1.0-py3-none-any.whl"
LARGE = "large-1.0-py3-none-any.whl"
SMALL = archives.wheel("foo", "1.0", body="text\n" * 500)
BIG = archives.wheel("large", "1.0", files={
    "random": os.urandom(2 * pypi_server.SMALL_FILE)})
JSON = b"Accept: " + pypi_server.SIMPLE_JSON.encode()
LOGIN = b"Authorization: " + JOE["Authorization"].encode()
NO_LOGIN = b"Authorization: " + WRONG["Authorization"].encode()
PATHS = (
    "/", "/simple", "/simple/", "/simple/foo/", "/simple/foo", "/simple/Foo/",
    "/simple/nothing/", "/simple/?format=json", "/foo", "/packages/",
    "/packages/" + WHEEL, "/packages/" + LARGE, "/packages/none.whl",
    "/packages/%s.metadata" % WHEEL, "/pypi/foo/json", "/foo/json",
    "/favicon.ico", "/health", "/a/b/c", "/%00")
LINES = (
    (), (JSON,), (b"Accept-Encoding: gzip",), (JSON, b"Accept-Encoding: gzip"),
    (b"Accept: text/html",), (b"Accept: x/y",), (b"If-None-Match: *",),
    (b'If-None-Match: "x"',), (b"Range: bytes=1-9",),
    (b"Range: bytes=-9", b'If-Range: "x"'), (b"Range: bytes=999999-",),
    (LOGIN,), (NO_LOGIN,), (b"Connection: close",), (b"Content-Length: 0",),
    (b"Expect: 100-continue",), (b"X: " + b"y" * 9000,), (b"X : y",))
PYPY = sys.implementation.name == "pypy"
FORM = b"Content-Type: multipart/form-data; boundary=b"


@contextlib.contextmanager
def repeating(seconds):
    """Keep answers so long; for 0, each is made anew."""
    with mock.patch.multiple(
            pypi_server, REPEAT=seconds, REPEAT_AT_MOST=seconds):
        yield


@contextlib.contextmanager
def counted():
    """Yield a list that gets the target of each answer that is made."""
    made = []
    answer = pypi_server.answer

    def note(app, request):
        made.append(request.path)
        return answer(app, request)
    with mock.patch.object(pypi_server, "answer", note):
        yield made


class Client(Wire):
    """Compares answers to the byte, but for their date."""

    def answers(self, methods):
        """Return the bytes of one answer to each method."""
        found = []
        for method in methods:
            while b"\r\n\r\n" not in self.buffer:
                if not self.receive():
                    return found + [self.buffer]
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            status = int(head[9:12])
            length = re.search(br"\r\nContent-Length: (\d+)", head)
            size = int(length.group(1)) if length and method != b"HEAD" \
                and status not in (100, 304) else 0
            while len(self.buffer) < size and self.receive():
                pass
            found.append(re.sub(br"\r\nDate: .*", b"", head)
                         + self.buffer[:size])
            self.buffer = self.buffer[size:]
        return found


def method_of(data):
    return data.lstrip().partition(b" ")[0]


class TestSameBytes(SharedTestCase):
    """With repetition and without, whatever is sent, however."""

    settings = {"authenticated": ("update",)}

    @classmethod
    def fill(cls, root):
        cls.settings = dict(cls.settings, password_file=write(
            os.path.join(cls.folder, "users"), "joe:%s\n" % SHA))
        archives.put(root, WHEEL, SMALL)
        archives.put(root, LARGE, BIG)
        return [WHEEL, LARGE]

    def ask(self, server, requests, times=1):
        """Return the answers to each request, one after the other."""
        found, client = [], None
        with contextlib.ExitStack() as stack:
            for data in requests:
                for _ in range(times):
                    if client is None:
                        client = stack.enter_context(
                            Client(server.server_address[:2]))
                    client.send(data)
                    found += client.answers([method_of(data)])
                    if b"\r\nConnection: close" in found[-1]:
                        client = None
        return found

    def compare(self, app, requests):
        """Return the requests whose answers were repeated."""
        with repeating(0), running(app) as server:
            expected = self.ask(server, requests)
        with repeating(600), running(app) as server:
            found = self.ask(server, requests, 2)
            with counted() as made:
                found_again = self.ask(server, requests)
        for place, data in enumerate(requests):
            for answer in (found[2 * place], found[2 * place + 1],
                           found_again[place]):
                if answer != expected[place]:
                    self.fail("%r\n%r\n%r" % (
                        data[:200], answer[:500], expected[place][:500]))
        # The tests below are about this: some were not made a third time.
        self.assertLess(len(made), len(requests) * 0.9)

    def test_requests(self):
        self.compare(self.app, [
            get(path, *lines, method=method)
            for path in PATHS for lines in LINES
            for method in (b"GET", b"HEAD")])

    def test_requests_with_an_account(self):
        app = self.make_app(authenticated=("download", "list", "update"),
                            password_file=self.settings["password_file"])
        for name in app.directories.index().projects:
            app.directories.project(name)  # so that the home page knows it
        self.compare(app, [
            get(path, *lines) for path in PATHS[:12]
            for lines in ((), (LOGIN,), (NO_LOGIN,), (LOGIN, JSON))])

    def test_http_1_0(self):
        self.compare(self.app, [
            get(path, *lines, version=b"1.0") for path in PATHS
            for lines in ((b"Connection: keep-alive",),
                          (b"Connection: Keep-Alive", JSON), ())])

    def test_what_is_repeated(self):
        """Or the tests here would hold for a server that repeats nothing."""
        with repeating(600), running(self.app) as server:
            for data, is_repeated in (
                    (get("/simple/foo/"), True), (get("/health"), True),
                    (get("/simple/foo/", JSON, method=b"HEAD"), True),
                    (get("/simple/foo/", b"If-None-Match: *"), True),
                    (get("/packages/" + WHEEL), True),
                    (get("/packages/" + WHEEL, b"Range: bytes=1-9"), True),
                    (get("/simple/Foo/"), True),
                    (get("/simple/", b"Content-Length: 0"), True),
                    (get("/packages/" + LARGE, method=b"HEAD"), True),
                    (get("/packages/" + LARGE), False),
                    (get("/a/b/c"), False), (get("/", method=b"PUT"), False),
                    (b"\r\n" + get("/packages/"), False),
                    (get("/simple/", b"Connection: close"), False)):
                with self.subTest(data), counted() as made:
                    self.ask(server, [data] * 3)
                    self.assertEqual(1 if is_repeated else 3, len(made))

    def test_pieces(self):
        """However the bytes arrive, and whatever follows them."""
        one, two = get("/simple/foo/"), get("/health", b"X: y")
        body = get("/a/b/c")
        with_body = get("/packages/", b"Content-Length: %d" % len(body),
                        body=body)
        chunked = get("/packages/", b"Transfer-Encoding: chunked", body=(
            b"%x\r\n%s\r\n0\r\n\r\n" % (len(one), one)))
        sequences = [
            ([one * 9], 9), ([one + two + one], 3), ([b"\r\n" + one], 1),
            ([one, b"\r\n" + two, one], 3), ([one + one[:9], one[9:]], 2),
            ([one + b"\r\n", two], 2), ([with_body + one], 2),
            ([with_body[:-9], with_body[-9:] + one, one], 3),
            ([with_body[:-len(body)], body, one], 2),
            ([with_body[:-len(body)], body + one[:9], one[9:] + two], 3),
            ([chunked + one + two], 3), ([chunked[:-7], chunked[-7:], two], 2),
            ([get("/simple/foo/", b"Content-Length: 0") + one], 2)]
        sequences += [([one[:at], one[at:]], 1) for at in range(1, len(one))]
        results = []
        for seconds in 0, 600:
            with repeating(seconds), running(self.app) as server:
                self.ask(server, [one, two, body])
                for pieces, count in sequences:
                    with Client(server.server_address[:2]) as client:
                        client.socket.setsockopt(
                            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        for piece in pieces:
                            client.send(piece)
                        client.socket.shutdown(socket.SHUT_WR)
                        results.append((pieces, client.answers(
                            [b"GET"] * count), client.is_closed()))
        half = len(results) // 2
        for expected, found in zip(results[:half], results[half:]):
            self.assertEqual(expected, found)
            self.assertTrue(found[2], "more answers than requests")

    def test_body_and_next_request_are_no_head(self):
        """The end of a body and the start of what follows it can look like
        a head that was answered; it is none (request smuggling).
        """
        def split(body, following):
            head = get("/", FORM, b"Expect: 100-continue",
                       b"Content-Length: %d" % len(body), method=b"POST")
            return head, body + following
        inner = get("/health", b"A: b")
        trap = b"GET /simple/foo/ HTTP/1.1\r\nX: "
        app = self.make_app(authenticated=(), password_file=".")
        with repeating(600), running(app) as server:
            found, = self.ask(server, [trap + inner])
            self.assertIn(b" 200 ", found)
            with Client(server.server_address[:2]) as client:
                head, rest = split(trap, inner)
                client.send(head)
                self.assertEqual([b"HTTP/1.1 100 Continue"],
                                 client.answers([b"POST"]))
                client.send(rest)
                first, second = client.answers([b"POST", b"GET"])
        self.assertIn(b" 400 ", first)
        self.assertTrue(second.endswith(b"Ok"), second)

    def test_host_is_part_of_the_request(self):
        with repeating(600), running(self.app) as server:
            for host in b"one", b"two", b"one":
                found, = self.ask(server, [get("/foo/json").replace(
                    b"Host: a", b"Host: " + host)])
                self.assertIn(b"http://%s/packages/" % host, found)

    def test_proxies_and_others(self):
        """The same head means another thing from a trusted proxy."""
        app = self.make_app(trusted_proxies=("127.0.0.2/32",))
        data = get("/foo/json", b"X-Forwarded-Host: outside.example")
        with repeating(600), running(app) as server:
            for _ in range(2):
                for address, host in (("127.0.0.1", b"http://a/"),
                                      ("127.0.0.2", b"//outside.example/")):
                    try:
                        sock = socket.create_connection(
                            server.server_address[:2], 20, (address, 0))
                    except OSError:
                        self.skipTest("no address %s" % address)
                    with sock:
                        sock.sendall(data)
                        self.assertIn(host, sock.recv(65536))

    def test_other_credentials(self):
        app = self.make_app(authenticated=("download", "list", "update"),
                            password_file=self.settings["password_file"])
        with repeating(600), running(app) as server:
            for path in "/simple/", "/simple/foo/", "/packages/" + WHEEL:
                for lines, status in (((LOGIN,), 200), ((), 401),
                                      ((NO_LOGIN,), 401), ((LOGIN,), 200)):
                    found, = self.ask(server, [get(path, *lines)])
                    self.assertEqual(status, int(found[9:12]))

    def test_auther_is_always_asked(self):
        asked = []

        def auther(user, password):
            asked.append(user)
            return len(asked) < 4
        app = self.make_app(authenticated=("list",), auther=auther)
        with repeating(600), running(app) as server:
            found = self.ask(server, [get("/simple/", LOGIN)] * 5)
        self.assertEqual([200] * 3 + [401] * 2,
                         [int(answer[9:12]) for answer in found])
        self.assertEqual(5, len(asked))

    def test_memory_is_bounded(self):
        limit = 10 ** 6
        with mock.patch.object(pypi_server, "REPEAT_LIMIT", limit), \
                repeating(600), running(self.app) as server:
            self.ask(server, [
                get("/health?%d" % number, b"X: " + b"y" * (number % 4000))
                for number in range(3000)])
            # PyPy cannot tell what an object needs.
            size_of = len if PYPY else sys.getsizeof
            size = sum(
                size_of(part) for kept in server.ready
                for key, (entry, weight) in kept.found.items()
                for part in (key, entry.data) + (
                    () if PYPY else (entry, weight, entry.changes,
                                     entry.until, entry.renew_at)))
        self.assertGreater(size, limit / 2)
        self.assertLess(size, limit)


class TestFreshness(DirectoryTestCase):
    def setUp(self):
        super().setUp()
        archives.put(self.root, WHEEL, SMALL)

    def serve(self, **settings):
        if "password_file" not in settings:
            settings.update(authenticated=(), password_file=".")
        context = running(self.make_app(**settings))
        server = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return server

    def connect(self, server):
        wire = Wire(server.server_address[:2])
        self.addCleanup(wire.socket.close)
        return wire

    def test_changes_show_in_the_next_request(self):
        """Although the answers of before are still kept."""
        with repeating(600):
            server = self.serve(overwrite=True)
            reader, writer = self.connect(server), self.connect(server)

            def read(path, *lines):
                """Return two answers to the same request."""
                found = []
                for _ in range(2):
                    reader.send(get(path, *lines))
                    found.append(reader.answer())
                for answer in found:
                    answer[1].pop("date")
                self.assertEqual(*found)
                return found[0][0], found[0][2]

            def change(message):
                headers, body = message
                head = b"POST / HTTP/1.1\r\nHost: a\r\n" + b"".join(
                    b"%s: %s\r\n" % (name.encode(), text.encode())
                    for name, text in headers.items())
                writer.send(head + b"Content-Length: %d\r\n\r\n%s" % (
                    len(body), body))
                self.assertEqual(200, writer.answer()[0])
            wait_for(lambda: b"foo" in read("/simple/foo/")[1], "listed")
            for number in range(3):
                name = "new-1.%d-py3-none-any.whl" % number
                path = "/packages/" + name
                pages = "/simple/", path
                before = [read(page) for page in pages]
                for text in "first", "second":
                    data = archives.wheel("new", "1.%d" % number, body=text)
                    change(forms.upload(name, data))
                    self.assertIn(name.encode(), read("/simple/new/")[1])
                    self.assertIn(forms.digests(data)["sha256_digest"].encode(
                        ), read("/simple/new/", JSON)[1])
                    self.assertEqual((200, data), read(path))
                    self.assertIn(b"new", read("/simple/")[1])
                change(forms.post([(":action", "remove_pkg"), ("name", "new"),
                                   ("version", "1.%d" % number)]))
                self.assertEqual(before, [read(page) for page in pages])

    def test_removed_user_is_refused_under_load(self):
        users = write(os.path.join(self.folder, "users"),
                      "joe:%s\nann:%s\n" % (SHA, SHA))
        server = self.serve(
            authenticated=("download", "list", "update"), password_file=users)
        request = get("/simple/", LOGIN)
        stop, found = threading.Event(), []

        def load():
            wire = self.connect(server)
            while not stop.is_set():
                wire.send(request)
                status = wire.answer()[0]
                found.append((time.monotonic(), status))
        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            wait_for(lambda: len(found) > 200, "requests")
            removed = time.monotonic()
            write(users, "ann:%s\n" % SHA)
            wait_for(lambda: found[-1][1] == 401, "refused")
            wait_for(lambda: found[-1][0] > removed + 2, "requests later")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertEqual({401}, {status for when, status in found
                                 if when > removed + 2})
        self.assertEqual({200}, {status for when, status in found
                                 if when < removed})

    def test_each_request_is_logged(self):
        for options, count in (("-v",), 30), (("-vv",), 60):
            with ServerProcess(*options, self.root) as server:
                address = re.search(r"//(.*):(\d+)/", server.url).groups()
                with Wire(address) as wire:
                    for _ in range(30):
                        wire.send(get("/simple/"))
                        wire.answer()
            self.assertEqual(count, server.output.count("GET /simple/"))

    def test_answers_do_not_stay(self):
        """A copied file shows under constant load."""
        server = self.serve()
        wire = self.connect(server)
        archives.put(self.root, "new-1.0-py3-none-any.whl",
                     archives.wheel("new", "1.0"))

        def is_listed():
            wire.send(get("/simple/"))
            return b"new" in wire.answer()[2]
        wait_for(is_listed, "listed", 5, 0)


class TestSmallFiles(DirectoryTestCase):
    def test_file_that_shrinks_is_not_sent_in_part(self):
        """Its length was told: the next answer would seem to belong to it."""
        path = archives.put(self.root, WHEEL, SMALL)
        identity = pypi_server.look(path)
        part = pypi_server.FileSlice(path, identity, 0, len(SMALL))
        with open(path, "rb") as file:
            self.assertEqual(SMALL, pypi_server.read_part(file, part))
            os.truncate(path, 9)
            with self.assertRaises(OSError):
                pypi_server.read_part(file, part)


if __name__ == "__main__":
    unittest.main()
