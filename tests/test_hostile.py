"""What hostile clients and unlucky moments must not achieve."""

import http.client
import io
import os
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import unittest
from urllib.parse import urlsplit

import pypi_server
from tests import archives
from tests.helpers import SCRIPT, DirectoryTestCase, ServerProcess

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

    def test_huge_directory_of_a_zip(self):
        end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1,
                          200 * 1024 ** 2, 0, 0)
        with self.assertRaisesRegex(ValueError, "directory"):
            pypi_server.check_zip_end(io.BytesIO(b"x" * 100 + end))
        far = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1,
                          200 * 1024 ** 2, 0)
        place = struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1)
        end = struct.pack(
            "<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 2 ** 32 - 1, 0, 0)
        with self.assertRaisesRegex(ValueError, "directory"):
            pypi_server.check_zip_end(io.BytesIO(far + place + end))
        # A small one elsewhere, which only some readers would take.
        near = far[:40] + struct.pack("<2Q", 60, 0)
        elsewhere = struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1)
        with self.assertRaisesRegex(ValueError, "ZIP64"):
            pypi_server.check_zip_end(io.BytesIO(
                near + far + elsewhere + end))
        for place in 1, len(near) - 1, 2 ** 60:
            with self.assertRaisesRegex(ValueError, "ZIP64"):
                pypi_server.check_zip_end(io.BytesIO(
                    near + struct.pack("<4sLQL", b"PK\6\7", 0, place, 1)
                    + end))


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
