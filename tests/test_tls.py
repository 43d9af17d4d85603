"""HTTPS of the built-in server."""

import contextlib
import hashlib
import http.client
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
import unittest
from urllib.parse import urlsplit

from tests import archives, forms
from tests.certificates import Authority, openssl
from tests.helpers import (
    PROGRAM, DirectoryTestCase, ServerProcess, Wire, wait_for, without,
)

WHEEL = "foo-1.0-py3-none-any.whl"
DATA = archives.wheel("foo", "1.0", files={"noise": os.urandom(2 ** 20)})
ANYONE = ("-a", ".", "-P", ".", "--disable-fallback")


class TlsTestCase(DirectoryTestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        try:
            cls.authority = Authority(cls.temporary.name)
            cls.certificate, cls.key = cls.authority.certify("server")
        except BaseException:
            cls.temporary.cleanup()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def start(self, *arguments, certificate=None, key=None):
        archives.put(self.root, WHEEL, DATA)
        server = ServerProcess(
            "--tls-cert", certificate or self.certificate,
            "--tls-key", key or self.key, *(arguments or ANYONE) + (
                self.root,))
        server.__enter__()
        self.addCleanup(server.stop)
        return server

    @staticmethod
    def address(server):
        url = urlsplit(server.url)
        return url.hostname, url.port

    def connect(self, server, timeout=30):
        client = http.client.HTTPSConnection(
            *self.address(server), timeout=timeout,
            context=self.authority.context())
        self.addCleanup(client.close)
        return client

    def get(self, server, path, headers=None, method="GET", body=None):
        """Return (status, headers, body) over a connection of its own."""
        client = self.connect(server)
        return self.ask(client, path, headers, method, body)

    @staticmethod
    def ask(client, path, headers=None, method="GET", body=None):
        client.request(method, "/" + path, body, headers or {})
        response = client.getresponse()
        return response.status, dict(response.getheaders()), response.read()

    def plain(self, server):
        wire = Wire(self.address(server), 30)
        self.addCleanup(wire.socket.close)
        return wire


class TestServing(TlsTestCase):
    def test_pages_and_files(self):
        server = self.start()
        self.assertRegex(server.url, "^https://127.0.0.1:[0-9]+/$")
        client = self.connect(server)
        for _ in range(2):  # over one connection
            self.assertIn(b"foo", self.ask(client, "simple/")[2])
            status, _, body = self.ask(client, "packages/" + WHEEL)
            self.assertEqual((200, DATA), (status, body))
            status, _, body = self.ask(client, "packages/" + WHEEL, {
                "Range": "bytes=100000-299999"})
            self.assertEqual((206, DATA[100000:300000]), (status, body))
            status, headers, body = self.ask(
                client, "packages/" + WHEEL, method="HEAD")
            self.assertEqual((200, str(len(DATA)), b""),
                             (status, headers["Content-Length"], body))
        page = self.get(server, "pypi/foo/json", {"Host": "index.example"})
        self.assertIn(b'"https://index.example/packages/', page[2])

    def test_uploads(self):
        server = self.start()
        data = archives.wheel("bar", "1.0", files={
            "noise": os.urandom(3 * 2 ** 20)})
        name = "bar-1.0-py3-none-any.whl"
        headers, body = forms.upload(name, data)
        self.assertEqual(200, self.get(
            server, "", headers, "POST", body)[0])
        found = self.get(server, "packages/" + name)[2]
        self.assertEqual(hashlib.sha256(data).digest(),
                         hashlib.sha256(found).digest())

    def test_answer_before_the_body(self):
        """A client that still sends sees why it is refused."""
        server = self.start("--disable-fallback")
        headers, body = forms.upload(WHEEL, DATA + bytes(4 * 2 ** 20))
        self.assertEqual(403, self.get(
            server, "", headers, "POST", body)[0])

    def test_parallel(self):
        server = self.start()
        found = []

        def run():
            client = self.connect(server)
            for _ in range(5):
                found.append(self.ask(client, "packages/" + WHEEL)[2] == DATA)
        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([True] * 40, found)


class TestStrangers(TlsTestCase):
    """Who does not speak TLS as it is spoken today."""

    def test_http_on_this_port(self):
        server = self.start("-v")
        for data in (b"GET /simple/ HTTP/1.1\r\nHost: a\r\n\r\n",
                     b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n"):
            wire = self.plain(server)
            wire.send(data)
            status, headers, body = wire.answer()
            self.assertEqual((400, b"this is HTTPS, not HTTP\n"),
                             (status, body))
            self.assertEqual("close", headers["connection"])
            wire.socket.shutdown(socket.SHUT_WR)
            self.assertTrue(wire.is_closed())
        server.stop()
        lines = [line for line in server.output.splitlines()
                 if "not HTTP" in line]
        self.assertEqual(2, len(lines), server.output)

    def test_noise_and_silence_harm_nobody(self):
        server = self.start("-vv")
        silent = [self.plain(server) for _ in range(30)]
        for data in (b"\x16\x03\x01\x02\x00\x01\x00", b"\0" * 100,
                     b"\x16\x03\x01\xff\xff" + b"x" * 300, b"ssh-2.0\r\n",
                     b"\x80\x2e\x01\x00\x02", b"get / HTTP/1.0\r\n\r\n"):
            wire = self.plain(server)
            wire.send(data)
            with contextlib.suppress(OSError):
                wire.socket.shutdown(socket.SHUT_WR)
            while wire.receive():
                pass
            self.assertNotIn(b"200", wire.buffer)
        self.assertEqual(200, self.get(server, "simple/")[0])
        for wire in silent:
            wire.socket.close()
        server.stop()
        self.assertNotIn("Traceback", server.output)

    def test_data_without_a_handshake(self):
        """CVE-2023-40217: it was taken for what comes after one."""
        server = self.start("-v")
        for _ in range(20):
            wire = self.plain(server)
            with contextlib.suppress(OSError):
                wire.send(b"\x17GET /simple/ HTTP/1.1\r\nHost: a\r\n\r\n")
                wire.socket.shutdown(socket.SHUT_RDWR)
            wire.socket.close()
        self.assertEqual(200, self.get(server, "simple/")[0])
        server.stop()
        self.assertEqual(1, server.output.count("/simple/"), server.output)
        self.assertNotIn("Traceback", server.output)

    def test_noise_within_a_connection(self):
        """What breaks later ends that connection, and only that."""
        server = self.start("-vv")
        plain = socket.create_connection(self.address(server), 30)
        self.addCleanup(plain.close)
        copy = plain.dup()
        secured = self.authority.context().wrap_socket(
            plain, server_hostname="localhost")
        self.addCleanup(secured.close)
        copy.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        copy.settimeout(30)
        with contextlib.suppress(ConnectionError):
            while copy.recv(65536):
                pass
        copy.close()
        self.assertEqual(200, self.get(server, "simple/")[0])
        server.stop()
        self.assertNotIn("Traceback", server.output)

    def test_noise_within_a_body(self):
        """An upload that is cut off so is no trouble with the disk."""
        server = self.start("-v", *ANYONE)
        plain = socket.create_connection(self.address(server), 30)
        self.addCleanup(plain.close)
        copy = plain.dup()
        self.addCleanup(copy.close)
        secured = self.authority.context().wrap_socket(
            plain, server_hostname="localhost")
        self.addCleanup(secured.close)
        headers, body = forms.upload(WHEEL, DATA)
        secured.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\n"
                        b"Content-Length: %d\r\n\r\n" % (
                            headers["Content-Type"].encode(), len(body))
                        + body[:50000])
        copy.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        wait_for(lambda: "refused an upload" in server.logged(), "refused")
        self.assertEqual(200, self.get(server, "simple/")[0])
        server.stop()
        self.assertIn("is incomplete", server.output)
        self.assertNotIn("stored", server.output)
        self.assertNotIn("Traceback", server.output)

    def test_versions(self):
        if not hasattr(ssl, "TLSVersion"):
            self.skipTest("this Python cannot choose versions of TLS")
        server = self.start()
        for version, is_taken in (
                ("TLSv1", False), ("TLSv1_1", False), ("TLSv1_2", True),
                ("TLSv1_3", True)):
            context = self.authority.context()
            with self.subTest(version), warnings_off():
                with contextlib.suppress(ssl.SSLError):
                    context.set_ciphers("ALL:@SECLEVEL=0")
                context.minimum_version = context.maximum_version = getattr(
                    ssl.TLSVersion, version)
                try:
                    with socket.create_connection(
                            self.address(server), 30) as plain, \
                            context.wrap_socket(
                                plain, server_hostname="localhost") as found:
                        self.assertTrue(is_taken, found.version())
                        self.assertEqual(
                            version.replace("_", "."), found.version())
                except ssl.SSLError as error:
                    self.assertFalse(is_taken, error)


@contextlib.contextmanager
def warnings_off():
    """Old versions of TLS are deprecated; that is why they are tried."""
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


class TestRenewal(TlsTestCase):
    """The files change while the server runs."""

    def setUp(self):
        super().setUp()
        self.paths = [os.path.join(self.folder, name)
                      for name in ("cert.pem", "key.pem")]
        for source, path in zip((self.certificate, self.key), self.paths):
            shutil.copy(source, path)
        self.server = self.start(
            certificate=self.paths[0], key=self.paths[1])

    def shown(self):
        """Return the digest of the certificate that a new client sees."""
        with socket.create_connection(
                self.address(self.server), 30) as plain, \
                self.authority.context().wrap_socket(
                    plain, server_hostname="localhost") as secured:
            return hashlib.sha256(secured.getpeercert(True)).hexdigest()

    def put(self, source, path):
        shutil.copy(source, path + ".new")
        os.replace(path + ".new", path)

    def test_new_files_are_used(self):
        old = self.shown()
        client = self.connect(self.server)
        self.assertEqual(200, self.ask(client, "health")[0])
        for source, path in zip(self.authority.certify("next"), self.paths):
            self.put(source, path)
        wait_for(lambda: self.shown() != old, "the new certificate")
        # Connections that are open go on.
        self.assertEqual(200, self.ask(client, "health")[0])
        self.server.stop()
        self.assertIn("loaded again", self.server.output)

    def test_broken_files_are_not(self):
        old = self.shown()
        with open(self.paths[0], "w") as file:
            file.write("no certificate\n")

        def logged():
            self.assertEqual(old, self.shown())
            return "the old one stays" in self.server.logged()
        wait_for(logged, "a line in the log")
        for _ in range(5):
            self.assertEqual(old, self.shown())
        os.unlink(self.paths[1])
        self.assertEqual(old, self.shown())
        for source, path in zip(self.authority.certify("next"), self.paths):
            self.put(source, path)
        wait_for(lambda: self.shown() != old, "the new certificate")
        self.server.stop()
        self.assertLessEqual(
            self.server.output.count("the old one stays"), 2)

    def test_key_is_not_handed_out(self):
        """Whoever may make links in the directory may not read it."""
        os.symlink(self.paths[1], os.path.join(self.root, WHEEL + ".asc"))
        os.symlink(self.paths[1],
                   os.path.join(self.root, WHEEL + ".provenance"))
        os.link(self.paths[1], os.path.join(self.root, WHEEL + ".yanked"))
        wait_for(lambda: b"foo" in self.get(self.server, "simple/")[2], "foo")
        for suffix in ".asc", ".provenance":
            status, _, body = self.get(
                self.server, "packages/" + WHEEL + suffix)
            self.assertEqual(404, status)
            self.assertNotIn(b"PRIVATE", body)
        self.assertNotIn(b"PRIVATE",
                         self.get(self.server, "simple/foo/")[2])


class TestMistakes(TlsTestCase):
    def run_server(self, *arguments, program=PROGRAM):
        process = subprocess.run(
            [sys.executable, "-W", "error", *program, "run", "-p", "0",
             *arguments, self.root], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
            universal_newlines=True)
        self.assertEqual(2, process.returncode, process.stdout)
        self.assertEqual(1, process.stdout.count("\n"), process.stdout)
        return process.stdout

    def test_files_that_do_not_work(self):
        missing = os.path.join(self.folder, "missing.pem")
        encrypted = os.path.join(self.folder, "encrypted.key")
        openssl("ec", "-in", self.key, "-aes128", "-passout", "pass:secret",
                "-out", encrypted)
        _, other = self.authority.certify("other")
        for certificate, key in (
                (missing, self.key), (self.certificate, missing),
                (self.certificate, other), (self.key, self.certificate),
                (self.certificate, encrypted), (self.root, self.key)):
            with self.subTest(certificate=certificate, key=key):
                said = self.run_server(
                    "--tls-cert", certificate, "--tls-key", key)
                self.assertIn(repr(certificate), said)
                self.assertIn(repr(key), said)
        self.assertIn(repr(self.certificate), self.run_server(
            "--tls-cert", self.certificate))
        self.assertIn("--tls-cert", self.run_server("--tls-key", self.key))
        self.assertIn("--server wsgiref serves no HTTPS", self.run_server(
            "--server", "wsgiref", "--tls-cert", self.certificate))

    def test_python_without_ssl(self):
        said = self.run_server("--tls-cert", self.certificate,
                               program=without("ssl"))
        self.assertIn("--tls-cert needs ssl", said)
        self.assertIn(sys.executable, said)

    def test_one_file_for_both(self):
        path = os.path.join(self.folder, "both.pem")
        with open(path, "w") as both:
            for part in self.key, self.certificate:
                with open(part) as file:
                    both.write(file.read())
        archives.put(self.root, WHEEL, DATA)
        with ServerProcess("--tls-cert", path, self.root) as server:
            self.assertEqual(200, self.get(server, "simple/")[0])


class TestStopping(TlsTestCase):
    def test_running_answers_end_and_idle_ones_close(self):
        large = archives.wheel("large", "1.0", files={
            "noise": os.urandom(2 ** 20) * 16}, compression=0)
        name = "large-1.0-py3-none-any.whl"
        archives.put(self.root, name, large)
        server = self.start()
        idle = self.connect(server)
        self.assertEqual(200, self.ask(idle, "health")[0])
        busy = self.connect(server)
        busy.request("GET", "/packages/" + name)
        response = busy.getresponse()
        found = response.read(100000)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "stopping" in server.logged()
                 or self.is_closed(idle), "it stops")
        found += response.read()
        self.assertEqual(hashlib.sha256(large).digest(),
                         hashlib.sha256(found).digest())
        busy.close()
        self.assertEqual(0, server.process.wait(30))
        server.stop()
        self.assertFalse(re.findall("Traceback", server.output))

    @staticmethod
    def is_closed(client):
        client.sock.settimeout(0.05)
        try:
            return client.sock.recv(1) == b""
        except socket.timeout:
            return False
        except ssl.SSLError:
            return True


if __name__ == "__main__":
    unittest.main()
