"""Section Command line: what is typed, and the effect that it has."""

import os
import re
import signal
import subprocess
import sys
import unittest
from urllib.parse import urlsplit

import pypi_server
from tests import archives
from tests.helpers import PROGRAM, SCRIPT, DirectoryTestCase, ask, wait_for
from tests.upstream import Upstream, empty, isolated

WHEEL = "foo-1.0-py3-none-any.whl"

# The options of the predecessor's help, and a value for each.
RUN_OPTIONS = (
    ("-v",), ("--verbose",), ("--log-file", "LOG"),
    ("--log-stream", "stdout"), ("--log-stream", "stderr"),
    ("--log-stream", "none"), ("--log-frmt", "%(message)s"),
    ("--hash-algo", "md5"), ("--hash-algo", "sha512"), ("--hash-algo", "0"),
    ("--hash-algo", "no"), ("--hash-algo", "off"), ("--hash-algo", "false"),
    ("--backend", "auto"), ("--backend", "simple-dir"),
    ("--backend", "cached-dir"), ("-i", "127.0.0.1"), ("-H", "127.0.0.1"),
    ("--interface", "127.0.0.1"), ("--host", "127.0.0.1"),
    ("-a", "download, update", "-P", "PASSWORDS"),
    ("-a", "Download,LIST,update", "--passwords", "PASSWORDS"),
    ("--authenticate", ".", "--passwords", "."), ("-a", ".", "-P", "."),
    ("-P", "PASSWORDS"), ("--disable-fallback",),
    ("--fallback-url", "http://other.example/simple/"),
    ("--health-endpoint", "/action/health"), ("--server", "auto"),
    ("--server", "wsgiref"), ("-o",), ("--overwrite",),
    ("--welcome", "WELCOME"), ("--cache-control", "3600"),
    ("--log-req-frmt", "%s"), ("--log-res-frmt", "%s"),
    ("--log-err-frmt", "%s"), ("--server-base-url", "/prefix/"),
)
COMMON = ("-v", "--verbose", "--log-file", "--log-stream", "--log-frmt",
          "--hash-algo", "--backend")
UPDATE_OPTIONS = (
    ("-x",), ("--execute",), ("-d", "NEW"), ("--download-directory", "NEW"),
    ("-u",), ("--allow-unstable",), ("--blacklist-file", "IGNORED"),
    ("--ignorelist-file", "IGNORED"), ("-v",), ("--verbose",),
    ("--log-file", "LOG"), ("--log-stream", "none"),
    ("--log-frmt", "%(message)s"), ("--hash-algo", "md5"),
    ("--backend", "simple-dir"),
)


class CommandTestCase(DirectoryTestCase):
    def setUp(self):
        super().setUp()
        archives.put(self.root, WHEEL, archives.wheel("foo", "1.0"))
        self.put("PASSWORDS", b"joe:{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=\n")
        self.put("WELCOME", b"<p>Hello</p>")
        self.put("IGNORED", b"foo\n")

    def put(self, name, data):
        return archives.put(self.folder, name, data)

    def environment(self, **more):
        return isolated(self.folder, **more)

    def run_it(self, *arguments, **more):
        """Run a command that ends; return (status, output, errors)."""
        process = subprocess.run(
            [sys.executable, "-W", "error", *PROGRAM, *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
            stdin=subprocess.DEVNULL, cwd=self.folder,
            env=self.environment(**more))
        errors = process.stderr.decode()
        self.assertNotIn("Traceback", errors)
        return process.returncode, process.stdout.decode(), errors

    def start(self, *arguments):
        return Running(self, arguments)


class Running:
    """A server that was started with exactly these arguments."""

    def __init__(self, test, arguments):
        self.errors_path = os.path.join(test.folder, "errors")
        with open(self.errors_path, "wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", *PROGRAM, *arguments],
                stdout=subprocess.PIPE, stderr=errors, cwd=test.folder,
                stdin=subprocess.DEVNULL, env=test.environment(),
                universal_newlines=True)
        self.printed = ""

    def __enter__(self):
        while " at http" not in self.printed:
            line = self.process.stdout.readline()
            self.printed += line
            if not line:
                self.process.wait()
                raise AssertionError("no server: %r %r" % (
                    self.printed, self.errors()))
        self.url = re.findall(r"http\S+", self.printed)[-1]
        return self

    def __exit__(self, *exception):
        self.process.terminate()
        rest, _ = self.process.communicate(timeout=60)
        self.printed += rest

    def errors(self):
        with open(self.errors_path, encoding="utf-8") as file:
            return file.read()

    def get(self, path, headers=None):
        url = urlsplit(self.url)
        return ask(url.hostname, url.port, "GET", url.path + path, headers)


