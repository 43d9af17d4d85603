"""Every command of README.md works as it stands there.

The commands of a section run in its order, in a home of their own.  Only
what belongs to a place is replaced: the address of the server, the name of a
project, and the directories of the system.  A section with a command that no
test takes fails here.
"""

import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

import pypi_server
from tests import archives, guide, mirror, toolbox
from tests.helpers import READY, SCRIPT, ServerProcess, names_in, wait_for
from tests.test_accounts import SHA
from tests.test_recipes import Nginx, program

LOCAL = "http://localhost:8080/"
SECRET = "secret"
REQUIREMENT = "demo"
# They run this very test, or measure, or are the form of others.
SPOKEN = {
    "pypi_server.py": ["python3 -m tests"],
    "Options": ["python3 pypi_server.py run [OPTIONS] [DIRECTORY ...]"]}
PYPROJECT = """\
[build-system]
requires = ["flit_core >=3.2"]
build-backend = "flit_core.buildapi"
[project]
name = "demo"
version = "1.0"
description = "A demo"
requires-python = ">=3"
"""


class ReadmeTestCase(unittest.TestCase):
    """A home with packages/ and dist/, and the programs that users have."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = os.path.realpath(folder.name)
        self.root = os.path.join(self.home, "packages")
        self.dist = os.path.join(self.home, "dist")
        os.mkdir(self.root)
        shutil.copy(SCRIPT, self.home)
        # No client must go beyond the loopback, nor read what is at home.
        self.environment = {
            name: text for name, text in os.environ.items()
            if not re.match("(?i)PIP_|UV_|TWINE_|POETRY_|PDM_|SSL_|.*_proxy$"
                            "|.*_CA_BUNDLE$", name)}
        path = self.environment["PATH"]
        self.environment.update(
            HOME=self.home, NO_COLOR="1", COLUMNS="300",
            UV_CACHE_DIR=os.path.join(self.home, "uv"),
            UV_PYTHON_DOWNLOADS="never",
            PIP_NO_CACHE_DIR="1", PIP_DISABLE_PIP_VERSION_CHECK="1",
            PIP_CONFIG_FILE=os.devnull, PYTHON_KEYRING_BACKEND=
            "keyring.backends.null.Keyring",
            XDG_CACHE_HOME=os.path.join(self.home, "cache"),
            PATH=os.path.join(self.home, "bin") + os.pathsep
            + path)
        self.write("bin/python3", '#!/bin/sh\nexec "%s" "$@"\n' % (
            toolbox.command("tools") or sys.executable))

    def install(self, environment, *names):
        """Put commands of an environment of the toolbox on the PATH."""
        for name in names:
            self.write("bin/" + name, '#!/bin/sh\nexec "%s" "$@"\n' % (
                toolbox.require(environment, name)))

    def write(self, name, text):
        path = os.path.join(self.home, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, 0o700)
        return path

    def put(self, folder, version="1.0", name=REQUIREMENT):
        return archives.put(
            folder, archives.wheel_filename(name, version, "py3-none-any"),
            archives.wheel(name, version))

    def commands(self, title, first=""):
        """Return the commands of a section, but for those of SPOKEN."""
        return [command for command in guide.commands(title)
                if command not in SPOKEN.get(title, ())
                and command.startswith(first)]

    def command(self, title, first):
        """Return the command of a section that begins so."""
        found = self.commands(title, first)
        self.assertEqual(1, len(found), found)
        return found[0]

    def run_command(self, command, url=LOCAL, stdin="", status=0, **more):
        """Run a command in a shell; return what it printed."""
        words = command.replace(LOCAL, url).replace("PROJECT", REQUIREMENT)
        process = subprocess.Popen(
            words, shell=True, cwd=self.home, stdin=subprocess.PIPE,
            env=dict(self.environment, **more),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            universal_newlines=True)
        output, _ = process.communicate(stdin, timeout=120)
        self.assertEqual(status, process.returncode, words + "\n" + output)
        return output

    def start(self, command, *options, python=sys.executable):
        """Start a `run` of the guide on another port; return its URL."""
        words = shlex.split(command.replace("~", self.home))
        self.assertEqual("python3", words[0])
        process = subprocess.Popen(
            [python] + words[1:]
            + ["-p", "0", "-H", "127.0.0.1"] + list(options),
            env=self.environment, cwd=self.home, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, universal_newlines=True)
        self.addCleanup(process.communicate, timeout=60)
        self.addCleanup(process.terminate)
        found = READY.match(process.stdout.readline())
        self.assertTrue(found)
        return found.group(1)

    def server(self, *options):
        return ServerProcess("--disable-fallback", *(options + (self.root,)))


class TestGuide(unittest.TestCase):
    def test_no_command_is_forgotten(self):
        """Each section with commands has a test."""
        with_commands = {
            section.title for section in guide.sections().values()
            if set(section.commands) - set(SPOKEN.get(section.title, ()))}
        self.assertEqual({
            "pypi_server.py", "Five minutes: an index with accounts",
            "The directory", "Accounts", "systemd", "In a container",
            "Behind a reverse proxy", "TLS", "Backup",
            "Hosts without internet", "Newer releases upstream",
            "Withdrawing releases", "Checking a directory",
            "Coming from pypiserver", "Other servers", "A static index",
            "Readers with nginx",
            "An object store"},  # whose test is in test_scale.py
            with_commands)

    def test_changes_come_last(self):
        titles = [title for level, title in re.findall(
            r"(?m)^(##?) (.*)$", guide.read())]
        self.assertEqual("Changes", titles[-1])


class TestCommands(ReadmeTestCase):
    def test_first_screen(self):
        """Run, install with pip and uv, copy, upload with twine and uv."""
        run, pip, uv, scp, twine, publish = self.commands("pypi_server.py")
        self.install("tools", "pip", "uv", "twine")
        os.rmdir(self.root)
        url = self.start(run, "-a", ".", "-P", ".")
        self.put(self.dist)
        self.assertTrue(scp.startswith("scp "))
        # Without a host it copies on the same machine.
        self.run_command(scp.replace("host:", "") if shutil.which("scp")
                         else "cp dist/* packages/")
        wait_for(lambda: self.is_listed(url, "demo-1.0"), "it is listed")
        self.run_command(pip, url, PIP_TARGET="site")
        self.assertTrue(os.path.exists(
            os.path.join(self.home, "site", "demo.py")))
        self.run_command("uv venv -q -p %s env" % sys.executable)
        self.run_command(uv, url, VIRTUAL_ENV=os.path.join(self.home, "env"))
        self.assertTrue(glob.glob(os.path.join(
            self.home, "env", "lib", "*", "site-packages", "demo.py")))
        self.put(self.dist, "2.0")
        self.run_command(twine, url, TWINE_USERNAME="-", TWINE_PASSWORD="-")
        self.put(self.dist, "3.0")
        self.run_command(publish, url, UV_PUBLISH_USERNAME="-",
                         UV_PUBLISH_PASSWORD="-")
        self.assertEqual(sorted(os.listdir(self.dist)),
                         names_in(self.root))

    def is_listed(self, url, text, user=None):
        command = ["curl", "-s", url + "simple/demo/"]
        return text in subprocess.run(
            command + (["-u", user] if user else []),
            stdout=subprocess.PIPE).stdout.decode()

    def test_five_minutes(self):
        if not mirror.is_complete():
            self.skipTest("the mirror, which has flit_core, is missing")
        self.install("tools", "pip", "twine")
        passwd, run, build, upload, install, closed = self.commands(
            "Five minutes: an index with accounts")
        self.run_command(passwd, stdin=SECRET + "\n")
        url = self.start(run)
        self.write("pyproject.toml", PYPROJECT)
        self.write("demo.py", "")
        with ServerProcess(mirror.FOLDER) as index:
            self.run_command(build, PIP_INDEX_URL=index.url + "simple/")
        self.run_command(upload, url, TWINE_PASSWORD=SECRET)
        self.assertEqual(["demo-1.0-py3-none-any.whl", "demo-1.0.tar.gz"],
                         names_in(self.root))
        self.run_command(install, url, PIP_TARGET="site")
        self.assertTrue(os.path.exists(
            os.path.join(self.home, "site", "demo.py")))
        url = self.start(closed)
        for path in "simple/", "packages/demo-1.0.tar.gz":
            for user, status in (("joe:" + SECRET, "200"), ("joe:x", "401")):
                self.assertEqual(status, self.run_command(
                    "curl -s -o got -w '%%{http_code}' -u %s %s%s" % (
                        user, url, path)))

    def test_companion_files(self):
        reason, status, touch = self.commands("The directory")
        self.put(self.root)
        for command in reason, status, touch:
            self.run_command(command)
        with self.server() as server:
            headers = {"Accept": "application/vnd.pypi.simple.v1+json"}
            page = wait_for(lambda: [
                server.get("simple/demo/", headers).body.decode()
                for _ in (1,) if b"demo-1.0" in server.get(
                    "simple/demo/", headers).body], "listed")[0]
        for text in ('"yanked":"breaks Windows"', '"status":"archived"',
                     '"reason":"use demo2"', '"2024-02-29T12:00:00'):
            self.assertIn(text, page.replace('": ', '":'))

    def test_accounts(self):
        add, remove = self.commands("Accounts")
        path = os.path.join(self.home, "htpasswd")
        self.run_command(add, stdin=SECRET + "\n")
        with open(path) as file:
            self.assertRegex(file.read(), r"^joe:\$")
        self.run_command(remove)
        with open(path) as file:
            self.assertEqual("", file.read())

    def test_proxied(self):
        command, = self.commands("Behind a reverse proxy")
        self.write("htpasswd", "joe:%s\n" % SHA)
        self.put(self.root)
        url = self.start(command)
        wait_for(lambda: self.is_listed(url, "demo-1.0"), "it is listed")
        self.assertIn("https://x.example/p/packages/demo", self.run_command(
            "curl -s -H 'X-Forwarded-Host: x.example' -H 'X-Forwarded-Proto:"
            " https' -H 'X-Forwarded-Prefix: /p' %spypi/demo/json" % url))

    def test_backup(self):
        save, restore = self.commands("Backup")
        self.put(self.root)
        os.utime(os.path.join(self.root, names_in(self.root)[0]), (1, 1))
        self.write("htpasswd", "joe:%s\n" % SHA)
        self.run_command(save)
        shutil.rmtree(self.root)
        os.unlink(os.path.join(self.home, "htpasswd"))
        self.run_command(restore)
        name, = names_in(self.root)
        self.assertEqual(1, os.stat(os.path.join(self.root, name)).st_mtime)
        url = self.start(self.commands("Behind a reverse proxy")[0])
        wait_for(lambda: self.is_listed(url, "demo-1.0"), "it is listed")

    def test_export(self):
        self.put(self.root)
        command, elsewhere, copy = self.commands("A static index")
        self.run_command(command)
        self.assertTrue(os.path.exists(os.path.join(
            self.home, "site", "simple", "demo", "index.html")))
        program("rsync", "rsync")
        files = os.path.join(self.home, "packages copied")
        self.run_command(elsewhere)
        self.run_command(copy.replace(
            "files:packages/", shlex.quote(files)))
        self.assertEqual(
            ["demo-1.0-py3-none-any.whl",
             "demo-1.0-py3-none-any.whl.metadata"], sorted(
                name for name in os.listdir(files) if "demo" in name))

    def test_readers(self):
        """A reader that is another directory of this machine."""
        program("rsync", "rsync")
        run, export, *copies = self.commands("Readers with nginx")
        self.write("htpasswd", "joe:%s\n" % SHA)
        self.start(run)
        process = subprocess.Popen(
            [sys.executable] + shlex.split(
                export.replace("~", self.home))[1:],
            cwd=self.home, env=self.environment, stdout=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        os.mkdir(os.path.join(self.home, "reader"))
        for version in "1.0", "2.0":
            self.put(self.root, version)
            wait_for(lambda: self.is_exported("site", version), "exported")
            for copy in copies:
                self.run_command(copy.replace("reader:site", "reader"))
            self.assertTrue(self.is_exported("reader", version))

    def is_exported(self, site, version):
        path = os.path.join(self.home, site, "simple", "demo", "index.html")
        if not os.path.exists(path):
            return False
        with open(path) as file:
            return "demo-%s-" % version in file.read()

    def test_transfer(self):
        """With an index that stands for PyPI, and a directory for the gap."""
        self.install("tools", "pip")
        download, other, copy, digest, pack, unpack, check, run = \
            self.commands("Hosts without internet")
        archives.put(self.root, "demo-1.0-py3-none-any.whl", archives.wheel(
            "demo", "1.0", requires=["binary"]))
        for tag in "cp311-cp311-manylinux_2_28_x86_64", "py3-none-any":
            name = "binary-%d.0-%s.whl" % (2 if "cp311" in tag else 1, tag)
            archives.put(self.root, name, archives.wheel(
                "binary", name[7:10]))
        self.write("requirements.txt", "demo\n")
        with self.server() as upstream:
            index = upstream.url + "simple/"
            wait_for(lambda: len(upstream.get("simple/binary/").body) > 400,
                     "listed")
            self.run_command(other, PIP_INDEX_URL=index)
            self.assertEqual([
                "binary-2.0-cp311-cp311-manylinux_2_28_x86_64.whl",
                "demo-1.0-py3-none-any.whl"], sorted(os.listdir(
                    os.path.join(self.home, "bundle"))))
            self.run_command(download, PIP_INDEX_URL=index)
        for command in copy, digest, pack:
            self.run_command(command)
        shutil.rmtree(os.path.join(self.home, "bundle"))
        self.run_command(unpack)
        self.assertNotIn("FAILED", self.run_command(check))
        self.assertIn(" run --disable-fallback bundle", run)
        url = self.start(run)
        wait_for(lambda: self.is_listed(url, "demo-1.0"), "it is listed")
        self.run_command("pip install --index-url %ssimple/ demo" % url,
                         PIP_TARGET="site")
        # Once more, over the first.
        self.put(os.path.join(self.home, "bundle"), "2.0")
        for command in digest, pack:
            self.run_command(command)
        os.unlink(os.path.join(
            self.home, "bundle", "demo-2.0-py3-none-any.whl"))
        self.run_command(unpack)
        wait_for(lambda: self.is_listed(url, "demo-2.0"), "it is listed")
        with open(os.path.join(self.home, "bundle", "SHA256SUMS"), "r+") \
                as file:
            file.write("0")
        self.assertIn("FAILED", self.run_command(check, status=1))

    def test_update(self):
        command, = self.commands("Newer releases upstream")
        self.put(self.root)
        self.put(os.path.join(self.home, "upstream"), "2.0")
        with ServerProcess(os.path.join(self.home, "upstream")) as upstream:
            printed = self.run_command(
                command + " --index-url %ssimple/" % upstream.url)
        self.assertIn("demo==2.0", printed)

    def test_yank(self):
        yank, unyank = self.commands("Withdrawing releases")
        path = self.put(self.root)
        self.run_command(yank)
        with open(path + ".yanked") as file:
            self.assertEqual("loses data\n", file.read())
        self.run_command(unyank)
        self.assertEqual([os.path.basename(path)], names_in(self.root))

    def test_check(self):
        check, closure = self.commands("Checking a directory")
        self.put(self.root)
        self.assertEqual("1 archive of 1 project: no findings\n",
                         self.run_command(check))
        toolbox.require("tools")
        self.assertIn("1 of 1 release can be installed",
                      self.run_command(closure))

    def test_other_server(self):
        """The command that is shown serves, with what it asks for."""
        self.assertEqual("pip install waitress", self.command(
            "Other servers", "pip "))
        python = toolbox.require("servers")
        self.start(self.command("Other servers", "python3 "), python=python)

    def test_gunicorn(self):
        """What it is told to load is an application."""
        command = self.command("Other servers", "gunicorn ")
        words = shlex.split(command)
        module, _, call = words[1].partition(":")
        self.assertEqual(["gunicorn", "pypi_server"], [words[0], module])
        application = eval(call.replace("/srv/packages", self.root),
                           vars(pypi_server))
        self.assertTrue(callable(application))


class TestService(ReadmeTestCase):
    """The way to a unit that is enabled, below another root directory."""

    def test_systemd(self):
        if os.geteuid():
            self.skipTest("only root may make users and give files away")
        for name, package in (("useradd", "passwd"),
                              ("systemctl", "systemd")):
            program(name, package)
        import pwd
        user = pwd.getpwnam("nobody")
        os.chmod(self.home, 0o755)
        for folder in "opt", "etc/systemd/system", "var/lib/pypi-server":
            os.makedirs(os.path.join(self.home, folder))
        for name in "passwd", "group":
            self.write("etc/" + name, "")
        os.chown(os.path.join(self.home, "var/lib/pypi-server"),
                 user.pw_uid, user.pw_gid)
        self.write("pypi-server.service", self.at_home(
            guide.recipe("pypi-server.service")).replace(
                "User=pypi-server", "User=nobody"))
        for command in self.commands("systemd"):
            self.run_command(self.at_home(command).replace(
                "useradd ", "useradd --prefix %s " % self.home).replace(
                "systemctl enable --now", "systemctl --root=%s enable"
                % self.home).replace("chown pypi-server", "chown nobody"),
                stdin=SECRET + "\n")
        self.assertIn("pypi-server.service", os.listdir(os.path.join(
            self.home, "etc/systemd/system/multi-user.target.wants")))
        self.check_unit(user)

    def at_home(self, text):
        return re.sub(r"(?<=[ =])/(opt|etc|var)/(?=\w)",
                      lambda found: self.home + found.group(), text)

    def check_unit(self, user):
        """Run its command as its user, who can upload."""
        text = re.sub(r"\\\n\s*", "", self.at_home(
            guide.recipe("pypi-server.service")))
        command = re.search("ExecStart=(.*)", text).group(1)
        for old, new in (
                ("/usr/bin/python3", "python3"), (" -p 8080", ""),
                ("${CACHE_DIRECTORY}", self.home + "/none"),
                ("${STATE_DIRECTORY}", self.home + "/var/lib/pypi-server")):
            self.assertIn(old, command)
            command = command.replace(old, new)
        command = "setpriv --reuid %d --regid %d --clear-groups %s " \
            "-p 0 -H 127.0.0.1" % (user.pw_uid, user.pw_gid, command)
        process = subprocess.Popen(
            shlex.split(command.replace("python3", "/usr/bin/python3")),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            universal_newlines=True)
        self.addCleanup(process.communicate, timeout=60)
        self.addCleanup(process.terminate)
        url = READY.match(process.stdout.readline()).group(1)
        self.install("tools", "twine")
        self.put(self.dist)
        self.run_command(
            self.command("pypi_server.py", "twine"), url,
            TWINE_USERNAME="joe", TWINE_PASSWORD=SECRET)
        self.assertEqual(os.listdir(self.dist), names_in(
            os.path.join(self.home, "var/lib/pypi-server")))


# An authority and a certificate of it; some clients take no other.
OPENSSL = """\
set -e
openssl req -x509 -nodes -newkey rsa:2048 -days 2 -keyout ca.key \
    -out ca.pem -subj "/CN=Our authority" -addext keyUsage=keyCertSign
