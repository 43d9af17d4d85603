"""What hostile clients and unlucky moments must not achieve."""

import contextlib
import http.client
import io
import os
import socket
import sqlite3
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import unittest
import zlib
from unittest import mock
from urllib.parse import urlsplit

import pypi_server
from tests import archives, forms
from tests.helpers import (
    SCRIPT, DirectoryTestCase, ServerProcess, call, wait_for,
)
from tests.test_upload_faults import Mounted

WHEEL = "foo-1.0-py3-none-any.whl"
BOUNDARY = "b0undary"


def form(filename, data):
    """Return the body of an upload."""
    return b"".join((
        b'--b0undary\r\nContent-Disposition: form-data; name=":action"\r\n\r\n'
        b'file_upload\r\n--b0undary\r\nContent-Disposition: form-data; '
        b'name="content"; filename="', filename.encode(), b'"\r\n\r\n', data,
        b"\r\n--b0undary--\r\n"))


def post(url, body):
    address = urlsplit(url)
    connection = http.client.HTTPConnection(
        address.hostname, address.port, timeout=60)
    try:
        connection.request("POST", address.path, body, {
            "Content-Type": "multipart/form-data; boundary=" + BOUNDARY})
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


class TestWork(unittest.TestCase):
    """These would take minutes if the work grew with a power of the size."""

    def test_white_space_in_a_header(self):
        head = b"GET / HTTP/1.1\r\nHost: x\r\nA:" + b" " * 8000
        self.assertEqual(
            "", pypi_server.parse_head(head).headers["a"])
        with self.assertRaises(pypi_server.HTTPError):
            pypi_server.parse_head(head + b"\x01")
        with self.assertRaises(pypi_server.HTTPError):
            pypi_server.parse_part(b"A:" + b" " * 8000 + b"\x01")

    def test_pax_records(self):
        record = b"6 a=b\n"
        found = pypi_server.parse_pax(
            record * 200000 + b"10 path=x\n" + b"13 size=1234\n")
        self.assertEqual({b"path": b"x", b"size": b"1234"}, found)

    def test_pax_headers_for_all_members_are_not_kept(self):
        scanner = pypi_server.TarScanner()
        for number in range(50):
            scanner.pax_for_all.update(pypi_server.parse_pax(
                b"".join(b"14 k%03d%03d=xx\n" % (number, each)
                         for each in range(100))))
        self.assertEqual({}, scanner.pax_for_all)

    def test_members_of_a_tar(self):
        """Many fit into little; each may have to be looked at."""
        header = tarfile.TarInfo("foo-1.0/x").tobuf()
        asked = []
        scanner = pypi_server.TarScanner(asked.append)
        for _ in range(10):
            scanner.feed(header * 1000)
        self.assertEqual(10000, scanner.members)
        self.assertLess(len(asked), 10)
        with mock.patch.object(pypi_server, "TAR_MEMBERS_LIMIT", 12000):
            scanner.feed(header * 2000)
            with self.assertRaisesRegex(ValueError, "12000 members"):
                scanner.feed(header)
        scanner = pypi_server.TarScanner()  # that only seeks the metadata
        with mock.patch.object(pypi_server, "TAR_MEMBERS_LIMIT", 10):
            scanner.feed(header * 20)
        self.assertEqual(20, scanner.members)

    def test_huge_directory_of_a_zip(self):
        end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1,
                          200 * 1024 ** 2, 0, 0)
        with self.assertRaisesRegex(ValueError, "directory"):
            pypi_server.zip_directory(io.BytesIO(b"x" * 100 + end))
        far = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1,
                          200 * 1024 ** 2, 0)
        place = struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1)
        end = struct.pack(
            "<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 2 ** 32 - 1, 0, 0)
        with self.assertRaisesRegex(ValueError, "directory"):
            pypi_server.zip_directory(io.BytesIO(far + place + end))
        # A small one elsewhere, which only some readers would take.
        near = far[:40] + struct.pack("<2Q", 60, 0)
        elsewhere = struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1)
        with self.assertRaisesRegex(ValueError, "ZIP64"):
            pypi_server.zip_directory(io.BytesIO(
                near + far + elsewhere + end))
        for place in 1, len(near) - 1, 2 ** 60:
            with self.assertRaisesRegex(ValueError, "ZIP64"):
                pypi_server.zip_directory(io.BytesIO(
                    near + struct.pack("<4sLQL", b"PK\6\7", 0, place, 1)
                    + end))


