"""What well-known scanners say: REDbot, sslyze, slowhttptest.

And real clients over HTTPS, with a certificate of a private authority.
"""

import glob
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
import unittest
from urllib.parse import urlsplit

from tests import archives, toolbox
from tests.helpers import (
    DirectoryTestCase, ServerProcess, SharedTestCase, ask, listening,
)
from tests.test_clients import run_isolated
from tests.test_tls import TlsTestCase

WHEEL = "foo-1.0-py3-none-any.whl"
SDIST = "bar-1.0.tar.gz"
# Seconds that each mode of slowhttptest goes on.
SLOW_SECONDS = 5
SLOW_CONNECTIONS = 400


class TestRedbot(SharedTestCase):
    """Caching, validation, ranges and negotiation, of each kind of answer."""

    @classmethod
    def fill(cls, root):
        archives.put(root, WHEEL, archives.wheel(
            "foo", "1.0", files={"noise": os.urandom(20000)}))
        archives.put(root, WHEEL + ".asc", b"signature\n" * 20)
        archives.put(root, WHEEL + ".provenance", b'{"version": 1}\n' * 20)
        archives.put(root, SDIST, archives.sdist("bar", "1.0"))
        return [WHEEL, SDIST]

    def test_no_faults(self):
        redbot = toolbox.require("scanners", "redbot")
        with listening(self.app) as (host, port):
            for path in (
                    "", "simple/", "simple/foo/", "simple/Foo/", "packages/",
                    "packages/" + WHEEL, "packages/" + SDIST,
                    "packages/" + WHEEL + ".metadata",
                    "packages/" + WHEEL + ".asc",
                    "packages/" + WHEEL + ".provenance", "pypi/foo/json",
                    "pypi/foo/1.0/json", "foo", "health", "favicon.ico",
                    "simple/foo/?format=application/vnd.pypi.simple.v1+json",
                    "nothing/at/this/address"):
                with self.subTest(path):
                    process = subprocess.run(
                        [redbot, "-o", "har",
                         "http://%s:%d/%s" % (host, port, path)],
                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE, timeout=60)
                    found = json.loads(process.stdout.decode())
                    self.assertTrue(found["log"]["entries"])
                    notes = [note for entry in found["log"]["entries"]
                             for note in entry["_red_messages"]]
                    self.assertTrue(notes)
                    # A time tells too little: a file may be replaced by
                    # one with the same.
                    self.assertEqual([], [
                        note for note in notes
                        if note["level"] in ("BAD", "WARN")
                        and note["note_id"] != "IMS_FULL"])


class TestSslyze(TlsTestCase):
    def test_as_mozilla_recommends(self):
        sslyze = toolbox.require("scanners", "sslyze")
        server = self.start()
        process = subprocess.run(
            [sslyze, "--mozilla_config=intermediate",
             "%s:%d" % self.address(server)], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120,
            universal_newlines=True)
        printed = process.stdout
        self.assertIn("SCANS COMPLETED", printed, process.stderr)
        _, _, verdict = printed.partition("COMPLIANCE AGAINST")
        # No public authority knows the certificate; and OpenSSL has two
        # more curves than Mozilla lists, which are stronger than needed.
        faults = [line.strip() for line in verdict.splitlines()
                  if line.strip().startswith("*")]
        self.assertEqual([], [
            fault for fault in faults
            if not fault.startswith(("* certificate_path_validation:",
                                     "* tls_curves: TLS curves {'X448'",
                                     "* tls_curves: TLS curves {'secp521r1'"))
        ], printed)
        for line in ("Compression disabled", "Not vulnerable to OpenSSL CCS",
                     "Not vulnerable to Heartbleed", "Not vulnerable, RSA",
                     "Client Renegotiation DoS Attack:   OK"):
            self.assertIn(line, printed)


