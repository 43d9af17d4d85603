"""Each row of "When something is wrong" is a symptom that is provoked here.

The words in backticks, "…" for what varies, are in what the program or the
client prints; after the remedy they are not.
"""

import glob
import os
import re
import shutil
import socket
import subprocess
import sys
import unittest

import pypi_server
from tests import archives, forms, guide, mirror, toolbox
from tests.helpers import SCRIPT, ServerProcess, ask, call, wait_for
from tests.test_accounts import SHA
from tests.test_directories import unprivileged
from tests.test_readme import LOCAL, TlsTestCase
from tests.test_recipes import Nginx
from tests.test_upload_faults import Mounted

WHEEL = "demo-1.0-py3-none-any.whl"
ANYONE = ("-a", ".", "-P", ".")
JOE = {"TWINE_USERNAME": "joe", "TWINE_PASSWORD": "secret"}


def symptoms():
    """Return the words in backticks of the first cells, row by row."""
    return [re.findall("`([^`]+)`", row[0])
            for row in guide.sections()["When something is wrong"].rows]


class TroubleTestCase(TlsTestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.home  # for Mounted
        self.install("tools", "pip", "twine")

    def find(self, first):
        """Return the pattern of the row that begins with these words."""
        found, = [words for row in symptoms() for words in row[:1]
                  if words.startswith(first)]
        return re.sub("FILE|FOLDER", r"\\S+", re.escape(found).replace(
            "…", ".+")).replace("PROJECT", "demo")

    def see(self, first, printed):
        self.assertRegex(re.sub(r"\s+", " ", printed), self.find(first))

    def see_no_more(self, first, printed):
        self.assertNotRegex(re.sub(r"\s+", " ", printed), self.find(first))

    def fail_to_start(self, *arguments):
        process = subprocess.run(
            [sys.executable, SCRIPT, "run", "-H", "127.0.0.1"]
            + list(arguments), stdin=subprocess.DEVNULL, timeout=60,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(2, process.returncode)
        return process.stderr.decode()

    def upload(self, url, status=1, **environment):
        return self.run_command(
            "twine upload --disable-progress-bar --repository-url %s dist/*"
            % url, status=status, **dict(JOE, **environment))

    def listed(self, server, path="simple/demo/"):
        wait_for(lambda: b"demo-" in server.get(path).body, "listed")


class TestTable(unittest.TestCase):
    def test_no_row_is_forgotten(self):
        """Each row is looked for by a test, and only once."""
        with open(__file__, encoding="utf-8") as file:
            sought = set(re.findall(
                r'\.see\(\s*"([^"]+)"', file.read()))
        for row in symptoms():
            self.assertTrue(row)
            found = [first for first in sought if row[0].startswith(first)]
            self.assertEqual(1, len(found), row)


class TestStart(TroubleTestCase):
    def test_directory(self):
        path = os.path.join(self.home, "none", "packages")
        self.see("the package directory … cannot", self.fail_to_start(
            "-p", "0", path))
        os.mkdir(os.path.dirname(path))
        with ServerProcess(path):
            pass

    def test_port(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen(1)
            self.see("cannot listen on …", self.fail_to_start(
                "-p", str(other.getsockname()[1]), self.root))


class TestIndex(TroubleTestCase):
    def test_withheld(self):
        """In the log and at pip, until the file is whole."""
        data = archives.wheel("demo", "1.0")
        archives.put(self.root, WHEEL, data[:-30])
        with self.server() as server:
            command = ("pip download -q -d got --index-url %ssimple/ demo"
                       % server.url)
            wait_for(lambda: "is not served" in server.logged(), "logged")
            self.see("No matching distribution found for PROJECT",
                     self.run_command(command, status=1))
            self.see("FILE is not served", server.logged())
            archives.put(self.root, WHEEL, data)
            self.listed(server)
            self.run_command(command)

    def test_folder_that_cannot_be_read(self):
        folder = os.path.join(self.root, "sub")
        os.mkdir(folder)
        self.put(self.root)
        app = pypi_server.make_app(pypi_server.default_config(
            roots=(self.root,), cache_dir=os.path.join(self.home, "cache")))
        self.addCleanup(app.directories.reader.cache.close)
        with unprivileged(self.home):
            os.chmod(folder, 0)
            with self.assertLogs("pypi_server", "WARNING") as logs:
                status = call(app, "GET", "/simple/elsewhere/").status
            self.see("FOLDER is not served", "\n".join(logs.output))
            self.assertEqual(503, status)
            os.chmod(folder, 0o755)
            wait_for(lambda: call(app, "GET", "/simple/elsewhere/").status
                     == 302, "all is well")

    def test_shadowed(self):
        for folder in self.root, self.dist:
            self.put(folder)
        with ServerProcess(self.root, self.dist) as server:
            self.listed(server)
            self.assertRegex(server.logged(),
                             r"\S+ is not served: \S+ comes first")

    def test_build_requirements(self):
        """Of an sdist; until the wheel that builds it is here."""
        wheel = glob.glob(os.path.join(
            mirror.FOLDER, "*", "setuptools-*.whl"))
        if not wheel:
            self.skipTest("the mirror, which has setuptools, is missing")
        archives.put(self.root, "demo-1.0.tar.gz",
                     archives.sdist("demo", "1.0"))
        with self.server() as server:
            self.listed(server)
            command = ("pip install --target site --index-url %ssimple/ demo"
                       % server.url)
            self.see("No matching distribution found for setuptools",
                     self.run_command(command, status=1))
            shutil.copy(wheel[0], self.root)
            wait_for(lambda: server.get("simple/setuptools/").status == 200,
                     "listed")
            self.run_command(command)

    def test_fallback(self):
        with ServerProcess(self.root) as server:
            answer = server.get("simple/demo/")
            self.assertEqual(302, answer.status)
            self.see("https://pypi.org/", answer.headers["location"])
        with self.server() as server:
            self.assertEqual(404, server.get("simple/demo/").status)

    def test_prefix(self):
        """The proxy takes off what the server waits for."""
        self.put(self.root)
        with self.server("--server-base-url", "/pypi") as server, \
                Nginx(server, "nginx-prefix.conf") as front:
            answer = front.ask("GET", "/pypi/simple/demo/")
            self.assertEqual(404, answer.status)
            self.see("this index is at", answer.reason)
        with self.server() as server:
            self.listed(server)
            with Nginx(server, "nginx-prefix.conf") as front:
                self.assertEqual(200, front.ask(
                    "GET", "/pypi/simple/demo/").status)

    def test_scheme(self):
        self.put(self.root)
        headers = {"X-Forwarded-Proto": "https",
                   "X-Forwarded-Host": "packages.example.org"}
        for options, expected in (
                ((), "http://"), (("--trusted-proxy", "127.0.0.1"),
                                  "https://packages.example.org/")):
            with self.server(*options) as server:
                self.listed(server)
                page = server.get("pypi/demo/json", headers).body.decode()
                self.assertIn('"url": "' + expected, page.replace(
                    '"url":"', '"url": "'))
                if not options:
                    self.see("http://", page)

    def test_cache(self):
        path = self.write("file", "")
        self.put(self.root)
        with ServerProcess("--cache-dir", path, self.root) as server:
            # What is read ahead opens the file, so the page may be earlier.
            wait_for(lambda: "digests are kept" in server.logged(), "a line")
            self.see("digests are kept", server.logged())
        with self.server() as server:
            self.listed(server)
            self.see_no_more("digests are kept", server.logged())


class TestUploads(TroubleTestCase):
    def setUp(self):
        super().setUp()
        self.put(self.dist)

    def test_no_accounts(self):
        with self.server() as server:
            self.see("uploads are switched off", self.upload(server.url))

    def test_password(self):
        """A new one counts at once; an unknown hash is named."""
        path = self.write("htpasswd", "joe:$9$unknown\n")
        with self.server("-P", path) as server:
            self.see("the hash of", server.logged())
            self.see("a valid user", self.upload(server.url))
            self.write("htpasswd", "joe:%s\n" % SHA)
            self.see("a valid user", self.upload(
                server.url, TWINE_PASSWORD="x"))
            self.see_no_more("a valid user", self.upload(server.url, 0))

    def test_exists(self):
        archives.put(self.root, WHEEL, archives.wheel(
            "demo", "1.0", body="other"))
        with self.server(*ANYONE) as server:
            self.listed(server)
            self.see("File already exists", self.upload(server.url))
        with self.server("--overwrite", *ANYONE) as server:
            self.listed(server)
            self.upload(server.url, 0)

    def test_status(self):
        path = self.write("packages/demo.status", "archived\n")
        with self.server(*ANYONE) as server:
            self.see("the project …", self.upload(server.url))
            os.unlink(path)
            wait_for(lambda: "takes no files" not in self.run_command(
                "twine upload --repository-url %s dist/* || true"
                % server.url, **JOE), "taken", 5, 0.3)

    def test_not_writable(self):
        mounted = Mounted(self, "-t", "tmpfs", "-o", "size=2m", "tmpfs")
        with ServerProcess(*(ANYONE + (mounted.path,))) as server:
            mounted.remount("ro")
            self.see("the package directory of", self.upload(server.url))
            mounted.remount("rw")
            self.upload(server.url, 0)
        options = ANYONE + (mounted.path,)
        mounted.remount("ro")
        with ServerProcess(*options) as server:
            self.see("uploads will fail", server.logged())
        with ServerProcess("--read-only", *options) as server:
            self.see_no_more("uploads will fail", server.logged())

    def test_disk_is_full(self):
        mounted = Mounted(self, "-t", "tmpfs", "-o", "size=2m", "tmpfs")
        archives.put(self.dist, WHEEL, archives.wheel("demo", "1.0", files={
            "noise": os.urandom(3 * 2 ** 20)}))
        with ServerProcess(*(ANYONE + (mounted.path,))) as server:
            self.see("no space", self.upload(server.url))
            self.assertEqual([], os.listdir(mounted.path))

    def test_too_large(self):
        archives.put(self.dist, WHEEL, archives.wheel("demo", "1.0", files={
            "noise": os.urandom(2 ** 21)}))
        with self.server("--max-upload-size", "1000000", *ANYONE) as server:
            self.see("the file is larger", self.upload(server.url))
        with self.server(*ANYONE) as server:
            recipe = guide.recipe("nginx.conf")
            limit = "client_max_body_size 0;"
            self.assertIn(limit, recipe)
            with Nginx(server, "", recipe.replace(limit, "")) as front:
                self.see("Request Entity", self.upload(front.url + "/"))
            with Nginx(server, "", recipe) as front:
                self.upload(front.url + "/", 0)

    def test_digest(self):
        data = archives.wheel("demo", "1.0")
        with self.server(*ANYONE) as server:
            headers, body = forms.upload(
                WHEEL, data, sha256_digest="0" * 64, name="demo",
                version="1.0")
            host, port = server.url.split("/")[2].split(":")
            answer = ask(host, int(port), "POST", "/", headers, body)
        self.assertEqual(400, answer.status)
        self.see("sha256_digest does not", answer.reason)


class TestTransport(TroubleTestCase):
    def test_tls_at_a_plain_port(self):
        with self.server("-v") as server:
            self.run_command("curl -sk https%s || true" % server.url[4:])
            self.see("this is HTTP, not HTTPS", server.logged())

    def test_other_host(self):
        """Of a name that only this server, as a proxy, knows."""
        self.put(self.root)
        with self.server() as server:
            self.listed(server)
            command = ("pip download -q -d got --proxy %s --index-url "
                       "http://packages.example.org/simple/ demo"
                       % server.url.rstrip("/"))
            self.see("is not a trusted or secure", self.run_command(
                command, status=1))
            self.see_no_more("is not a trusted", self.run_command(
                command + " --trusted-host packages.example.org"))
            self.write("pip.conf", "[global]\ntrusted-host = "
                       "packages.example.org\n")
            self.see_no_more("is not a trusted", self.run_command(
                command, PIP_CONFIG_FILE=self.home + "/pip.conf"))

    def test_other_host_with_pdm(self):
        """At 0.0.0.0, which leads here and is not known to be this host."""
        self.put(self.root)
        self.install("pdm", "pdm")
        project = ('[project]\nname = "x"\nversion = "1"\n'
                   'requires-python = ">=3.10"\ndependencies = ["demo"]\n')
        with self.server() as server:
            self.listed(server)
            source = guide.recipe("pyproject.toml of pdm").replace(
                LOCAL, server.url.replace("127.0.0.1", "0.0.0.0"))
            self.write("pyproject.toml", project + source)
            self.see("Unable to find candidates", self.lock(status=1))
            self.write("pyproject.toml",
                       project + source + "verify_ssl = false\n")
            self.see_no_more("Unable to find candidates", self.lock())

    def lock(self, status=0):
        return self.run_command(
            "pdm lock -q", status=status, PDM_CHECK_UPDATE="false",
            PDM_PYTHON=toolbox.command("pdm"))

    def test_unknown_authority(self):
        """The variable wins over --cert; without it, --cert counts."""
        self.put(self.root)
        with self.server() as server:
            self.listed(server)
            with self.front(server) as front:
                command = ("pip download -d got --index-url "
                           "https://localhost:%d/simple/ demo" % front.port)
                environment = {"PIP_RETRIES": "0"}
                self.see("CERTIFICATE_VERIFY", self.run_command(
                    command, status=1, **environment))
                command += " --cert ca.pem"
                openssl = self.write("other.pem", "")
                self.run_command(
                    "openssl req -x509 -nodes -newkey rsa:2048 -keyout k "
                    "-out %s -subj /CN=other" % openssl)
                self.assertRegex(self.run_command(
                    command, status=1, REQUESTS_CA_BUNDLE=openssl,
                    **environment), self.find("CERTIFICATE_VERIFY"))
                self.run_command(command, **environment)


if __name__ == "__main__":
    unittest.main()
