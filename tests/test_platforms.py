"""Nothing of POSIX is needed at import, nor on a path that Windows takes.

tests/windows.py removes the names that Windows does not have.
"""

import os
import subprocess
import sys
import unittest
from urllib.parse import urlsplit

from tests import archives, forms
from tests.helpers import (
    READY, SCRIPT, DirectoryTestCase, ServerProcess, ask, names_in, wait_for,
)
from tests.upstream import Upstream, empty, isolated

TOP = os.path.dirname(SCRIPT)
WHEEL = "foo-1.0-py3-none-any.whl"
DATA = archives.wheel("foo", "1.0", files={"zeros": bytes(500 * 1024)})
MODES = ((), ("--as-nt",))


class PoorServer(ServerProcess):
    """A server where the names of POSIX are missing."""

    def __init__(self, mode, *arguments):
        super().__init__(*arguments, program=("-m", "tests.windows") + mode)
        self.environment["PYTHONPATH"] = TOP

    def post(self, message):
        url = urlsplit(self.url)
        return ask(url.hostname, url.port, "POST", "/", *message)


class TestPlatforms(DirectoryTestCase):
    def run_poor(self, mode, *arguments, text=""):
        process = subprocess.run(
            [sys.executable, "-W", "error", "-m", "tests.windows"]
            + list(mode + arguments), cwd=TOP, input=text.encode(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
            env=isolated(self.folder))
        errors = process.stderr.decode()
        self.assertNotIn("Traceback", errors)
        return process.returncode, process.stdout.decode(), errors

    def test_names_are_really_missing(self):
        """Else the other tests show nothing."""
        code = ("from tests import windows; windows.prepare(False)\n"
                "import os, signal, socket, socketserver, sys\n"
                "print([name for module, name in ((os, 'fork'), (os, 'link'),"
                "(os, 'O_NONBLOCK'), (os, 'sendfile'), (os, 'geteuid'),"
                "(signal, 'SIGHUP'), (socket, 'AF_UNIX'), (os, 'chown'))"
                "if hasattr(module, name)])\n"
                "for name in 'fcntl', 'pwd', 'resource', 'termios':\n"
                "    try: __import__(name)\n"
                "    except ImportError: pass\n"
                "    else: print(name)\n")
        found = subprocess.check_output(
            [sys.executable, "-c", code], cwd=TOP)
        self.assertEqual(b"[]", found.strip())

    def test_serving(self):
        archives.put(self.root, WHEEL, DATA)
        for mode in MODES:
            with self.subTest(mode):
                with PoorServer(mode, "-a", ".", "-P", ".", "--log-file",
                                os.path.join(self.folder, "log"), "-v",
                                self.root) as server:
                    self.check_serving(server, mode)
                self.assertNotIn("Traceback", server.output)
                self.assertEqual(0, server.process.returncode)
                self.assertRegex(server.line, READY)

    def check_serving(self, server, mode):
        wait_for(lambda: WHEEL in server.get("simple/foo/").body.decode(),
                 "it is listed")
        self.assertEqual(DATA, server.get("packages/" + WHEEL).body)
        self.assertEqual(DATA[5:9], server.get(
            "packages/" + WHEEL, {"Range": "bytes=5-8"}).body)
        self.assertEqual(200, server.get(
            "packages/%s.metadata" % WHEEL).status)
        self.assertEqual(b"Ok", server.get("health").body)
        version = "2.%d" % len(mode)
        name = "foo-%s-py3-none-any.whl" % version
        data = archives.wheel("foo", version, files={
            "noise": os.urandom(2 ** 20)})
        answer = server.post(forms.upload(name, data, **forms.digests(data)))
        self.assertEqual(200, answer.status, answer.body)
        self.assertIn(name.encode(), server.get("simple/foo/").body)
        self.assertEqual(data, server.get("packages/" + name).body)
        # The same again, and other content under its name.
        self.assertEqual(200, server.post(forms.upload(name, data)).status)
        other = archives.wheel("foo", version, body="other")
        self.assertEqual(409, server.post(forms.upload(name, other)).status)
        self.assertEqual(data, server.get("packages/" + name).body)
        self.assertEqual(200, server.post(
            forms.upload(name + ".asc", b"signature")).status)
        self.assertEqual(200, server.post(forms.post([
            (":action", "remove_pkg"), ("name", "foo"),
            ("version", version)])).status)
        self.assertEqual(404, server.get("packages/" + name).status)
        self.assertEqual([WHEEL], names_in(self.root))

    def test_overwriting(self):
        other = archives.wheel("foo", "1.0", body="other")
        for mode in MODES:
            with self.subTest(mode):
                archives.put(self.root, WHEEL, DATA)
                with PoorServer(mode, "-a", ".", "-P", ".", "--overwrite",
                                self.root) as server:
                    answer = server.post(forms.upload(WHEEL, other))
                    self.assertEqual(200, answer.status, answer.body)
                    self.assertEqual(other, server.get(
                        "packages/" + WHEEL).body)

    def test_accounts(self):
        for number, mode in enumerate(MODES):
            with self.subTest(mode):
                path = os.path.join(self.folder, "htpasswd%d" % number)
                for text in "first\n", "second\n":
                    status, _, errors = self.run_poor(
                        mode, "passwd", path, "joe", text=text)
                    self.assertEqual((0, ""), (status, errors))
                with PoorServer(mode, "-a", "list", "-P", path,
                                self.root) as server:
                    for password, status in (("first", 401),
                                             ("second", 200)):
                        self.assertEqual(status, server.get(
                            "simple/",
                            forms.credentials("joe", password)).status)
                status, _, errors = self.run_poor(
                    mode, "passwd", "-D", path, "joe")
                self.assertEqual((0, ""), (status, errors))

    def test_update(self):
        empty(self.root, "foo-1.0.tar.gz")
        with Upstream() as index:
            index.has("foo", "foo-2.0.tar.gz")
            for mode in MODES:
                with self.subTest(mode):
                    status, output, errors = self.run_poor(
                        mode, "update", "--index-url", index.url, self.root)
                    self.assertEqual((0, ""), (status, errors))
                    self.assertIn("foo==2.0", output)

    def test_mistakes(self):
        for mode in MODES:
            for arguments, named in (
                    (("run", "-p", "x"), "'x'"),
                    (("run", os.path.join(self.folder, "none", "deeper")),
                     "none"),
                    (("run", "--server", "gunicorn", "-p", "x"), "'x'")):
                with self.subTest(arguments, mode=mode):
                    status, _, errors = self.run_poor(mode, *arguments)
                    self.assertEqual(2, status)
                    self.assertIn(named, errors)

    def test_leftovers_are_removed(self):
        for mode in MODES:
            path = archives.put(self.root, ".upload-1-abc", b"x",
                                age=10 ** 6)
            with self.subTest(mode), PoorServer(mode, self.root):
                wait_for(lambda: not os.path.exists(path), "it is removed")


if __name__ == "__main__":
    unittest.main()
