"""Every command of README.md works as it stands there.

The blocks that are indented by four spaces are taken from the guide and run,
with another home, another port and another project in place of those that
the guide names.  A command that is new in the guide fails here until there
is a test for it.
"""

import os
import re
import subprocess
import sys
import tempfile
import unittest

from tests import archives, toolbox
from tests.helpers import READY, SCRIPT, ServerProcess

TOP = os.path.dirname(SCRIPT)
PROGRAMS = ("python3", "pip", "uv", "scp", "twine", "gunicorn")
# They run this very test, or measure.
TESTS = ("python3 -m tests", "python3 -m tests.benchmark",
         "python3 -m unittest")


def blocks():
    """Return the indented blocks of the guide."""
    with open(os.path.join(TOP, "README.md"), encoding="utf-8") as file:
        text = file.read()
    return [re.sub("(?m)^    ", "", found) for found in re.findall(
        r"(?m)(?<=\n\n)((?:    .*\n|\n(?=    ))+)", text)]


def commands():
    return [line for block in blocks() for line in block.splitlines()
            if line.partition(" ")[0] in PROGRAMS]


def block_with(text):
    """Return the only block with a text."""
    found = [block for block in blocks() if text in block]
    if len(found) != 1:
        raise AssertionError("%r is in %d blocks" % (text, len(found)))
    return found[0]


class ReadmeTestCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = folder.name
        self.root = os.path.join(self.home, "packages")
        self.dist = os.path.join(self.home, "dist")
        os.mkdir(self.root)
        # No client must go beyond the loopback, nor read what is at home.
        self.environment = {
            name: text for name, text in os.environ.items()
            if not name.upper().startswith(("PIP_", "UV_", "TWINE_"))}
        self.environment.update(
            HOME=self.home, PIP_CONFIG_FILE=os.devnull, UV_NO_CONFIG="1",
            UV_CACHE_DIR=os.path.join(self.home, "uv"), NO_COLOR="1",
            PIP_NO_CACHE_DIR="1", PIP_DISABLE_PIP_VERSION_CHECK="1",
            XDG_CACHE_HOME=os.path.join(self.home, "cache"))

    def put(self, folder, version="1.0"):
        return archives.put(
            folder, archives.wheel_filename("demo", version),
            archives.wheel("demo", version))

    def run_command(self, command, program=None, url=None, **more):
        """Run a command of the guide in a shell; return what it printed."""
        self.assertIn(command, commands())
        words = command.replace("PROJECT", "demo").replace(
            "host:packages/", self.root + "/")
        if url:
            words = words.replace("http://localhost:8080/", url)
        if program:
            words = program + words[words.index(" "):]
        words = words.replace(" pypi_server.py ", " %s " % SCRIPT)
        return self.run_shell(words, **more)

    def run_shell(self, words, environment=None, stdin=""):
        process = subprocess.Popen(
            words, shell=True, cwd=self.home, stdin=subprocess.PIPE,
            env=dict(self.environment, **(environment or {})),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            universal_newlines=True)
        output, _ = process.communicate(stdin, timeout=120)
        self.assertEqual(0, process.returncode, words + "\n" + output)
        return output

    def server(self, *options):
        return ServerProcess("--disable-fallback", *(options + (self.root,)))