class TestPlace(CommandTestCase):
    """Common options: the same effect before and after the command."""

    def places(self, *options):
        yield options + ("run", "-p", "0", "-H", "127.0.0.1", self.root)
        yield ("run",) + options + ("-p", "0", "-H", "127.0.0.1", self.root)
        yield ("run", "-p", "0", "-H", "127.0.0.1", self.root) + options

    def test_log_options(self):
        log = os.path.join(self.folder, "LOG")
        for arguments in self.places(
                "-v", "--log-file", "LOG", "--log-stream", "stdout",
                "--log-frmt", "<%(message)s>"):
            with self.subTest(arguments):
                with self.start(*arguments) as server:
                    server.get("health")
                with open(log) as file:
                    logged = file.read()
                os.remove(log)
                for text in logged, server.printed:
                    self.assertRegex(text, "(?m)^<127.0.0.1 GET /health 200>")
                self.assertEqual("", server.errors())

    def test_hash_algo(self):
        for arguments in self.places("--hash-algo", "md5"):
            with self.subTest(arguments), self.start(*arguments) as server:
                wait_for(lambda: b"#md5=" in server.get(
                    "simple/foo/").body, "the digest is there")

    def test_backend(self):
        """simple-dir keeps nothing, wherever it is said."""
        for arguments in self.places("--backend", "simple-dir"):
            with self.start(*arguments) as server:
                wait_for(lambda: b"#sha256=" in server.get(
                    "simple/foo/").body, "the file is listed")
            self.assertFalse(os.path.exists(
                os.path.join(self.folder, "pypi-server")), arguments)

    def test_levels_add_up(self):
        """Requests are logged with two -v, wherever they stand."""
        tail = ("-p", "0", "-H", "127.0.0.1", self.root)
        for arguments, level in (
                (("run",) + tail, 0), (("run", "-v") + tail, 1),
                (("-v", "run") + tail, 1), (("run", "-vv") + tail, 2),
                (("-vv", "run") + tail, 2), (("-v", "-v", "run") + tail, 2),
                (("-v", "run", "-v") + tail, 2),
                (("run", "-v") + tail + ("--verbose",), 2),
                (("run", "-vvvvv") + tail, 2)):
            with self.subTest(arguments):
                with self.start(*arguments) as server:
                    server.get("health")
                logged = server.errors().count("GET /health")
                self.assertEqual(level, logged, server.errors())

    def test_later_one_counts(self):
        with self.start("--log-stream", "none", "run", "--log-stream",
                        "stdout", "-v", "-p", "0", "-H", "127.0.0.1",
                        self.root) as server:
            server.get("health")
        self.assertIn("GET /health", server.printed)

    def test_directories_and_options_mix(self):
        other = os.path.join(self.folder, "other")
        archives.put(other, "bar-1.0.tar.gz", archives.sdist("bar", "1.0"))
        for arguments in (
                ("run", self.root, other, "-p", "0", "-H", "127.0.0.1"),
                ("run", "-p", "0", "-H", "127.0.0.1", self.root, other),
                ("run", "-p0", "-H127.0.0.1", self.root, other),
                ("run", "--port=0", "--host=127.0.0.1", "--", self.root,
                 other)):
            with self.subTest(arguments), self.start(*arguments) as server:
                wait_for(lambda: b"bar" in server.get("simple/").body
                         and b"foo" in server.get("simple/").body,
                         "both directories are served")

    def test_update_options(self):
        log = os.path.join(self.folder, "LOG")
        with Upstream() as index:
            index.has("foo", WHEEL)
            for arguments in (
                    ("--log-file", "LOG", "update", self.root),
                    ("update", "--log-file", "LOG", self.root),
                    ("update", self.root, "--log-file", "LOG")):
                with self.subTest(arguments):
                    status, _, errors = self.run_it(
                        *(arguments + ("--index-url", index.url)))
                    self.assertEqual((0, ""), (status, errors))
                    self.assertTrue(os.path.exists(log))
                    os.remove(log)


