"""What the guide tells clients to write into files, read by the clients.

Nothing but the address of the server is replaced, and the name of the
account's host where a client would look it up.
"""

import os
import unittest

from tests import guide, toolbox
from tests.helpers import ServerProcess, names_in, texts, wait_for
from tests.test_accounts import SHA
from tests.test_readme import LOCAL, ReadmeTestCase

PROJECT = """\
[project]
name = "app"
version = "1"
requires-python = ">=3.11"
dependencies = ["demo"]

"""
# That of Python 2 does not read pyproject.toml.
OLD_PROJECT = """\
from %s import setup
setup(name="demo", version="1.0", py_modules=["demo"], author="Me",
      author_email="me@example.org", url="http://example.org")
"""
CLOSED = "list,download,update"


class FilesTestCase(ReadmeTestCase):
    def place(self, title, path, url, before=""):
        """Write a file of the guide; it names this server instead."""
        text = guide.recipe(title)
        self.assertTrue(LOCAL in text or "localhost" in text)
        return self.write(path, before + text.replace(LOCAL, url))

    def serve(self, *options):
        """Start a server that has demo 1.0; return its URL."""
        self.put(self.root)
        server = self.server(*options)
        server.__enter__()
        self.addCleanup(server.stop)
        if "-a" in options and CLOSED in options:
            return server.url
        wait_for(lambda: texts(server.get("simple/demo/").body), "listed")
        return server.url

    def closed(self):
        """Start a server that asks for the account of joe."""
        return self.serve("-P", self.write("htpasswd", "joe:%s\n" % SHA),
                          "-a", CLOSED)


class TestPip(FilesTestCase):
    def setUp(self):
        super().setUp()
        self.install("tools", "pip")
        del self.environment["PIP_CONFIG_FILE"]

    def check(self, **environment):
        output = self.run_command("pip download --no-deps -d got demo",
                                  **environment)
        self.assertEqual(["demo-1.0-py3-none-any.whl"],
                         os.listdir(os.path.join(self.home, "got")), output)

    def test_file_of_the_user(self):
        self.place("pip.conf", ".config/pip/pip.conf", self.serve())
        self.environment["XDG_CONFIG_HOME"] = self.home + "/.config"
        self.check()

    def test_old_place(self):
        self.place("pip.conf", ".pip/pip.conf", self.serve())
        self.check()

    def test_variable(self):
        self.assertIn("`PIP_INDEX_URL`", guide.read())
        self.check(PIP_INDEX_URL=self.serve() + "simple/")

    def test_extra_index(self):
        """As the guide of the predecessor has it."""
        url = self.serve()
        with ServerProcess("--disable-fallback", self.dist) as other:
            for index in url + "simple/", url + "simple", url:
                self.check(PIP_INDEX_URL=other.url + "simple/",
                           PIP_EXTRA_INDEX_URL=index)

    def test_two_indexes(self):
        """Why the guide says not to: the higher version of a stranger."""
        self.put(self.dist, "9.0")
        url = self.serve()
        with ServerProcess("--disable-fallback", self.dist) as other:
            wait_for(lambda: texts(other.get("simple/demo/").body), "listed")
            self.run_command("pip download -q -d got demo",
                             PIP_INDEX_URL=url + "simple/",
                             PIP_EXTRA_INDEX_URL=other.url + "simple/")
        self.assertEqual(["demo-9.0-py3-none-any.whl"],
                         os.listdir(self.home + "/got"))

    def test_netrc(self):
        url = self.closed()
        name = self.place(".netrc", ".netrc", url)
        os.chmod(name, 0o600)
        self.check(PIP_INDEX_URL=url.replace(
            "127.0.0.1", "localhost") + "simple/")

    def test_fallback(self):
        """What is not here comes from the fallback, by one index URL."""
        self.put(os.path.join(self.home, "upstream"), "1.0")
        self.put(os.path.join(self.home, "upstream"), name="other")
        self.put(self.root, "0.5")
        with ServerProcess(os.path.join(self.home, "upstream")) as other, \
                ServerProcess("--fallback-url", other.url + "simple/",
                              self.root) as server:
            for name, version in ("other", "1.0"), ("demo", "0.5"):
                with self.subTest(name):
                    wait_for(lambda: texts((
                        server if name == "demo" else other).get(
                            "simple/%s/" % name).body), "listed")
                    index = server.url + "simple/"
                    self.run_command("pip download -q -d got %s" % name,
                                     PIP_INDEX_URL=index)
                    self.assertIn("%s-%s-py3-none-any.whl" % (name, version),
                                  os.listdir(self.home + "/got"))
                    self.install("tools", "uv")
                    self.assertIn(
                        "%s==%s" % (name, version), self.run_command(
                            "echo %s | uv pip compile -" % name,
                            UV_DEFAULT_INDEX=index))


class FallbackTest:
    """A project that is not here comes from the fallback."""

    def test_fallback(self):
        self.put(self.dist)
        with ServerProcess("--disable-fallback", self.dist) as other, \
                ServerProcess("--fallback-url", other.url + "simple/",
                              self.root) as server:
            wait_for(lambda: texts(other.get("simple/demo/").body), "listed")
            self.assertEqual(302, server.get("simple/demo/").status)
            self.check(server.url)