def entry(name, data, offset=None):
    """Return a local header with its data, or an entry of the directory."""
    sizes = zlib.crc32(data), len(data), len(data), len(name)
    if offset is None:
        return struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, *sizes
                           + (0,)) + name + data
    return struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, *sizes
                       + (0, 0, 0, 0, 0, offset)) + name


@unittest.skipUnless(pypi_server.NO_WAIT, "every send may wait here")
class TestSending(unittest.TestCase):
    def pair(self):
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        return pypi_server.Wire(ours), theirs

    def test_who_does_not_read_stops_nobody(self):
        """Not even with what is sent to him after the first timeout."""
        slow, _ = self.pair()
        with mock.patch.object(pypi_server, "SEND_TIMEOUT", 0.2):
            with self.assertRaises(socket.timeout):
                slow.send(bytes(10 ** 7))
        thread = threading.Thread(target=lambda: self.assertRaises(
            OSError, slow.send, b"error"), daemon=True)
        thread.start()
        wait_for(lambda: slow.sock.gettimeout() is not None, "it waits")
        quick, client = self.pair()
        quick.send(b"answer")
        self.assertEqual(b"answer", client.recv(100))
        self.assertTrue(thread.is_alive())
        slow.shut(socket.SHUT_RDWR)
        thread.join(10)
        self.assertFalse(thread.is_alive())


class TestSendingFiles(DirectoryTestCase):
    def setUp(self):
        super().setUp()
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            self.client = socket.create_connection(listener.getsockname())
            self.addCleanup(self.client.close)
            self.wire = pypi_server.Wire(listener.accept()[0])
            self.addCleanup(self.wire.sock.close)

    def send(self, path, start, length):
        """Return whether all was sent, and what came."""
        with open(path, "rb") as file, self.client.makefile("rb") as came:
            is_whole = self.wire.send_file(file, start, length)
            self.wire.sock.shutdown(socket.SHUT_WR)
            return is_whole, came.read()

    def test_a_part_and_no_more(self):
        path = archives.put(self.folder, "some", b"0123456789")
        self.assertEqual((True, b"345"), self.send(path, 3, 3))

    def test_one_that_shrank(self):
        path = archives.put(self.folder, "some", b"0123456789")
        self.assertEqual((False, b"789"), self.send(path, 7, 10))

    @unittest.skipUnless(os.path.exists("/proc/self/cmdline"), "not here")
    def test_on_a_filesystem_that_knows_no_sendfile(self):
        path = "/proc/self/cmdline"
        with open(path, "rb") as file:
            content = file.read()
        if hasattr(os, "sendfile"):
            with open(path, "rb") as file, self.assertRaises(OSError):
                os.sendfile(self.wire.sock.fileno(), file.fileno(), 0, 1)
        self.assertEqual((True, content[2:]),
                         self.send(path, 2, len(content) - 2))

    def test_who_does_not_read(self):
        path = archives.put(self.folder, "some", bytes(3 * 10 ** 7))
        started = time.monotonic()
        with mock.patch.object(pypi_server, "SEND_TIMEOUT", 2), \
                open(path, "rb") as file, self.assertRaises(socket.timeout):
            self.wire.send_file(file, 0, 3 * 10 ** 7)
        # The system fills its buffers first.
        self.assertLess(time.monotonic() - started, 3.9)

    def test_who_reads_slowly(self):
        path = archives.put(self.folder, "some", os.urandom(10 ** 7))
        came = []

        def read():
            while sum(map(len, came)) < 10 ** 7:
                time.sleep(0.01)
                came.append(self.client.recv(2 ** 18))
        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        with open(path, "rb") as file:
            self.assertTrue(self.wire.send_file(file, 0, 10 ** 7))
            thread.join(60)
            file.seek(0)
            self.assertEqual(file.read(), b"".join(came))

    def test_who_goes_away(self):
        path = archives.put(self.folder, "some", bytes(3 * 10 ** 7))
        self.client.close()
        with open(path, "rb") as file, self.assertRaises(ConnectionError):
            self.wire.send_file(file, 0, 3 * 10 ** 7)