class TestPredecessor(CommandTestCase):
    def test_run_takes_its_options(self):
        """Each starts a server that answers."""
        running = []
        for options in RUN_OPTIONS:
            address = () if options[0] in (
                "-i", "-H", "--interface", "--host") else ("-H", "127.0.0.1")
            # wsgiref tells the port that it was given, so give it one.
            port = "0" if "wsgiref" not in options else str(free_port())
            command = [*PROGRAM, "run", "-p", port, self.root]
            running.append((options, subprocess.Popen(
                [sys.executable, *command, *address, *options],
                cwd=self.folder, env=self.environment(),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE)))
            if len(running) < 4 and options != RUN_OPTIONS[-1]:
                continue
            for tried, process in running:
                with self.subTest(tried):
                    line = process.stdout.readline()
                    process.send_signal(signal.SIGTERM)
                    _, errors = process.communicate(timeout=30)
                    self.assertIn(b" at http://127.0.0.1:", line, errors)
                    self.assertNotIn(b"Traceback", errors)
                    self.assertNotIn(b"warning", errors)
            running = []

    def test_update_takes_its_options(self):
        with Upstream() as index:
            index.has("foo", WHEEL)
            for options in UPDATE_OPTIONS:
                with self.subTest(options):
                    status, output, errors = self.run_it(*(
                        ("update", "--index-url", index.url, self.root)
                        + options))
                    self.assertEqual((0, ""), (status, errors))
                    self.assertIn("nothing to update", output)

    def test_common_options_come_before_the_command(self):
        with Upstream() as index:
            for options in UPDATE_OPTIONS:
                if options[0] in COMMON:
                    with self.subTest(options):
                        status, _, errors = self.run_it(*(
                            options + ("update", "--index-url", index.url,
                                       self.root)))
                        self.assertEqual((0, ""), (status, errors))

    def test_default_port_and_directory(self):
        """8080 on all addresses, ~/packages."""
        config = pypi_server.Config()
        self.assertEqual((8080, "0.0.0.0", ("~/packages",)),
                         (config.port, config.host, config.roots))
        with self.start("run", "-p", "0", "-H", "127.0.0.1") as server:
            wait_for(lambda: b"foo" in server.get("simple/").body,
                     "HOME/packages is served")

    def test_old_form_without_a_command(self):
        for arguments in (
                ("-p", "0", "-H", "127.0.0.1", self.root),
                (self.root, "-p", "0", "-i", "127.0.0.1"),
                ("-v", "-p", "0", "-H", "127.0.0.1", "-o", self.root)):
            with self.subTest(arguments):
                with self.start(*arguments) as server:
                    self.assertEqual(200, server.get("simple/").status)
                first = server.errors().splitlines()[0]
                self.assertIn("warning", first.lower())
                self.assertIn("pypi-server run", first)
                self.assertNotIn("warning", server.printed.lower())

    def test_old_form_of_update(self):
        with Upstream() as index:
            index.has("foo", "foo-2.0rc1-py3-none-any.whl")
            tail = ("--index-url", index.url, self.root)
            for arguments, directory in (
                    (("-U", "-u"), self.root), (("-Uu",), self.root),
                    (("-uU",), self.root), (("-u", "-U"), self.root),
                    (("-vU", "-u"), self.root),
                    (("-u", "-d", "NEW", "-U"), "NEW"),
                    (("-Uud", "NEW"), "NEW"),
                    (("-U", "--allow-unstable", "--download-directory",
                      "NEW"), "NEW")):
                with self.subTest(arguments):
                    status, output, errors = self.run_it(*arguments + tail)
                    self.assertEqual(0, status, errors)
                    self.assertIn("-d %s " % directory, output)
                    self.assertIn("foo==2.0rc1", output)
                    self.assertIn("warning", errors)
                    self.assertIn("pypi-server update", errors)
                    self.assertEqual(1, errors.count("\n"), errors)
            status, output, _ = self.run_it(*("-U",) + tail)
            self.assertIn("nothing to update", output)

    def test_directory_that_is_called_like_a_command(self):
        """The command is what stands in its place, not any word."""
        os.rename(self.root, os.path.join(self.folder, "update"))
        with self.start("run", "-p", "0", "-H", "127.0.0.1",
                        "update") as server:
            wait_for(lambda: b"foo" in server.get("simple/").body, "served")
        with self.start("-p", "0", "-H", "127.0.0.1", "-P", "PASSWORDS",
                        "./update") as server:
            wait_for(lambda: b"foo" in server.get("simple/").body, "served")
        # A value of an option is no command either.
        os.rename(os.path.join(self.folder, "WELCOME"),
                  os.path.join(self.folder, "run"))
        with self.start("-p", "0", "-H", "127.0.0.1", "--welcome", "run",
                        "./update") as server:
            self.assertIn(b"Hello", server.get("").body)


