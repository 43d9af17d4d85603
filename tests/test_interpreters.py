"""Every interpreter serves the same bytes, and pip installs from each.

`python3 -m tests` names the interpreters it found; a plain
`python3 -m unittest` skips this module.
"""

import http.client
import os
import shutil
import tempfile
import unittest
import urllib.parse

from tests import archives, toolbox
from tests.helpers import ServerProcess, names_in
from tests.test_clients import (
    CHOSEN, fill, installed, run_isolated, wait_until_listed)

PYTHONS = [path for path in os.environ.get(
    "PYPI_SERVER_TEST_INTERPRETERS", "").split(os.pathsep) if path]
HTML, JSON = "text/html", "application/vnd.pypi.simple.v1+json"

PATHS = (
    "", "simple/", "simple/app/", "simple/lib-one/", "simple/lib-two/",
    "simple/odd/", "simple/none/", "simple/many/", "packages/",
    "pypi/app/json", "pypi/lib-one/1.1/json",
    "packages/app-1.0-py3-none-any.whl",
    "packages/app-1.0-py3-none-any.whl.metadata",
    "packages/lib_one-2.0-py3-none-any.whl.metadata",
    "packages/Lib.Two-1.5.tar.gz", "packages/none.whl", "health",
    "packages/odd-1%211.0%2Bl%C3%A9gal.1.tar.gz")
# What may differ: the time, and the name of the Python that serves.
DIFFERENT = ("date", "server")
REQUESTS = (
    {"Accept": HTML}, {"Accept": JSON},
    {"Accept": JSON, "Accept-Encoding": "gzip"}, {"Range": "bytes=5-20"})


def answers(url):
    """Return {request: (status, reason, headers, body)} for all of PATHS.

    The few absolute links in pages come from the Host header, so it is the
    same for all servers.
    """
    connection = http.client.HTTPConnection(
        urllib.parse.urlsplit(url).netloc, timeout=60)
    found = {}
    for path in PATHS:
        for method in ("GET", "HEAD"):
            for headers in REQUESTS:
                connection.request(method, "/" + path, headers=dict(
                    headers, Host="packages.test"))
                answer = connection.getresponse()
                found[method, path, str(headers)] = (
                    answer.status, answer.reason,
                    sorted((name.lower(), value)
                           for name, value in answer.getheaders()
                           if name.lower() not in DIFFERENT),
                    answer.read())
    connection.close()
    return found


@unittest.skipUnless(PYTHONS, "run by `python3 -m tests` only")
@unittest.skipIf(len(PYTHONS) == 1, "only one interpreter was found")
class InterpretersTest(unittest.TestCase):

    maxDiff = 4000

    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.mkdtemp()
        cls.root = os.path.join(cls.temporary, "packages")
        fill(cls.root)
        archives.put(cls.root, "odd-1!1.0+l\u00e9gal.1.tar.gz",
                     archives.sdist("odd", "1.0"))
        for number in range(50):  # a page that is worth compressing
            version = "1.%d" % number
            archives.put(
                cls.root, archives.wheel_filename("many", version),
                archives.wheel("many", version))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.temporary)

    def serve(self, python):
        folder = tempfile.TemporaryDirectory(dir=self.temporary)
        self.addCleanup(folder.cleanup)
        server = ServerProcess(
            "--disable-fallback", "--cache-dir", folder.name, self.root,
            python=python)
        server.__enter__()
        self.addCleanup(server.stop)
        wait_until_listed(server.url, names_in(self.root))
        return server

    def test_answers_are_equal(self):
        first = answers(self.serve(PYTHONS[0]).url)
        self.assertIn(("content-encoding", "gzip"),
                      first["GET", "simple/many/", str(REQUESTS[2])][2])
        for python in PYTHONS[1:]:
            with self.subTest(python=python):
                others = answers(self.serve(python).url)
                self.assertEqual(sorted(first), sorted(others))
                for key in sorted(first):
                    self.assertEqual(first[key], others[key], key)

    def test_pip_installs_from_each(self):
        pip = toolbox.require("tools", "pip")
        for number, python in enumerate(PYTHONS):
            with self.subTest(python=python):
                server = self.serve(python)
                target = os.path.join(self.temporary, "target%d" % number)
                process = run_isolated(
                    self.temporary, pip, "install", "--no-cache-dir",
                    "--target", target, "--index-url",
                    server.url + "simple/", "app")
                self.assertEqual(process.returncode, 0, process.stdout)
                self.assertEqual(installed(target), CHOSEN)
