"""What the guide of pypiserver tells its users to do works here as well.

The rest of that guide is in the tests of each option and each client.
"""

import os
import shutil
import subprocess
import unittest

from tests import archives, guide, mirror, toolbox
from tests.helpers import (
    READY, SCRIPT, ServerProcess, names_in, texts, wait_for,
)
from tests.processes import free_port
from tests.test_accounts import SHA
from tests.test_readme import ReadmeTestCase
from tests.test_recipes import program

SECRET = {"TWINE_USERNAME": "joe", "TWINE_PASSWORD": "secret"}
PYPIRC = """\
[distutils]
index-servers =
  pypi
  local

[pypi]
username:<your_pypi_username>
password:<your_pypi_passwd>

[local]
repository: %s
username: joe
password: secret
"""


class PredecessorTestCase(ReadmeTestCase):
    def open_server(self):
        server = self.server("-a", ".", "-P", ".")
        server.__enter__()
        self.addCleanup(server.stop)
        return server

    def run_as(self, command, cwd=""):
        """Start a command of that guide; return the URL that it prints."""
        process = subprocess.Popen(
            command, shell=True, cwd=os.path.join(self.home, cwd),
            env=self.environment, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, universal_newlines=True)
        self.addCleanup(process.communicate, timeout=60)
        self.addCleanup(process.terminate)
        return READY.match(process.stdout.readline()).group(1)


class TestInstalled(PredecessorTestCase):
    def test_command(self):
        """pip makes pypi-server, which takes the command of old."""
        if not mirror.is_complete():
            self.skipTest("the mirror, which has flit_core, is missing")
        self.install("tools", "pip")
        self.write("htpasswd.txt", "joe:%s\n" % SHA)
        self.put(self.root)
        command, = self.commands("Coming from pypiserver")
        os.mkdir(os.path.join(self.home, "checkout"))
        for name in "pypi_server.py", "README.md", "LICENSE", \
                "pyproject.toml":
            shutil.copy(os.path.join(guide.TOP, name),
                        os.path.join(self.home, "checkout"))
        with ServerProcess(mirror.FOLDER) as index:
            self.run_command(
                "cd checkout && %s -q --target ../site" % command,
                PIP_INDEX_URL=index.url + "simple/")
        self.environment["PATH"] = os.path.join(
            self.home, "site", "bin") + os.pathsep + self.environment["PATH"]
        self.environment["PYTHONPATH"] = os.path.join(self.home, "site")
        self.assertRegex(self.run_command("pypi-server --version"),
                         r"^pypi-server \d")
        port = free_port()
        url = self.run_as("exec pypi-server run -p %d -P htpasswd.txt "
                          "~/packages" % port)
        self.assertTrue(url.endswith(":%d/" % port))

    def test_relative_paths_of_the_image(self):
        """`docker run ... run -P .htpasswd packages`, in /data."""
        self.assertIn("WORKDIR /data\n", guide.recipe("Dockerfile"))
        os.makedirs(os.path.join(self.home, "data"))
        os.rename(self.root, os.path.join(self.home, "data", "packages"))
        self.put(os.path.join(self.home, "data", "packages"))
        self.write("data/.htpasswd", "joe:%s\n" % SHA)
        port = free_port()
        self.run_as("exec python3 %s run -P .htpasswd packages -p %d"
                    % (SCRIPT, port), "data")
        wait_for(lambda: "demo-1.0" in self.run_command(
            "curl -s http://127.0.0.1:%d/simple/demo/" % port), "listed")


class TestHtpasswd(PredecessorTestCase):
    def test_made_by_apache(self):
        """As `htpasswd -sc` does, and later without a restart."""
        htpasswd = program("htpasswd", "apache2-utils")
        self.install("tools", "twine")
        self.run_command("%s -sbc htpasswd.txt other x" % htpasswd)
        self.put(self.dist)
        upload = "twine upload --repository-url %s dist/*"
        with self.server("-P", os.path.join(self.home, "htpasswd.txt")) \
                as server:
            self.run_command(upload % server.url, status=1, **SECRET)
            for option in "-sb", "-b", "-Bb":
                self.run_command("%s %s htpasswd.txt joe secret" % (
                    htpasswd, option))
                self.run_command(upload % server.url, **SECRET)
                self.run_command("%s -b htpasswd.txt joe new" % htpasswd)
                self.run_command(upload % server.url, status=1, **SECRET)


class TestUploads(PredecessorTestCase):
    def test_pypi_uploader(self):
        self.install("pypi_uploader", "pypiupload")
        self.put(self.dist)
        archives.put(self.dist, "demo-1.0.tar.gz",
                     archives.sdist("demo", "1.0"))
        server = self.open_server()
        self.run_command("pypiupload files dist/* -i %s" % server.url)
        self.assertEqual(sorted(os.listdir(self.dist)),
                         names_in(self.root))

    def test_signed(self):
        """`twine upload -r local --sign --identity user ./foo-1.zip`."""
        program("gpg", "gnupg")
        keys = os.path.join(self.home, "keys")
        os.mkdir(keys, 0o700)
        self.environment["GNUPGHOME"] = keys
        self.addCleanup(subprocess.call, ["gpgconf", "--kill", "all"],
                        env=self.environment)
        self.run_command("gpg -q --batch --passphrase '' --quick-gen-key "
                         "user_name default default never")
        server = self.open_server()
        self.write(".pypirc", PYPIRC % server.url)
        for environment in "twine_4", "tools":
            twine = toolbox.require(environment, "twine")
            archives.put(self.home, "foo-1.zip",
                         archives.sdist("foo", "1", ".zip"))
            self.run_command(twine + " upload -r local --sign --identity "
                             "user_name ./foo-1.zip")
            self.assertEqual({"foo-1.zip", "foo-1.zip.asc"},
                             set(names_in(self.root)))
            self.run_command(
                "curl -s -O %spackages/foo-1.zip.asc && gpg --verify "
                "foo-1.zip.asc foo-1.zip" % server.url)
            for name in names_in(self.root):
                os.unlink(os.path.join(self.root, name))
            os.unlink(os.path.join(self.home, "foo-1.zip.asc"))
            wait_for(lambda: server.get("simple/foo/").status == 404, "gone")


class TestDownloads(PredecessorTestCase):
    def test_extra_index_in_a_file(self):
        self.install("tools", "pip")
        del self.environment["PIP_CONFIG_FILE"]
        self.put(self.root)
        with self.server() as server, ServerProcess(
                "--disable-fallback", self.dist) as other:
            wait_for(lambda: texts(server.get("simple/demo/").body), "listed")
            self.write(".pip/pip.conf", "[global]\nextra-index-url = "
                       "%ssimple/\n" % server.url)
            self.run_command("pip download -q -d got demo",
                             PIP_INDEX_URL=other.url + "simple/")

    def test_easy_install_goes_to_the_fallback(self):
        python = toolbox.require("easy_install")
        self.put(self.dist)
        os.mkdir(os.path.join(self.home, "site"))
        with ServerProcess("--disable-fallback", self.dist) as other, \
                ServerProcess("--fallback-url", other.url + "simple/",
                              self.root) as server:
            wait_for(lambda: texts(other.get("simple/demo/").body), "listed")
            self.write(".pydistutils.cfg", "[easy_install]\nindex_url = "
                       "%ssimple/\n" % server.url)
            self.run_command("%s -m easy_install -q -d site demo" % python,
                             PYTHONPATH=os.path.join(self.home, "site"))
        self.assertTrue(any(name.startswith("demo-1.0") for name in
                            os.listdir(os.path.join(self.home, "site"))))


if __name__ == "__main__":
    unittest.main()
