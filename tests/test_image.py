"""The image of the guide, built without a registry and without a daemon.

Its base is made of this machine's own Python, under the name that the recipe
asks for.  The builder is Debian's buildah; where it is missing, the tests
are skipped.
"""

import glob
import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

from tests import archives, forms, toolbox
from tests.guide import recipe
from tests.helpers import SCRIPT
from tests.processes import Process, free_port
from tests.test_recipes import program

PYTHON = "/usr/bin/python3"
TOOLS = (PYTHON, "/bin/sh", "/bin/mkdir", "/bin/chown")
USER = "9898:9898"
# What `read_only` and `tmpfs` of the compose file make of an image.
READ_ONLY = """
set -e
mkdir -p "$0/data/.cache"
mount --bind "$0" "$0"
for folder in /tmp /data/.cache /data/packages; do
    mount -t tmpfs -o uid=9898,gid=9898 tmpfs "$0$folder"
done
mount -o remount,bind,ro "$0"
exec chroot --userspec=%s "$0" "$@"
""" % USER


def libraries(paths):
    """Return the shared libraries that some binaries need, by ldd."""
    printed = subprocess.check_output(
        ["ldd"] + [os.path.realpath(path) for path in paths],
        stderr=subprocess.DEVNULL).decode()
    return set(re.findall(r"(?m)^\s.*?(/\S+) \(0x", printed))


def make_base(folder):
    """Copy what runs Python and a few commands into a folder."""
    version = os.path.basename(os.path.realpath(PYTHON))
    library = "/usr/lib/" + version
    modules = glob.glob(library + "/lib-dynload/*.so")
    for path in sorted(libraries(list(TOOLS) + modules)) + list(TOOLS):
        target = folder + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if not os.path.exists(target):
            shutil.copy2(os.path.realpath(path), target)
    shutil.copytree(library, folder + library, ignore=shutil.ignore_patterns(
        "__pycache__", "test", "config-*", "idlelib", "tkinter"))
    for name in "tmp", "dev", "proc", "etc":
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    os.chmod(os.path.join(folder, "tmp"), 0o1777)


def write(folder, name):
    """Write a recipe into a folder; return its path."""
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(recipe(name))
    return path


@unittest.skipUnless(os.path.exists(PYTHON), "there is no " + PYTHON)
@unittest.skipUnless(hasattr(os, "geteuid") and os.geteuid() == 0,
                     "chroot and mounting the image need root here")
class TestImage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.buildah_path = program("buildah", "buildah")
        cls.folder = tempfile.mkdtemp()
        try:
            cls.build()
        except BaseException:
            cls.tearDownClass()
            raise

    @classmethod
    def build(cls):
        base = os.path.join(cls.folder, "base")
        os.mkdir(base)
        make_base(base)
        container = cls.buildah("from", "scratch")
        cls.buildah("add", "-q", container, base, "/")
        cls.buildah("commit", "-q", container, re.search(
            r"(?m)^FROM (\S+)", recipe("Dockerfile")).group(1))
        context = os.path.join(cls.folder, "context")
        os.mkdir(context)
        shutil.copy(SCRIPT, context)
        write(context, "Dockerfile")
        # OCI's own format has no health checks.
        cls.buildah("build", "--isolation", "chroot", "--pull=never",
                    "--format", "docker", "-t", "pypi-server", context)

    @classmethod
    def tearDownClass(cls):
        subprocess.call([cls.buildah_path] + cls.storage()
                        + ["umount", "--all"], stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL)
        shutil.rmtree(cls.folder, ignore_errors=True)

    @classmethod
    def storage(cls):
        return ["--root", os.path.join(cls.folder, "root"), "--runroot",
                os.path.join(cls.folder, "runroot"), "--storage-driver",
                "vfs"]

    @classmethod
    def buildah(cls, *arguments):
        """Run buildah; return what it printed, without the line end."""
        process = subprocess.run(
            [cls.buildah_path] + cls.storage() + list(arguments),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
        if process.returncode:
            raise AssertionError("buildah %s: %s" % (
                arguments[0], process.stderr.decode()))
        return process.stdout.decode().strip()

    def test_configuration(self):
        found = self.configuration()
        self.assertEqual(USER, found["User"])
        self.assertEqual(["run"], found["Cmd"])
        self.assertIn("8080/tcp", found["ExposedPorts"])
        self.assertIn("/data/packages", found["Volumes"])

    def configuration(self):
        return json.loads(self.buildah(
            "inspect", "--type", "image", "pypi-server"))["Docker"]["config"]

    def test_it_serves_and_stops(self):
        """As its user, nothing but the volume and the cache writable."""
        container = self.buildah("from", "--pull=never", "pypi-server")
        root = self.buildah("mount", container)
        port = free_port()
        server = "/opt/pypi_server.py run -a . -P . -H 127.0.0.1 -p"
        data = archives.wheel("foo", "1.0")
        name = "foo-1.0-py3-none-any.whl"
        with tempfile.TemporaryDirectory() as folder, Process(
                ["unshare", "-m", "/bin/sh", "-c", READ_ONLY, root, PYTHON]
                + server.split() + [str(port)], port, folder, HOME="/data"
                ) as server:
            self.assertEqual(b"Ok", server.get("/health").body)
            status = "/proc/%d/status" % server.process.pid
            with open(status) as file:
                self.assertRegex(file.read(), r"Uid:\s+9898\s+9898")
            self.assertEqual(200, server.post(
                forms.upload(name, data)).status)
            self.assertEqual(data, server.get("/packages/" + name).body)
            self.check_health(container, port)
            self.assertLess(server.stop(), 10)
            self.assertEqual(0, server.process.returncode)
            self.assertIn("from /data/packages at", server.printed())
            self.assertNotIn("memory only", server.printed())
        with self.assertRaises(AssertionError):
            self.check_health(container, port)

    def check_health(self, container, port):
        """Run the health check of the image, as a builder would."""
        check = self.configuration()["Healthcheck"]["Test"]
        self.assertEqual("CMD", check[0])
        self.buildah("run", "--isolation", "chroot", container, "--", *[
            part.replace("8080", str(port)) for part in check[1:]])

    def test_it_runs_in_the_builder(self):
        container = self.buildah("from", "--pull=never", "pypi-server")
        printed = self.buildah("run", "--isolation", "chroot", container,
                               "--", PYTHON, "/opt/pypi_server.py",
                               "--version")
        self.assertRegex(printed, r"^pypi-server \d")


class TestLint(unittest.TestCase):
    """Tools that know these formats find nothing to say."""

    def check(self, *command):
        process = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=60)
        self.assertEqual((0, b""), (process.returncode, process.stdout))

    def test_image_recipe(self):
        with tempfile.TemporaryDirectory() as folder:
            path = write(folder, "Dockerfile")
            self.check(toolbox.require("images", "hadolint"), path)

    def test_compose_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = write(folder, "compose.yml")
            self.check(program("docker-compose", "docker-compose"), "-f",
                       path, "config", "-q")


if __name__ == "__main__":
    unittest.main()