def free_port():
    import socket
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class TestHelp(CommandTestCase):
    COMMANDS = ((), ("run",), ("update",), ("passwd",), ("check",),
                ("yank",), ("unyank",), ("export",))
    # Those whose one help says all.
    SMALL = (("passwd",), ("yank",), ("unyank",))

    def test_version(self):
        wanted = "pypi-server %s\n" % pypi_server.__version__
        for arguments in (("--version",), ("run", "--version"),
                          ("update", "--version")):
            with self.subTest(arguments):
                status, output, errors = self.run_it(*arguments)
                self.assertEqual((0, ""), (status, errors))
                self.assertRegex(output, r"\Apypi-server (\S+ )*%s\Z"
                                 % re.escape(wanted.split()[1] + "\n"))

    def test_help_fits_eighty_columns(self):
        for command in self.COMMANDS:
            options = ("-h", "--help") + ("--help-all",) * (
                command not in self.SMALL)
            for option in options:
                with self.subTest(command, option=option):
                    status, output, errors = self.run_it(
                        *(command + (option,)), COLUMNS="80")
                    self.assertEqual((0, ""), (status, errors))
                    for line in output.splitlines():
                        self.assertLess(len(line), 80)
                        self.assertTrue(line.isprintable())

    def test_help_fits_a_screen(self):
        for command in self.COMMANDS:
            with self.subTest(command):
                _, output, _ = self.run_it(*(command + ("-h",)), COLUMNS="80")
                self.assertLess(len(output.splitlines()), 24)
                if command not in self.SMALL:
                    self.assertIn("--help-all", output)
        for option in pypi_server.OPTIONS:
            with self.subTest(option.field):
                self.assertLess(len(option.brief), 46)

    def test_help_states_everything(self):
        """The same facts, whatever this Python's argparse makes of them."""
        texts = {name: self.squeeze(self.run_it(
            *((name,) if name else ()) + ("--help-all",), COLUMNS="80")[1])
            for name in ("", "run", "update", "check", "export")}
        for option in pypi_server.OPTIONS:
            default = getattr(pypi_server.Config(), option.field)
            if isinstance(default, tuple):
                default = ",".join(default)
            fact = option.help
            if default and option.metavar:
                fact += " (default: %s)" % default
            for command in option.commands:
                with self.subTest(option.field, command=command):
                    text = texts[command]
                    self.assertIn(self.squeeze(fact), text)
                    for flag in option.flags:
                        self.assertIn(flag, text)
                    if option.metavar not in ("", "+"):
                        self.assertIn(option.flags[-1] + option.metavar,
                                      text)
        for text in texts.values():
            self.assertIn("--version", text)
        self.assertIn("~/packages", texts["run"])

    @staticmethod
    def squeeze(text):
        return re.sub(r"\s", "", text)

    def test_no_command_of_another_has_its_options(self):
        for command, option in (("update", "--port"), ("run", "--execute")):
            status, _, errors = self.run_it(command, option, "1")
            self.assertEqual(2, status)
            self.assertIn(option, errors)

    def test_nothing_at_all(self):
        """No arguments: the old form, which serves ~/packages."""
        home = os.path.join(self.folder, "home")
        os.mkdir(home)
        with open(os.path.join(home, "packages"), "w"):
            pass  # a file, so that nothing is served
        status, _, errors = self.run_it(HOME=home)
        self.assertEqual(2, status)
        self.assertIn("pypi-server run", errors)
        self.assertIn(os.path.join(home, "packages"), errors)

    def test_command_behind_options(self):
        """It would be a directory of that name, made at once."""
        for name in "run", "update":
            status, _, errors = self.run_it(
                "-p", "0", name, self.folder)
            self.assertEqual(2, status)
            self.assertIn("pypi-server %s ..." % name, errors)
            self.assertFalse(os.path.exists(os.path.join(self.folder, name)))

    def test_misspelled_command(self):
        """No directory of that name is made, and nothing is served."""
        before = sorted(os.listdir(self.folder))
        for arguments, word, near in (
                (("chekc", self.root), "chekc", "check"),
                (("chekc", "--closure", self.root), "chekc", "check"),
                (("-v", "exprot", self.root, "site"), "exprot", "export"),
                (("start",), "start", ""), (("v1.0",), "v1.0", ""),
                (("-p", "0", "-H", "127.0.0.1", "updtae"), "updtae",
                 "update"),
                (("-p", "0", self.root, "my packages"), "my packages", "")):
            with self.subTest(arguments):
                status, output, errors = self.run_it(*arguments)
                self.assertEqual((2, ""), (status, output))
                self.assertEqual(1, errors.count("\n"), errors)
                self.assertIn("no command or directory %r: " % word, errors)
                self.assertIn("nearest command is %s;" % near if near else
                              "commands are run, update, ", errors)
        self.assertEqual(before, sorted(os.listdir(self.folder)))
        # Where a command is named, the directory is.
        with self.start("run", "-p", "0", "-H", "127.0.0.1", "chekc"):
            self.assertTrue(os.path.isdir(os.path.join(
                self.folder, "chekc")))
        with self.start("-p", "0", "-H", "127.0.0.1", "chekc"):
            pass

    def test_unknown_option_or_command(self):
        for arguments in (("run", "--no-such"), ("--no-such", "run"),
                          ("update", "-Z"), ("passwd",), ("passwd", "a"),
                          ("run", "-p"), ("-p",), ("run", "-a"),
                          ("--log-file",)):
            with self.subTest(arguments):
                status, output, errors = self.run_it(*arguments)
                self.assertEqual((2, ""), (status, output))
                self.assertIn("error", errors)


