"""What anybody may make a server keep, hold or do: all of it is bounded."""

import gc
import os
import platform
import socket
import sys
import unittest
from unittest import mock
from urllib.parse import urlsplit

import pypi_server
from tests import archives, forms
from tests.helpers import (
    DirectoryTestCase, ServerProcess, Wire, ask, call, listening, wait_for,
)
from tests.test_limits import most_memory

PYPY = platform.python_implementation() == "PyPy"


def size_of(value, counted):
    """Return the bytes of a value with all that is in it, each once."""
    if id(value) in counted:
        return 0
    counted.add(id(value))
    size = sys.getsizeof(value)
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, (list, tuple)):
        size += sum(size_of(part, counted) for part in value)
    return size


class TestPages(DirectoryTestCase):
    """Rendered pages are kept by what clients say, but not without end."""

    @unittest.skipIf(PYPY, "it cannot tell what an object needs")
    def test_pages_for_many_hosts(self):
        archives.put(self.root, "foo-1.0-py3-none-any.whl",
                     archives.wheel("foo", "1.0"))
        limit = 10 ** 6
        for path in ("/withheld/?page=%d", "/project/foo/?page=%d",
                     "/simple/foo/?%d"):
            with self.subTest(path), \
                    mock.patch.object(pypi_server, "PAGES_LIMIT", limit):
                app = self.make_app()
                for number in range(1500):
                    host = "%s%d" % ("x" * 240, number)
                    self.assertEqual(200, call(
                        app, "GET", path % number, {"Host": host}).status)
                # The briefs, which both share, are there in any case.
                self.assertLess(size_of(app.pages.found, set()), 1.1 * limit)

    def test_what_does_not_depend_on_the_client_is_kept_once(self):
        app = self.make_app()
        for number in range(100):
            answer = call(
                app, "GET", "/withheld/?format=application/json&page=%d"
                % number, {"Host": "h%d" % number})
            self.assertEqual(200, answer.status)
        self.assertEqual(1, len(app.pages.found))

    def test_no_host_is_so_long(self):
        with listening(self.make_app()) as address:
            for length, status in (250, 200), (300, 400), (8000, 400):
                with Wire(address) as wire:
                    wire.send(b"GET /health HTTP/1.1\r\nHost: %s\r\n\r\n" % (
                        b"h" * length))
                    self.assertEqual(status, wire.answer()[0])

    def test_no_list_of_all_names_stays(self):
        """Of each change there is one, with all names of that moment."""
        app = self.make_app()
        for number in range(8):
            name = "p%d" % number
            archives.put(self.root, name + "-1.0-py3-none-any.whl",
                         archives.wheel(name, "1.0"))
            app.directories.refresh()
            for path in "/simple/%s/", "/project/%s/", "/withheld/?%s":
                self.assertEqual(200, call(
                    app, "GET", path % name, {"Host": name}).status)
        gc.collect()
        snapshots = [found for found in gc.get_objects()
                     if isinstance(found, pypi_server.Snapshot)
                     and any(path.startswith(self.root)
                             for path in {archive.root for archive
                                          in found.archives.values()})]
        self.assertIn(len(snapshots), (1, 2, 3))


@unittest.skipUnless(os.path.exists("/proc/self/status"), "no /proc")
class TestSlowReaders(DirectoryTestCase):
    def test_all_read_the_same_page(self):
        for number in range(6000):
            name = "p%s%d-1.0.tar.gz" % ("x" * 230, number)
            with open(os.path.join(self.root, name), "wb"):
                pass
        with ServerProcess("--log-stream", "none", self.root) as server:
            address = urlsplit(server.url)
            size = len(server.get("simple/").body)
            server.get("simple/?0")
            before = most_memory(server.process)
            for number in range(60):
                # Others at once, or again what is kept ready.
                for path in "/simple/?%d" % number, "/simple/":
                    wire = socket.socket()
                    self.addCleanup(wire.close)
                    wire.settimeout(30)
                    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                    wire.connect((address.hostname, address.port))
                    wire.sendall(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"
                                 % path.encode())
                    self.assertEqual(b"HTTP/1.1 200", wire.recv(12))
            self.assertLess(most_memory(server.process) - before,
                            20 * size)


BOUND = 10 * 1024 ** 2 - 1000
# What 10 KB of a wheel can unpack to.
METADATAS = (
    (b"a:\n" * (BOUND // 3), 400),
    (b"".join(b"%x:\n" % number for number in range(BOUND // 8)), 400),
    (b"a:\n" * 9000 + b" b\n" * (BOUND // 4), 400),
    (b"a:\n" * 9000 + b" b\n" * 900000 + b"\n" + b"x" * 6 * 10 ** 6, 200),
    (b"\n" + "\u00e4\n".encode() * (BOUND // 3), 200),
    (b"\n" + "\U0001f600".encode() * (BOUND // 4), 200),
)


@unittest.skipUnless(os.path.exists("/proc/self/status"), "no /proc")
@unittest.skipIf(PYPY, "it collects garbage when it likes")
class TestMetadata(DirectoryTestCase):
    def test_memory_for_little_wheels(self):
        wheels = []
        for number, (more, status) in enumerate(METADATAS):
            for name in "up%d" % number, "put%d" % number:
                filename = name + "-1.0-py3-none-any.whl"
                wheels.append((name, status, filename, archives.zipped({
                    name + "-1.0.dist-info/METADATA":
                    b"Name: %s\nVersion: 1.0\n" % name.encode() + more})))
        with ServerProcess("-a", ".", "-P", ".", self.root) as server:
            address = urlsplit(server.url)
            before = most_memory(server.process)
            for name, status, filename, data in wheels:
                with self.subTest(name):
                    if name.startswith("up"):
                        headers, body = forms.upload(filename, data)
                        self.assertEqual(status, ask(
                            address.hostname, address.port, "POST", "/",
                            headers, body).status)
                    else:
                        archives.put(self.root, filename, data)

                    def is_shown(name=name, filename=filename):
                        page = server.get("simple/%s/" % name)
                        return page.status == 200 and (
                            "listed" if filename.encode() in page.body
                            else "withheld")
                    if status == 200:
                        wait_for(lambda: is_shown() == "listed", "listed")
                    elif name.startswith("put"):
                        self.assertEqual(
                            "withheld", wait_for(is_shown, "found"))
                    if is_shown():
                        self.assertEqual(200, server.get(
                            "project/%s/" % name).status)
            grown = most_memory(server.process) - before
        self.assertLess(grown, 120 * 2 ** 20)


if __name__ == "__main__":
    unittest.main()
