"""The wheel that pyproject.toml describes, built, installed and used."""

import os
import shutil
import subprocess
import tempfile
import unittest

import pypi_server
from tests import archives, toolbox
from tests.guide import recipe
from tests.helpers import SCRIPT
from tests.upstream import isolated

TOP = os.path.dirname(SCRIPT)
BUILD = "import flit_core.buildapi as f, sys; f.build_wheel(sys.argv[1])"
# One request through the application that a file for paste describes.
LOAD = """
import sys
from wsgiref.util import setup_testing_defaults
from paste.deploy import loadapp
environ = {"SCRIPT_NAME": "", "PATH_INFO": sys.argv[2]}
setup_testing_defaults(environ)
body = b"".join(loadapp("config:" + sys.argv[1])(environ, print))
sys.stdout.write(body.decode())
"""


class TestDistribution(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        builder = toolbox.require("hatch_flit")
        pip = toolbox.require("tools")
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = cls.temporary.name
        source = os.path.join(cls.folder, "source")
        os.mkdir(source)
        for name in "pypi_server.py", "pyproject.toml", "README.md", \
                "LICENSE":
            shutil.copy(os.path.join(TOP, name), source)
        cls.site = os.path.join(cls.folder, "site")
        cls.environment = isolated(cls.folder, PYTHONPATH=cls.site)
        for command in (
                [builder, "-c", BUILD, cls.folder],
                [pip, "-m", "pip", "install", "-q", "--no-deps",
                 "--no-index", "--find-links", cls.folder, "--target",
                 cls.site, "pypi-server-standalone"]):
            subprocess.check_call(command, cwd=source, env=cls.environment)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def run_python(self, environment, *arguments):
        return subprocess.check_output(
            [toolbox.require(environment)] + list(arguments),
            cwd=self.folder, env=self.environment).decode()

    def test_contents(self):
        """One module, which needs nothing."""
        name = "pypi_server_standalone-%s" % pypi_server.__version__
        self.assertEqual(
            {"bin", "pypi_server.py", name + ".dist-info"},
            set(os.listdir(self.site)) - {"__pycache__"})
        with open(os.path.join(self.site, name + ".dist-info",
                               "METADATA")) as file:
            found = pypi_server.parse_metadata(file.read().encode())
        self.assertEqual(">=3.6", pypi_server.first(
            found, "requires-python"))
        self.assertEqual(['libpass ; extra == "passlib"'],
                         found["requires-dist"])

    def test_command(self):
        self.assertEqual(
            "pypi-server %s\n" % pypi_server.__version__, self.run_python(
                "tools", os.path.join(self.site, "bin", "pypi-server"),
                "--version"))

    def test_paste(self):
        """By its name, by that of its entry point, and below a prefix."""
        archives.put(self.folder, "packages/foo-1.0.tar.gz",
                     archives.sdist("foo", "1.0"))
        text = recipe("paste.ini").replace(
            "/srv/packages", os.path.join(self.folder, "packages"))
        self.assertIn("egg:pypi-server-standalone\n", text)
        named = text.replace("standalone\n", "standalone#main\n")
        mounted = named.replace("app:main", "app:index") + (
            "[composite:main]\nuse = egg:Paste#urlmap\n/pypi = index\n")
        for found, path in ((text, "/simple/"), (named, "/simple/"),
                            (mounted, "/pypi/simple/")):
            archives.put(self.folder, "paste.ini", found.encode())
            printed = self.run_python("servers", "-c", LOAD, os.path.join(
                self.folder, "paste.ini"), path)
            self.assertIn("200 OK", printed)
            self.assertIn('<a href="foo/">foo</a>', printed)


if __name__ == "__main__":
    unittest.main()