class TestUv(FilesTestCase):
    def setUp(self):
        super().setUp()
        self.install("tools", "uv")
        self.environment["XDG_CONFIG_HOME"] = self.home + "/.config"

    def check(self, **environment):
        self.write("requirements.in", "demo\n")
        self.assertIn("demo==1.0", self.run_command(
            "uv pip compile requirements.in", **environment))

    def test_beside_a_project(self):
        self.place("uv.toml", "uv.toml", self.serve())
        self.check()

    def test_file_of_the_user(self):
        self.place("uv.toml", ".config/uv/uv.toml", self.serve())
        self.check()

    def test_variable(self):
        self.assertIn("`UV_DEFAULT_INDEX`", guide.read())
        self.check(UV_DEFAULT_INDEX=self.serve() + "simple/")

    def test_netrc(self):
        url = self.closed()
        os.chmod(self.place(".netrc", ".netrc", url), 0o600)
        self.check(UV_DEFAULT_INDEX=url.replace(
            "127.0.0.1", "localhost") + "simple/")

    def test_project(self):
        """Lock from it, with an account for the index, and publish to it."""
        self.place("pyproject.toml of uv", "pyproject.toml", self.closed(),
                   PROJECT)
        self.assertIn("UV_INDEX_LOCAL_USERNAME", guide.read())
        self.run_command("uv lock", UV_INDEX_LOCAL_USERNAME="joe",
                         UV_INDEX_LOCAL_PASSWORD="secret")
        with open(os.path.join(self.home, "uv.lock")) as file:
            self.assertIn("demo-1.0-py3-none-any.whl", file.read())
        self.put(self.dist, "2.0")
        self.run_command("uv publish --index local", UV_PUBLISH_USERNAME="joe",
                         UV_PUBLISH_PASSWORD="secret",
                         UV_INDEX_LOCAL_USERNAME="joe",
                         UV_INDEX_LOCAL_PASSWORD="secret")
        self.assertIn("demo-2.0-py3-none-any.whl", names_in(self.root))


class TestPoetry(FallbackTest, FilesTestCase):
    def setUp(self):
        super().setUp()
        self.install("poetry", "poetry")

    def check(self, url, **environment):
        self.place("pyproject.toml of poetry", "pyproject.toml", url, PROJECT)
        self.run_command(
            "poetry lock --no-interaction", POETRY_CACHE_DIR=self.home + "/c",
            POETRY_CONFIG_DIR=self.home, POETRY_DATA_DIR=self.home,
            **environment)
        with open(os.path.join(self.home, "poetry.lock")) as file:
            self.assertIn(url + "simple", file.read())

    def test_source(self):
        self.check(self.serve())

    def test_account(self):
        self.assertIn("`POETRY_HTTP_BASIC_LOCAL_USERNAME`", guide.read())
        self.check(self.closed(), POETRY_HTTP_BASIC_LOCAL_USERNAME="joe",
                   POETRY_HTTP_BASIC_LOCAL_PASSWORD="secret")


class TestPdm(FallbackTest, FilesTestCase):
    def setUp(self):
        super().setUp()
        self.install("pdm", "pdm")

    def check(self, url):
        self.place("pyproject.toml of pdm", "pyproject.toml", url, PROJECT)
        self.run_command(
            "pdm lock -q", PDM_CHECK_UPDATE="false", PDM_CACHE_DIR=self.home
            + "/c", PDM_PYTHON=toolbox.command("pdm"))
        with open(os.path.join(self.home, "pdm.lock")) as file:
            self.assertIn("demo-1.0-py3-none-any.whl", file.read())

    def test_source(self):
        self.check(self.serve())

    def test_netrc(self):
        url = self.closed().replace("127.0.0.1", "localhost")
        os.chmod(self.place(".netrc", ".netrc", url), 0o600)
        self.check(url)


class TestPypirc(FilesTestCase):
    """~/.pypirc, for twine and for setup.py."""

    def prepare(self):
        """Return the URL of a server whose only file goes to dist."""
        url = self.closed()
        os.rename(self.root, self.dist)
        os.mkdir(self.root)
        self.place("~/.pypirc", ".pypirc", url)
        return url

    def test_twine(self):
        self.install("tools", "twine")
        self.prepare()
        self.run_command("twine upload -r local dist/*")
        self.assertEqual(names_in(self.dist), names_in(self.root))

    def test_setuptools(self):
        """Also with the colons that the predecessor's guide has."""
        python = toolbox.require("setuptools_40")
        self.prepare()
        with open(os.path.join(self.home, ".pypirc")) as file:
            text = file.read()
        self.write("setup.py", OLD_PROJECT % "setuptools")
        self.write("demo.py", "")
        for written, command in (
                (text, "sdist upload -r local"),
                (text.replace(" =", ":"),
                 "sdist register -r local upload -r local")):
            self.write(".pypirc", written)
            self.run_command("%s setup.py -q %s" % (python, command))
            self.assertEqual(["demo-1.0.tar.gz"], names_in(self.root))
            os.unlink(os.path.join(self.root, "demo-1.0.tar.gz"))


class TestEasyInstall(FilesTestCase):
    def test_file_of_the_user(self):
        python = toolbox.require("easy_install")
        self.place("~/.pydistutils.cfg", ".pydistutils.cfg", self.serve())
        os.mkdir(os.path.join(self.home, "site"))
        self.run_command("%s -m easy_install -q -d site demo" % python,
                         PYTHONPATH=os.path.join(self.home, "site"))
        self.assertTrue(any(name.startswith("demo-1.0") for name in
                            os.listdir(os.path.join(self.home, "site"))))


if __name__ == "__main__":
    unittest.main()