openssl req -nodes -newkey rsa:2048 -keyout key.pem -out request.pem \
    -subj /CN=localhost
printf "subjectAltName=DNS:localhost\\nauthorityKeyIdentifier=keyid\\n" >names
openssl x509 -req -in request.pem -days 2 -CA ca.pem -CAkey ca.key \
    -CAcreateserial -extfile names -out cert.pem
"""


class TlsTestCase(ReadmeTestCase):
    """nginx in front, with a certificate that only its owner knows."""

    def front(self, server):
        """Return the nginx of the guide with TLS for localhost."""
        program("openssl", "openssl")
        self.run_command(OPENSSL)
        text = guide.recipe("nginx-tls.conf")
        for old, new in (("/etc/ssl/packages.pem", "cert.pem"),
                         ("/etc/ssl/packages.key", "key.pem")):
            self.assertIn(old, text)
            text = text.replace(old, os.path.join(self.home, new))
        self.assertIn("listen 443 ssl;", text)
        return Nginx(server, "", guide.recipe("nginx.conf").replace(
            "listen 80;", text))


class TestTls(TlsTestCase):
    def test_clients(self):
        self.install("tools", "pip", "uv", "twine")
        self.put(self.root)
        pip, uv, twine = self.commands("TLS")
        with ServerProcess("-a", ".", "-P", ".", "--trusted-proxy",
                           "127.0.0.1", self.root) as server:
            wait_for(lambda: b"demo-1.0" in server.get("simple/demo/").body,
                     "listed")
            with self.front(server) as front:
                url = "https://localhost:%d/" % front.port
                self.check(url, pip, uv, twine)
                self.assertIn(url + "packages/demo", self.run_command(
                    "curl -s --cacert ca.pem %spypi/demo/json" % url))

    def check(self, url, pip, uv, twine):
        def ask(command, **more):
            return self.run_command(command.replace(
                "https://packages.example.org/", url), **more)
        self.assertIn("SSL", ask(pip.replace("--cert ca.pem", ""), status=1,
                                 PIP_RETRIES="0"))
        ask(pip, PIP_TARGET="site")
        self.write("pip.conf", "[global]\ncert = %s/ca.pem\n" % self.home)
        self.assertIn("`cert = /etc/ssl/ca.pem`", guide.read())
        ask(pip.replace("--cert ca.pem", ""), PIP_TARGET="again",
            PIP_CONFIG_FILE=os.path.join(self.home, "pip.conf"))
        self.run_command("uv venv -q -p %s env" % sys.executable)
        environment = {"VIRTUAL_ENV": os.path.join(self.home, "env")}
        ask(uv, **environment)
        self.assertIn("`--allow-insecure-host`", guide.read())
        ask(uv.partition(" ")[2] + " --reinstall --allow-insecure-host "
            "localhost", **environment)
        self.put(self.dist, "2.0")
        ask(twine, TWINE_USERNAME="-", TWINE_PASSWORD="-")
        self.assertIn("demo-2.0-py3-none-any.whl", names_in(self.root))
        self.assertRegex(guide.read(), "`ca_cert =\\s+/etc/ssl/ca.pem`")
        self.write(".pypirc", (
            "[distutils]\nindex-servers = local\n[local]\nrepository = %s\n"
            "username = -\npassword = -\nca_cert = %s/ca.pem\n") % (
                url, self.home))
        self.put(self.dist, "3.0")
        ask("twine upload -r local dist/*")
        self.assertIn("demo-3.0-py3-none-any.whl", names_in(self.root))


class TestContainer(unittest.TestCase):
    """Parsed only; tests of the image build it and run what is in it."""

    def parse(self, words):
        """Return what the program makes of the words behind the image."""
        at = len(words) - 1 - words[::-1].index("pypi-server")
        return vars(pypi_server.make_parser().parse_args(
            words[at + 1:] or ["run"]))

    def test_commands(self):
        build, *runs = map(shlex.split, guide.commands("In a container"))
        self.assertEqual("docker build -t pypi-server .".split(), build)
        image = guide.recipe("Dockerfile")
        for words in runs:
            parsed = self.parse(words)
            mounted = [words[at + 1].partition(":")[2]
                       for at, word in enumerate(words) if word == "-v"]
            self.assertEqual(parsed["command"] == "run",
                             "/data/packages" in mounted)
            # Volumes get the owner that their place has in the image.
            for place in mounted:
                self.assertRegex(image, r"mkdir.* %s\b.*chown" % place)
            if "password_file" in parsed:
                self.assertIn(os.path.dirname(parsed["password_file"]),
                              mounted)


if __name__ == "__main__":
    unittest.main()