class TestNaming(DirectoryTestCase):
    def test_one_directory_does_not_wait_for_another(self):
        first, second = (os.path.join(self.folder, name) for name in "ab")
        os.mkdir(first)
        os.mkdir(second)
        done = []

        def name():
            with pypi_server.lock_names(second) as others_came:
                done.append(others_came)
        with pypi_server.lock_names(first):
            thread = threading.Thread(target=name)
            thread.start()
            thread.join(10)
            self.assertEqual([True], done)


class TestOverlap(DirectoryTestCase):
    """Entries of a zip that share bytes (CVE-2024-0450)."""

    INFO = b"Metadata-Version: 2.1\nName: foo\nVersion: 1.0\n\n"
    NAME = b"foo-1.0.dist-info/METADATA"

    def zip_of(self, inner_first, count=1):
        """Return a wheel in whose METADATA another member lies, or the other
        way round.
        """
        inner_name = b"foo.py" if inner_first else self.NAME
        outer_name = self.NAME if inner_first else b"foo.py"
        inner = b"x" * 1000 if inner_first else self.INFO
        inner_entry = entry(inner_name, inner)
        outer = (self.INFO if inner_first else b"") + inner_entry
        data = entry(outer_name, outer)
        directory = entry(outer_name, outer, 0) + b"".join(
            entry(b"%d" % number + inner_name if number else inner_name,
                  inner, len(data) - len(inner_entry))
            for number in range(count))
        return data + directory + struct.pack(
            "<4s4H2LH", b"PK\5\6", 0, 0, count + 1, count + 1,
            len(directory), len(data), 0)

    def test_they_cost_nothing_and_break_nothing(self):
        """Some Pythons refuse them; what is served has the right metadata.
        """
        app = self.make_app(authenticated=(), password_file=".")
        for inner_first, count in (
                (True, 1), (True, 30000), (False, 1), (False, 30000)):
            with self.subTest(inner_first=inner_first, count=count):
                data = self.zip_of(inner_first, count)
                headers, body = forms.upload(WHEEL, data)
                started = time.process_time()
                answer = call(app, "POST", "/", headers, body)
                self.assertLess(time.process_time() - started, 5)
                self.assertIn(answer.status, (200, 400), answer)
                if answer.status == 200:
                    page = call(app, "GET", "/packages/%s.metadata" % WHEEL)
                    self.assertTrue(page.body.startswith(self.INFO))
                    os.unlink(os.path.join(self.root, WHEEL))
                    app.directories.refresh()


class TestFraming(DirectoryTestCase):
    def test_malformed_chunk_ends_the_connection(self):
        """What follows it must not be taken for another request."""
        with ServerProcess("--disable-fallback", self.root) as server:
            address = urlsplit(server.url)
            with socket.create_connection(
                    (address.hostname, address.port), timeout=30) as wire:
                wire.sendall(
                    b"POST /RPC2 HTTP/1.1\r\nHost: x\r\nContent-Type: "
                    b"text/xml\r\nTransfer-Encoding: chunked\r\n\r\n"
                    b"zz\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n"
                    b"\r\n")
                answer = b""
                while True:
                    data = wire.recv(65536)
                    if not data:
                        break
                    answer += data
            self.assertEqual(1, answer.count(b"HTTP/1.1 "), answer)
            self.assertIn(b"HTTP/1.1 400 ", answer)