class TestClientsOverTls(TlsTestCase):
    """pip, uv and twine, which are told of a private authority."""

    def run_client(self, arguments, **environment):
        home = os.path.join(self.folder, "home")
        os.makedirs(home, exist_ok=True)
        process = run_isolated(home, *arguments, **environment)
        self.assertEqual(0, process.returncode, process.stdout)

    def test_strangers_are_not_trusted(self):
        """Or the tests below would show nothing."""
        uv = toolbox.require("tools", "uv")
        home = tempfile.mkdtemp(dir=self.folder)
        process = run_isolated(
            home, uv, "pip", "install", "--no-cache", "--target", home,
            "--default-index", self.start().url + "simple/", "foo")
        self.assertNotEqual(0, process.returncode)
        self.assertIn("certificate", process.stdout)

    def test_pip(self):
        python = toolbox.require("tools")
        url = self.start().url
        for options, environment in (
                (["--cert", self.authority.path], {}),
                ([], {"PIP_CERT": self.authority.path}),
                ([], {"SSL_CERT_FILE": self.authority.path,
                      "REQUESTS_CA_BUNDLE": self.authority.path})):
            target = tempfile.mkdtemp(dir=self.folder)
            self.run_client(
                [python, "-m", "pip", "install", "--no-cache-dir",
                 "--target", target, "--index-url", url + "simple/", "foo"]
                + options, **environment)
            self.assertTrue(glob.glob(target + "/foo-1.0.dist-info"))

    def test_uv(self):
        uv = toolbox.require("tools", "uv")
        url = self.start().url
        target = tempfile.mkdtemp(dir=self.folder)
        self.run_client(
            [uv, "pip", "install", "--no-cache", "--target", target,
             "--default-index", url + "simple/", "foo"],
            SSL_CERT_FILE=self.authority.path)
        self.assertTrue(glob.glob(target + "/foo-1.0.dist-info"))
        path = archives.put(self.folder, "baz-1.0-py3-none-any.whl",
                            archives.wheel("baz", "1.0"))
        self.run_client(
            [uv, "publish", "--no-cache", "--username", "joe", "--password",
             "secret", "--publish-url", url, path],
            SSL_CERT_FILE=self.authority.path)
        self.assertIn(os.path.basename(path), os.listdir(self.root))

    def test_twine(self):
        twine = toolbox.require("tools", "twine")
        url = self.start().url
        path = archives.put(self.folder, "baz-1.0-py3-none-any.whl",
                            archives.wheel("baz", "1.0"))
        for environment, options in (
                ({"TWINE_CERT": self.authority.path}, []),
                ({}, ["--cert", self.authority.path])):
            self.run_client(
                [twine, "upload", "--non-interactive",
                 "--disable-progress-bar",
                 "-u", "joe", "-p", "secret", "--repository-url", url, path]
                + options, **environment)
            self.assertIn(os.path.basename(path), os.listdir(self.root))


def memory(process):
    """Return the resident memory of a process in bytes."""
    with open("/proc/%d/statm" % process.pid) as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class TestSlowClients(DirectoryTestCase):
    """slowhttptest, in its four modes."""

    def check(self, *options):
        program = shutil.which("slowhttptest")
        if not program:
            self.skipTest("no program slowhttptest")
        archives.put(self.root, WHEEL, archives.wheel(
            "foo", "1.0", files={"noise": os.urandom(2 ** 20) * 4},
            compression=0))
        with ServerProcess("-a", ".", "-P", ".", self.root) as server:
            before = memory(server.process)
            self.assertEqual(200, server.get("simple/foo/").status)
            attack = subprocess.Popen(
                [program, "-c", str(SLOW_CONNECTIONS), "-r", "200", "-l",
                 str(SLOW_SECONDS), "-p", "2", *options,
                 "-u", server.url + "packages/" + WHEEL],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, universal_newlines=True)
            reader = threading.Thread(target=attack.stdout.read)
            reader.start()
            try:
                slowest, most = 0.0, before
                address = urlsplit(server.url)
                while attack.poll() is None:
                    started = time.monotonic()
                    answer = ask(address.hostname, address.port, "GET",
                                 "/simple/foo/")
                    self.assertEqual(200, answer.status)
                    slowest = max(slowest, time.monotonic() - started)
                    most = max(most, memory(server.process))
                    time.sleep(0.1)
            finally:
                attack.kill()
                attack.wait()
                reader.join()
                attack.stdout.close()
            # A client that would wait behind them waits for many seconds.
            self.assertLess(slowest, 3)
            self.assertLess(most - before, 100 * 2 ** 20)
            self.assertEqual(200, server.get("packages/" + WHEEL).status)
            server.stop()
            self.assertNotIn("Traceback", server.output)

    def test_slow_heads(self):
        self.check("-H", "-i", "2")

    def test_slow_bodies(self):
        self.check("-B", "-i", "2", "-s", "100000", "-x", "20", "-t", "POST")

    def test_slow_readers(self):
        self.check("-X", "-w", "512", "-y", "1024", "-n", "2", "-z", "32",
                   "-k", "1")

    def test_many_ranges(self):
        self.check("-R", "-a", "5", "-b", "3000")


if __name__ == "__main__":
    unittest.main()