class TestMistakes(CommandTestCase):
    """Exit status 2, and one sentence with the value and the remedy."""

    def test_run(self):
        with open(os.path.join(self.folder, "bytes"), "wb") as file:
            file.write(b"\xff\xfe\0")
        for options, named, remedy in (
                (("-p", "http"), "'http'", "number"),
                (("-p", "65536"), "'65536'", "65535"),
                (("-p", "-1"), "-1", ""),
                (("-H", "no such host"), "no such host", "address"),
                (("-a", "upload", "-P", "PASSWORDS"), "'upload'", "update"),
                (("-a", "list"), "list", "-P FILE"),
                (("-a", "."), "-a .", "-P ."),
                (("-P", "."), "-P .", "-a ."),
                (("-a", ".", "-P", "PASSWORDS"), "PASSWORDS", "-a"),
                (("-P", "none"), "none", "-P"),
                (("-P", "packages"), "packages", "-P"),
                (("--hash-algo", "md17"), "'md17'", "sha256"),
                (("--backend", "redis"), "'redis'", "simple-dir"),
                (("--server", "apache"), "'apache'", "waitress"),
                (("--server", "bjoern"), "'bjoern'", "auto"),
                (("--log-stream", "syslog"), "'syslog'", "stderr"),
                (("--log-file", "packages"), "packages", "--log-file"),
                (("--log-frmt", "%(user)s"), "user", "message"),
                (("--log-req-frmt", "%(a)s"), "%(a)s", "%(path)s"),
                (("--log-res-frmt", "%"), "'%'", "%(status)s"),
                (("--log-err-frmt", "%d"), "'%d'", "%(error)s"),
                (("--welcome", "none"), "none", "--welcome"),
                (("--welcome", "bytes"), "bytes", "UTF-8"),
                (("--cache-control", "1h"), "'1h'", "number"),
                (("--max-upload-size", "1G"), "'1G'", "number"),
                (("--max-upload-size", "0"), "'0'", "1"),
                (("--health-endpoint", "up"), "'up'", "/health"),
                (("--fallback-url", "pypi"), "'pypi'", "https://"),
                (("--server-base-url", "pypi"), "'pypi'", "/pypi"),
                (("--trusted-proxy", "nginx"), "'nginx'", "127.0.0.1"),
                (("packages", "none/none"), "none/none", "parent")):
            with self.subTest(options):
                status, output, errors = self.run_it(
                    "run", "-p", "0", "-H", "127.0.0.1", *options)
                self.assertEqual((2, ""), (status, output))
                self.assertIn(named, errors)
                self.assertIn(remedy, errors)
                if named == "-1":
                    continue  # to argparse it is an option
                self.assertEqual(1, errors.count("\n"), errors)
                self.assertTrue(errors.startswith("pypi-server: error: "))

    def test_health_endpoint_that_is_taken(self):
        """It would hide a page, or be hidden by one."""
        for path in "/simple/", "/packages/", "/simple/x/", "/":
            with self.subTest(path):
                status, _, errors = self.run_it(
                    "run", "-p", "0", "-H", "192.0.2.1", "--health-endpoint",
                    path, self.root)
                self.assertEqual(2, status)
                self.assertIn("--health-endpoint", errors)

    def test_same_value_before_the_command(self):
        status, output, errors = self.run_it(
            "--hash-algo", "md17", "run", self.root)
        self.assertEqual((2, ""), (status, output))
        self.assertIn("'md17'", errors)

    @unittest.skipIf(os.name == "nt" or not hasattr(os, "geteuid")
                     or os.geteuid() == 0, "root may read everything")
    def test_directory_that_may_not_be_read(self):
        os.chmod(self.root, 0)
        self.addCleanup(os.chmod, self.root, 0o700)
        status, _, errors = self.run_it("run", self.root)
        self.assertEqual(2, status)
        self.assertIn(self.root, errors)

    def test_output_that_nobody_reads(self):
        """`pypi-server update | head -1` is no error of the server."""
        with Upstream() as index:
            for number in range(200):
                name = "p%d" % number
                empty(self.root, name + "-1.0.tar.gz")
                index.has(name, name + "-2.0.tar.gz")
            process = subprocess.Popen(
                [sys.executable, SCRIPT, "update", "--index-url", index.url,
                 self.root], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=self.environment())
            process.stdout.close()
            errors = process.stderr.read().decode()
            process.stderr.close()
            process.wait()
        self.assertNotIn("Traceback", errors)

    def test_interrupt_is_quiet(self):
        with self.start("run", "-p", "0", "-H", "127.0.0.1",
                        self.root) as server:
            server.process.send_signal(signal.SIGINT)
            server.process.wait(30)
        self.assertEqual("", server.errors())


if __name__ == "__main__":
    unittest.main()