class TestReplacing(DirectoryTestCase):
    def test_readers_have_the_old_or_the_new_file(self):
        """Page and download, while uploads overwrite."""
        versions = [archives.wheel("foo", "1.0", body="x" * number)
                    for number in range(30)]
        archives.put(self.root, WHEEL, versions[0])
        with ServerProcess("-a", ".", "-P", ".", "-o", self.root) as server:
            ended = threading.Event()
            statuses, bodies = set(), set()

            def read():
                while not ended.is_set():
                    for path in "packages/" + WHEEL, "simple/foo/":
                        answer = server.get(path)
                        statuses.add(answer.status)
                        if path.startswith("packages"):
                            bodies.add(answer.body)
                        elif WHEEL.encode() not in answer.body:
                            statuses.add("not listed")
            readers = [threading.Thread(target=read) for _ in range(3)]
            for reader in readers:
                reader.start()
            try:
                for data in versions:
                    self.assertEqual(200, post(server.url, form(WHEEL, data)))
                    self.assertEqual(
                        data, server.get("packages/" + WHEEL).body)
            finally:
                ended.set()
                for reader in readers:
                    reader.join()
            self.assertEqual({200}, statuses)
            self.assertLessEqual(bodies, set(versions))

    def test_download_after_a_rename(self):
        """The page has just shown the old file."""
        archives.put(self.root, WHEEL, archives.wheel("foo", "1.0"))
        with ServerProcess(self.root) as server:
            for number in range(3):
                self.assertEqual(200, server.get("simple/foo/").status)
                data = archives.wheel("foo", "1.0", body="x" * number)
                path = archives.put(self.root, ".new", data)
                os.replace(path, os.path.join(self.root, WHEEL))
                answer = server.get("packages/" + WHEEL)
                self.assertEqual((200, data), (answer.status, answer.body))

    def test_project_that_is_gone_for_a_moment_stays_local(self):
        path = archives.put(self.root, WHEEL, archives.wheel("foo", "1.0"))
        archives.put(self.root, "bar-1.0-py3-none-any.whl",
                     archives.wheel("bar", "1.0"))
        with ServerProcess(self.root) as server:
            self.assertEqual(200, server.get("simple/foo/").status)
            os.remove(path)
            status = 200
            while status == 200:
                status = server.get("simple/foo/").status
            self.assertEqual(404, status)
            self.assertEqual(302, server.get("simple/other/").status)