class TestCommands(ReadmeTestCase):
    def test_no_command_is_forgotten(self):
        """Those below, and no others."""
        self.assertEqual({
            "python3 pypi_server.py run ~/packages",
            "python3 -m tests",
            "pip install --index-url http://localhost:8080/simple/ PROJECT",
            "uv pip install --default-index http://localhost:8080/simple/ "
            "PROJECT",
            "scp dist/* host:packages/",
            "twine upload --repository-url http://localhost:8080/ dist/*",
            "uv publish --publish-url http://localhost:8080/ dist/*",
            "python3 pypi_server.py run [OPTIONS] [DIRECTORY ...]",
            "python3 pypi_server.py passwd ~/htpasswd joe",
            "python3 pypi_server.py run -P ~/htpasswd ~/packages",
            "python3 pypi_server.py update ~/packages",
            "gunicorn 'pypi_server:app(root=\"/srv/packages\")'",
        }, set(commands()))

    def start(self, command, *options):
        """Start a `run` of the guide on another port; return its URL."""
        self.assertIn(command, commands())
        words = command.split()
        process = subprocess.Popen(
            [sys.executable, SCRIPT] + [
                word.replace("~", self.home) for word in words[2:]]
            + ["-p", "0", "-H", "127.0.0.1"] + list(options),
            env=self.environment, stdout=subprocess.PIPE,
            universal_newlines=True)
        self.addCleanup(process.communicate, timeout=60)
        self.addCleanup(process.terminate)
        found = READY.match(process.stdout.readline())
        self.assertTrue(found)
        return found.group(1)

    def test_run(self):
        """It makes the directory."""
        os.rmdir(self.root)
        self.start("python3 pypi_server.py run ~/packages")
        self.assertTrue(os.path.isdir(self.root))

    def test_install_with_pip(self):
        python = toolbox.require("tools")
        self.put(self.root)
        with self.server() as server:
            # Not into the environment of the tests.
            self.run_command(
                "pip install --index-url http://localhost:8080/simple/ "
                "PROJECT", python + " -m pip", server.url,
                environment={"PIP_TARGET": "site"})
        self.assertTrue(os.path.exists(
            os.path.join(self.home, "site", "demo.py")))

    def test_install_with_uv(self):
        uv = toolbox.require("tools", "uv")
        self.put(self.root)
        with self.server() as server:
            self.run_shell("%s venv -p %s env" % (uv, sys.executable))
            self.run_command(
                "uv pip install --default-index "
                "http://localhost:8080/simple/ PROJECT", uv, server.url,
                environment={"VIRTUAL_ENV": os.path.join(self.home, "env")})

    def test_drop(self):
        """scp without a host copies on the same machine."""
        self.put(self.dist)
        self.run_shell("scp dist/* %s/ || cp dist/* %s/" % (
            self.root, self.root))
        self.assertEqual(os.listdir(self.dist), os.listdir(self.root))

    def test_upload_with_an_account(self):
        """From the password file to an upload with twine and with uv."""
        twine = toolbox.require("tools", "twine")
        uv = toolbox.require("tools", "uv")
        self.run_command(
            "python3 pypi_server.py passwd ~/htpasswd joe", sys.executable,
            stdin="secret\n")
        url = self.start(
            "python3 pypi_server.py run -P ~/htpasswd ~/packages")
        self.put(self.dist)
        self.run_command(
            "twine upload --repository-url http://localhost:8080/ dist/*",
            twine, url, environment={
                "TWINE_USERNAME": "joe", "TWINE_PASSWORD": "secret"})
        self.put(self.dist, "2.0")
        self.run_command(
            "uv publish --publish-url http://localhost:8080/ dist/*", uv, url,
            environment={"UV_PUBLISH_USERNAME": "joe",
                         "UV_PUBLISH_PASSWORD": "secret"})
        self.assertEqual(sorted(os.listdir(self.dist)),
                         sorted(os.listdir(self.root)))

    def test_update(self):
        self.put(self.root)
        self.put(os.path.join(self.home, "upstream"), "2.0")
        with ServerProcess(os.path.join(self.home, "upstream")) as upstream:
            command = "python3 pypi_server.py update ~/packages"
            self.assertIn(command, commands())
            printed = self.run_shell(command.replace(
                "python3 pypi_server.py", "%s %s" % (
                    sys.executable, SCRIPT))
                + " --index-url %ssimple/" % upstream.url)
        self.assertIn("demo==2.0", printed)


class TestConfigurations(ReadmeTestCase):
    """What the guide says to write into files of clients."""

    def write(self, name, text, url):
        path = os.path.join(self.home, name)
        with open(path, "w") as file:
            file.write(text.replace("http://localhost:8080/", url))
        return path

    def test_pip_conf(self):
        python = toolbox.require("tools")
        self.put(self.root)
        with self.server() as server:
            path = self.write("pip.conf", block_with("[global]"), server.url)
            self.run_shell(
                "%s -m pip download --no-deps -d got demo" % python,
                environment={"PIP_CONFIG_FILE": path})

    def test_uv_toml(self):
        uv = toolbox.require("tools", "uv")
        self.put(self.root)
        with self.server() as server:
            self.write("uv.toml", block_with("[[index]]"), server.url)
            del self.environment["UV_NO_CONFIG"]
            self.write("requirements.in", "demo\n", server.url)
            self.assertIn("demo==1.0", self.run_shell(
                "%s pip compile requirements.in" % uv))

    def test_poetry(self):
        poetry = toolbox.require("poetry", "poetry")
        self.put(self.root)
        with self.server() as server:
            self.write("pyproject.toml", (
                '[project]\nname = "app"\nversion = "1"\n'
                'requires-python = ">=3.10"\ndependencies = ["demo"]\n\n'
                + block_with("[[tool.poetry.source]]")), server.url)
            self.run_shell("%s lock --no-interaction" % poetry)
            with open(os.path.join(self.home, "poetry.lock")) as file:
                self.assertIn(server.url + "simple", file.read())

    def test_pypirc(self):
        twine = toolbox.require("tools", "twine")
        self.put(self.dist)
        with self.server("-a", ".", "-P", ".") as server:
            self.write(".pypirc", block_with("[distutils]"), server.url)
            self.run_shell("%s upload -r local dist/*" % twine)
        self.assertEqual(os.listdir(self.dist), os.listdir(self.root))

    def test_python_api(self):
        code = block_with("auther=").replace("/srv/packages", self.root)
        self.run_shell("%s -" % sys.executable, stdin=code, environment={
            "PYTHONPATH": TOP})


if __name__ == "__main__":
    unittest.main()