class TestCacheOfAnother(DirectoryTestCase):
    def test_busy_cache_is_used_again(self):
        """Another server writes to the same file."""
        cache = os.path.join(os.path.dirname(self.root), "cache")
        archives.put(self.root, WHEEL, archives.wheel("foo", "1.0"))
        with ServerProcess("--cache-dir", cache, self.root) as server:
            self.assertEqual(200, server.get("simple/foo/").status)
        file = os.path.join(cache, os.listdir(cache)[0])
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("DELETE FROM facts")
        with ServerProcess("--cache-dir", cache, self.root) as server:
            other.execute("BEGIN EXCLUSIVE")
            self.assertEqual(200, server.get("packages/" + WHEEL).status)
            other.execute("COMMIT")
            server.stop()
        self.assertEqual("", server.output)
        rows = other.execute("SELECT path FROM facts").fetchall()
        other.close()
        self.assertEqual([(self.root + "/" + WHEEL,)], rows)


    def test_cache_that_is_busy_at_the_start(self):
        """It is opened later, and what was read till then is in it."""
        cache = os.path.join(self.folder, "cache")
        os.mkdir(cache)
        file = os.path.join(
            cache, "facts-%d.sqlite3" % pypi_server.FactCache.VERSION)
        archives.put(self.root, WHEEL, archives.wheel("foo", "1.0"))
        other = sqlite3.connect(file, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("CREATE TABLE others (name)")
        other.execute("BEGIN EXCLUSIVE")
        with mock.patch.object(pypi_server, "BUSY_PAUSE", 0.5), \
                self.assertRaises(AssertionError), \
                self.assertLogs("pypi_server", "WARNING"):
            app = self.make_app()
            self.assertEqual(200, call(app, "GET", "/simple/foo/").status)
            app.warmer.start()
            other.execute("COMMIT")
            wait_for(lambda: other.execute(
                "SELECT name FROM sqlite_master WHERE name = 'facts'")
                .fetchall(), "it was opened")
            rows = wait_for(lambda: other.execute(
                "SELECT path FROM facts").fetchall(), "it was written")
        self.assertEqual([(self.root + "/" + WHEEL,)], rows)

    def check_cache(self, cache, lines=1):
        """The server serves, and says in so many lines what is wrong."""
        archives.put(self.root, WHEEL, archives.wheel("foo", "1.0"))
        with ServerProcess("--cache-dir", cache, self.root) as server:
            for _ in range(3):
                answer = server.get("simple/foo/")
                self.assertEqual(200, answer.status)
                self.assertIn(WHEEL.encode(), answer.body)
            self.assertEqual(0, server.stop())
        self.assertEqual(lines, len(server.output.splitlines()),
                         server.output)
        self.assertEqual(lines, server.output.count("kept in memory only"))

    def test_cache_of_another_program(self):
        for statement, lines in (
                ("CREATE TABLE facts (path TEXT)", 1),
                ("CREATE TABLE facts (a, b, c, d, e, f, g, h)", 1),
                ("CREATE TABLE others (path TEXT)", 0),
                ("CREATE VIEW facts AS SELECT 1", 1)):
            with self.subTest(statement), \
                    tempfile.TemporaryDirectory() as cache:
                other = sqlite3.connect(os.path.join(
                    cache, "facts-%d.sqlite3"
                    % pypi_server.FactCache.VERSION))
                with other:
                    other.execute(statement)
                other.close()
                self.check_cache(cache, lines)

    def test_cache_of_another_version(self):
        """It is left alone: that version may be in use."""
        with tempfile.TemporaryDirectory() as cache:
            path = os.path.join(cache, "facts-0.sqlite3")
            with open(path, "wb") as file:
                file.write(b"old")
            self.check_cache(cache, 0)
            with open(path, "rb") as file:
                self.assertEqual(b"old", file.read())

    def test_cache_on_a_full_disk(self):
        mounted = Mounted(self, "-t", "tmpfs", "-o", "size=64k", "tmpfs")
        with contextlib.suppress(OSError), open(
                os.path.join(mounted.path, "much"), "wb", 0) as file:
            while True:
                file.write(bytes(4096))
        self.check_cache(mounted.path)


class TestCommands(DirectoryTestCase):
    def test_users_that_are_added_at_once(self):
        path = os.path.join(self.root, "users")
        processes = [subprocess.Popen(
            [sys.executable, SCRIPT, "passwd", path, "user%d" % number],
            stdin=subprocess.PIPE) for number in range(6)]
        for process in processes:
            process.communicate(b"secret\n")
            self.assertEqual(0, process.returncode)
        with open(path) as file:
            users = sorted(line.partition(":")[0] for line in file)
        self.assertEqual(["user%d" % number for number in range(6)], users)

    def test_old_form_with_an_argument_like_a_command(self):
        self.assertEqual(
            ["run", "-p", "0", "-P", "passwd", "update"],
            pypi_server.with_command(["-p", "0", "-P", "passwd", "update"]))
        for new in (["-v", "--log-file", "run", "run"], ["passwd", "a", "b"],
                    ["--log-file=x", "update"], ["--help"]):
            self.assertIs(new, pypi_server.with_command(new))


if __name__ == "__main__":
    unittest.main()
