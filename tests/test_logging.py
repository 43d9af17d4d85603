"""What the options for logging do, seen from outside."""

import base64
import hashlib
import http.client
import logging
import os
import re
import signal
import socket
import threading
import unittest
from urllib.parse import urlsplit

import pypi_server
from tests import archives, forms
from tests.helpers import (
    SCRIPT, DirectoryTestCase, ServerProcess, Wire, ask, call_wsgi, wait_for,
)

WHEEL = "foo-1.0-py3-none-any.whl"
DATA = archives.wheel("foo", "1.0")
LINE = re.compile(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\|pypi_server(\.\w+)?"
                  r"\|(INFO|DEBUG|WARNING|ERROR)\|\d+\|(.*)")


class LogTestCase(DirectoryTestCase):
    def setUp(self):
        super().setUp()
        self.log = os.path.join(self.folder, "log")

    def passwords(self):
        """Return the path of a password file with joe in it."""
        path = os.path.join(self.folder, "htpasswd")
        with open(path, "w") as file:
            file.write("joe:{SHA}%s\n" % base64.b64encode(
                hashlib.sha1(b"secret-word").digest()).decode())
        return path

    def logged(self):
        with open(self.log, encoding="utf-8") as file:
            return file.read()

    def serve(self, *arguments):
        return ServerProcess("--log-file", self.log, self.root, *arguments)

    def post(self, server, message, user="joe", password="secret-word"):
        url = urlsplit(server.url)
        headers, body = message
        headers = dict(headers)
        if user:
            headers.update(forms.credentials(user, password))
        return ask(url.hostname, url.port, "POST", url.path, headers, body)


def remove(name, version):
    return forms.post([(":action", "remove_pkg"), ("name", name),
                       ("version", version)])


class TestLevels(LogTestCase):
    def test_what_each_level_shows(self):
        for options, asked, answered in (
                ((), 0, 0), (("-v",), 0, 1), (("-vv",), 1, 1),
                (("-v", "-v"), 1, 1), (("-vvvv",), 1, 1),
                (("--verbose", "--verbose"), 1, 1)):
            with self.subTest(options):
                with self.serve("--log-req-frmt", "asked %(path)s",
                                "--log-res-frmt", "answered %(path)s",
                                *options) as server:
                    server.get("health")
                text = self.logged()
                self.assertEqual(
                    (asked, answered),
                    (text.count("asked /health"),
                     text.count("answered /health")))
                os.remove(self.log)

    def test_warnings_are_always_shown(self):
        archives.put(self.root, WHEEL, DATA[:-50])
        with self.serve() as server:
            wait_for(lambda: WHEEL in server.logged(), "it is named")
        self.assertEqual(1, self.logged().count(WHEEL))
        self.assertIn("WARNING", self.logged())

    def test_every_line_has_the_form(self):
        archives.put(self.root, WHEEL, DATA)
        with self.serve("-vv") as server:
            for path in "", "simple/", "a/b/c", "%00", "packages/" + WHEEL:
                server.get(path)
        for text in self.logged(), server.output:
            for line in text.splitlines():
                self.assertRegex(line, LINE)


class TestTargets(LogTestCase):
    def test_streams(self):
        """The file comes with any stream, and none is really none."""
        for options, stdout, stderr in (
                ((), False, True), (("--log-stream", "stderr"), False, True),
                (("--log-stream", "stdout"), True, False),
                (("--log-stream", "STDOUT"), True, False),
                (("--log-stream", "none"), False, False)):
            for with_file in True, False:
                with self.subTest(options, file=with_file):
                    server = ServerProcess("-v", self.root, *options + (
                        ("--log-file", self.log) if with_file else ()))
                    with server:
                        server.get("health")
                        logged = wait_or_not(
                            lambda: "GET /health" in server.logged(), stderr)
                        self.assertEqual(stderr, logged)
                    self.assertEqual(stdout or stderr,
                                     "GET /health" in server.output)
                    self.assertEqual(with_file, os.path.exists(self.log))
                    if with_file:
                        self.assertIn("GET /health", self.logged())
                        os.remove(self.log)

    def test_file_is_appended_to(self):
        for _ in range(2):
            with self.serve("-v") as server:
                server.get("health")
        self.assertEqual(2, self.logged().count("GET /health"))

    def test_home_is_expanded(self):
        server = ServerProcess(
            "-v", "--log-file", "~/log", self.root,
            environment={"HOME": self.folder, "USERPROFILE": self.folder})
        with server:
            server.get("health")
        self.assertIn("GET /health", self.logged())

    def test_last_lines_are_not_lost(self):
        """Not even when they come faster than they can be written."""
        with self.serve("-v", "--log-stream", "none") as server:
            url = urlsplit(server.url)
            with Wire((url.hostname, url.port)) as wire:
                for _ in range(20):
                    wire.send(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n" * 50)
                    for _ in range(50):
                        wire.answer()
        self.assertEqual(1000, self.logged().count("GET /health 200"))

    @unittest.skipUnless(os.path.exists("/dev/full"), "has no /dev/full")
    def test_full_disk_does_not_stop_the_server(self):
        with ServerProcess("-vv", "--log-file", "/dev/full", "--log-stream",
                           "none", self.root) as server:
            for _ in range(30):
                self.assertEqual(200, server.get("health").status)
        self.assertLess(len(server.output), 20000)

    def test_unencodable_text_does_not_stop_the_log(self):
        """A log in the C locale shows what it can."""
        with ServerProcess("-v", self.root, environment={
                "LC_ALL": "C", "PYTHONIOENCODING": "ascii",
                "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
                program=(SCRIPT,)) as server:
            server.get("%C3%A4%E2%82%AC/b/c")
            server.get("health")
        self.assertNotIn("Traceback", server.output)
        self.assertIn("GET /health 200", server.output)
        self.assertEqual(2, server.output.count("GET /"))

    @unittest.skipUnless(hasattr(signal, "SIGHUP"), "has no SIGHUP")
    def test_hangup_reopens_the_file(self):
        with self.serve("-v", "--log-stream", "none") as server:
            server.get("health?1")
            wait_for(lambda: "/health" in self.logged(), "it is logged")
            os.rename(self.log, self.log + ".1")
            server.process.send_signal(signal.SIGHUP)

            def is_new():
                server.get("health?2")
                return os.path.exists(self.log) and "/health" in self.logged()
            wait_for(is_new, "the new file is used")
        self.assertEqual(0, server.process.returncode)
        self.assertNotIn("Traceback", server.output)

    @unittest.skipUnless(hasattr(signal, "SIGHUP"), "has no SIGHUP")
    def test_hangup_loses_no_line(self):
        """As logrotate does it, while requests come in."""
        with self.serve("-v", "--log-stream", "none") as server:
            url = urlsplit(server.url)
            stop, count = threading.Event(), []

            def load():
                with Wire((url.hostname, url.port)) as wire:
                    while not stop.is_set():
                        wire.send(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
                        wire.answer()
                        count.append(1)
            threads = [threading.Thread(target=load) for _ in range(4)]
            for thread in threads:
                thread.start()
            try:
                for number in range(5):
                    before = len(count)
                    wait_for(lambda: len(count) > before + 50, "requests")
                    os.rename(self.log, "%s.%d" % (self.log, number))
                    server.process.send_signal(signal.SIGHUP)
                    wait_for(lambda: os.path.exists(self.log), "a new file")
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
        found = 0
        for name in os.listdir(self.folder):
            if name.startswith("log"):
                with open(os.path.join(self.folder, name)) as file:
                    found += file.read().count("GET /health 200")
        self.assertEqual(len(count), found)
        self.assertNotIn("Traceback", server.output)
        self.assertNotIn("Logging error", server.output)

    @unittest.skipUnless(hasattr(signal, "SIGHUP"), "has no SIGHUP")
    def test_hangup_while_the_file_cannot_be_opened(self):
        """The stream goes on, and the file as soon as it can."""
        folder = os.path.join(self.folder, "logs")
        os.mkdir(folder)
        self.log = os.path.join(folder, "log")
        with self.serve("-v") as server:
            os.rename(folder, folder + ".away")
            server.process.send_signal(signal.SIGHUP)
            server.get("health?1")
            server.get("health?2")
            wait_for(lambda: server.logged().count("/health") >= 2,
                     "the stream has it")
            os.rename(folder + ".away", folder)
            before = len(self.logged())

            def is_written():
                server.get("health?3")
                return "/health" in self.logged()[before:]
            wait_for(is_written, "the file has it")
        self.assertNotIn("Traceback", server.output)

    @unittest.skipUnless(hasattr(signal, "SIGHUP"), "has no SIGHUP")
    def test_hangup_without_a_file_changes_nothing(self):
        with ServerProcess("-v", self.root) as server:
            server.process.send_signal(signal.SIGHUP)
            self.assertEqual(200, server.get("health").status)
        self.assertEqual(0, server.process.returncode)


def wait_or_not(condition, expected):
    """Wait for what shall become true; look once at what shall not."""
    if not expected:
        return condition()
    wait_for(condition, "it is logged")
    return True


class TestFormats(LogTestCase):
    def test_every_key_has_its_value(self):
        """One format with all keys for each of the three."""
        frmt = "KIND " + " ".join(
            "%s=[%%(%s)s]" % (key, key) for key in pypi_server.REQUEST_KEYS)
        more = frmt + "".join(
            " %s=[%%(%s)s]" % (key, key) for key in ("status", "type",
                                                     "length"))
        with self.serve(
                "-vv", "--log-frmt", "%(message)s", "-P", self.passwords(),
                "-a", "list", "--log-req-frmt", frmt.replace("KIND", "REQ"),
                "--log-res-frmt", more.replace("KIND", "RES"),
                "--log-err-frmt", more.replace("KIND", "ERR")
                + " error=[%(error)s]") as server:
            headers = dict(forms.credentials("joe", "secret-word"),
                           **{"User-Agent": "agent/1"})
            answer = server.get("simple/?a=b&c", headers)
            server.get("a/b/c", headers)
            server.get("health")
        lines = self.logged().splitlines()
        common = ("method=[GET] path=[/simple/] query=[a=b&c] "
                  "client=[127.0.0.1] user=[%s] agent=[agent/1]")
        self.assertIn("REQ " + common % "-", lines)
        self.assertIn("RES %s status=[200] type=[text/html; charset=utf-8] "
                      "length=[%d]" % (common % "joe", len(answer.body)),
                      lines)
        found, = [line for line in lines if line.startswith("ERR ")]
        self.assertRegex(
            found, r"path=\[/a/b/c\] query=\[\] .*status=\[404\] "
            r"type=\[text/plain; charset=utf-8\] length=\[\d+\] "
            r"error=\[nothing at this address\]")
        self.assertIn("RES method=[GET] path=[/health] query=[] "
                      "client=[127.0.0.1] user=[-] agent=[-] status=[200] "
                      "type=[text/plain; charset=utf-8] length=[2]", lines)

    def test_all_keys_at_once(self):
        with self.serve(
                "-vv", "--log-frmt", "%(message)s", "--log-req-frmt",
                "REQ %s", "--log-res-frmt", "RES %s", "--log-err-frmt",
                "ERR %s", "--disable-fallback") as server:
            server.get("simple/")
            server.get("simple/none/")
        lines = self.logged().splitlines()
        for start, keys in (("REQ", pypi_server.REQUEST_KEYS),
                            ("RES", pypi_server.RESPONSE_KEYS),
                            ("ERR", pypi_server.ERROR_KEYS)):
            found = [line for line in lines if line.startswith(start)]
            self.assertTrue(found, start)
            for key in keys:
                self.assertIn(" %s=" % key, found[0])

    def test_other_conversions(self):
        with self.serve("-v", "--log-frmt", "%(levelname)-9s|%(message)s",
                        "--log-res-frmt", "100%% %(status)05d %(path)r "
                        "%(length)x") as server:
            server.get("health")
        self.assertIn("INFO     |100% 00200 '/health' 2\n", self.logged())

    def test_every_key_of_log_records(self):
        frmt = " ".join("%s=[%%(%s)s]" % (key, key)
                        for key in pypi_server.LOG_KEYS)
        with self.serve("-v", "--log-frmt", frmt) as server:
            server.get("health")
        line, = [line for line in self.logged().splitlines()
                 if "GET /health" in line]
        for key in pypi_server.LOG_KEYS:
            self.assertRegex(line, r"\b%s=\[[^]]+\]" % key)
        self.assertIn("process=[%d]" % server.process.pid, line)
        self.assertNotIn("None", line)

    def test_documented_keys_are_the_real_ones(self):
        """What the predecessor calls the keys of logging.LogRecord."""
        record = logging.makeLogRecord({})
        for key in pypi_server.LOG_KEYS:
            self.assertTrue(key in ("asctime", "message")
                            or hasattr(record, key), key)

    def test_help_names_the_keys(self):
        """The option that takes a format says what may be in it."""
        for option in pypi_server.OPTIONS:
            keys = {"log_req_frmt": pypi_server.REQUEST_KEYS,
                    "log_res_frmt": pypi_server.RESPONSE_KEYS,
                    "log_err_frmt": pypi_server.ERROR_KEYS}.get(option.field)
            if keys:
                with self.subTest(option.field):
                    with self.assertRaises(pypi_server.UsageError) as caught:
                        option.parse("%(none)s")
                    for key in keys:
                        self.assertIn("%%(%s)s" % key, str(caught.exception))

    def test_bad_formats_are_refused_at_start(self):
        for option in pypi_server.OPTIONS:
            if not option.field.endswith("_frmt"):
                continue
            for text in ("%(none)s", "%", "%(", "%(path", "%(path)", "%d",
                         "%s %s", "%()s", "%(message)", "%(message)y",
                         "%(path)y", "%5", "%(status)s %s %s", "%*d"):
                with self.subTest(option.field, text=text):
                    with self.assertRaises(pypi_server.UsageError) as caught:
                        option.parse(text)
                    self.assertIn(repr(text), str(caught.exception))

    def test_conversions_that_fail_later_are_refused_at_start(self):
        """%d of a text is an error in each line of the log."""
        parse = {option.field: option.parse for option in
                 pypi_server.OPTIONS}
        for field, text in (
                ("log_req_frmt", "%(path)d"), ("log_res_frmt", "%(agent)x"),
                ("log_err_frmt", "%(error)f"), ("log_frmt", "%(message)d"),
                ("log_frmt", "%(levelname)i"), ("log_frmt", "%(asctime)d")):
            with self.subTest(text), \
                    self.assertRaises(pypi_server.UsageError):
                parse[field](text)


class TestAudit(LogTestCase):
    """One line for each change, whatever the level."""

    def lines(self, verb):
        return [line for line in self.logged().splitlines()
                if " %s " % verb in line]

    def test_uploads_and_removals(self):
        digest = forms.digests(DATA)["sha256_digest"]
        for options in (), ("-v",), ("--log-stream", "none"):
            with self.subTest(options):
                with self.serve("-P", self.passwords(), *options) as server:
                    message = forms.upload(WHEEL, DATA)
                    self.assertEqual(200, self.post(server, message).status)
                    # The same again changes nothing.
                    self.assertEqual(200, self.post(server, message).status)
                    self.assertEqual(401, self.post(
                        server, message, "joe", "wrong-word").status)
                    self.assertEqual(
                        200, self.post(server, remove("foo", "1.0")).status)
                for verb in "uploaded", "removed":
                    line, = self.lines(verb)
                    for part in ("joe", "127.0.0.1", WHEEL, digest):
                        self.assertIn(part, line)
                self.assertNotIn("-word", self.logged() + server.output)
                os.remove(self.log)

    def test_without_accounts(self):
        with self.serve("-P", ".", "-a", ".") as server:
            self.post(server, forms.upload(WHEEL, DATA), user="")
        line, = self.lines("uploaded")
        self.assertRegex(line, r"\|- at 127\.0\.0\.1 uploaded ")

    def test_replaced_files_and_signatures(self):
        other = archives.wheel("foo", "1.0", body="other")
        with self.serve("-P", self.passwords(), "--overwrite") as server:
            for data in DATA, other:
                self.assertEqual(200, self.post(
                    server, forms.upload(WHEEL, data)).status)
            self.assertEqual(200, self.post(server, forms.upload(
                WHEEL + ".asc", b"signature")).status)
        found = self.lines("uploaded")
        self.assertEqual(3, len(found), found)
        self.assertIn(forms.digests(other)["sha256_digest"], found[1])
        self.assertIn(WHEEL + ".asc", found[2])

    def test_address_behind_a_proxy(self):
        """The client's, if the proxy is trusted; else that of the peer."""
        for options, address in ((("--trusted-proxy", "127.0.0.1"),
                                  "192.0.2.7"), ((), "127.0.0.1")):
            with self.serve("-P", self.passwords(), *options) as server:
                headers, body = forms.upload(WHEEL, DATA)
                self.post(server, (dict(headers, **{
                    "X-Forwarded-For": "10.9.8.7, 192.0.2.7"}), body))
                self.post(server, remove("foo", "1.0"))
            line, = self.lines("uploaded")
            self.assertIn(" at %s " % address, line)
            os.remove(self.log)


class TestSecrets(LogTestCase):
    def test_passwords_never_appear(self):
        """Not of those who may, nor mistyped, nor in the wrong field."""
        with self.serve("-vv", "--log-req-frmt", "%s", "--log-res-frmt", "%s",
                        "--log-err-frmt", "%s", "-P", self.passwords(), "-a",
                        "list,download,update") as server:
            for user, password in (("joe", "secret-word"),
                                   ("joe", "other-secret-word"),
                                   ("secret-word", ""), ("", "secret-word"),
                                   ("__token__", "pypi-secret-word")):
                headers = forms.credentials(user, password)
                server.get("simple/", headers)
                server.get("packages/none.whl", headers)
                self.post(server, forms.upload(WHEEL, DATA), user, password)
            for text in ("Basic secret-word", "Bearer secret-word",
                         "secret-word", "Basic c2VjcmV0LXdvcmQ"):
                server.get("simple/", {"Authorization": text})
                server.get("simple/", {"Cookie": text,
                                       "Proxy-Authorization": text})
        for text in self.logged(), server.output:
            self.assertNotIn("secret-word", text)
            self.assertNotIn("c2VjcmV0LXdvcmQ", text)

    def test_control_characters_are_escaped(self):
        """In what a client sends, in names of files, in any field."""
        archives.put(self.root, "foo\x1b[31m-1.0.tar.gz", b"no archive")
        archives.put(self.root, "foo\n2026|x|y|z-1.0.tar.gz", b"no archive")
        with self.serve("-vv", "--log-req-frmt", "%s", "--log-res-frmt", "%s",
                        "--log-err-frmt", "%s", "-P", ".", "-a", ".",
                        "--trusted-proxy", "127.0.0.1") as server:
            url = urlsplit(server.url)
            for path, line in (
                    (b"/%0a2026-01-01|forged", b""),
                    (b"/%1b]0;x%07/b/c", b""),
                    (b"/a/b/c", b"X-Forwarded-For: \x9b31m"),
                    (b"/a/b/c", b"User-Agent: \xc2\x85\xff"),
                    (b"/simple/%E2%80%AEx/", b"")):
                with Wire((url.hostname, url.port)) as wire:
                    wire.send(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n"
                              + line + b"\r\n" * (1 + bool(line)))
                    wire.answer()
            for name in ("foo\x1b[31m-1.0.tar.gz", "a\nb-1.0.tar.gz",
                         "\u202efoo-1.0.tar.gz"):
                self.post(server, forms.upload(name, b"x"), user="")
            for name in "foo\x1b", "foo\nbar":
                self.post(server, remove(name, "1.0"), user="")
            wait_for(lambda: "z-1.0" in self.logged(), "files are withheld")
        for text in self.logged(), server.output:
            for line in text.split("\n"):
                self.assertTrue(line.isprintable(), ascii(line))
                self.assertTrue(not line or LINE.match(line), line)

    def test_through_wsgi_too(self):
        """Other servers check less of what a client sends."""
        app = self.make_app(log_res_frmt="%s", log_err_frmt="%s")
        lines = []

        class Keep(logging.Handler):
            def emit(self, record):
                lines.append(record.getMessage())
        handler, level = Keep(), pypi_server.LOG.level
        pypi_server.LOG.addHandler(handler)
        pypi_server.LOG.setLevel(logging.INFO)
        try:
            for path in ("/simple/?a=\x1b[31m", "/simple/?\x9b",
                         "/a/b/c?\n2026"):
                call_wsgi(app, "GET", path, {"User-Agent": "\x1b\x9b"})
        finally:
            pypi_server.LOG.setLevel(level)
            pypi_server.LOG.removeHandler(handler)
        self.assertEqual(3, len(lines))
        for line in lines:
            self.assertTrue(line.isprintable(), ascii(line))

    def test_malformed_through_wsgi(self):
        """What is refused before it is a request leaves a line as well."""
        app = self.make_app()
        level = pypi_server.LOG.level
        try:
            with self.assertLogs("pypi_server", "INFO") as logs:
                for method in "GET", "HEAD":
                    for path in "/simple/%ff/", "/a%00b":
                        answer = call_wsgi(app, method, path)
                        self.assertEqual(400, answer.status)
        finally:
            pypi_server.LOG.setLevel(level)
        self.assertEqual(4, len(logs.output), logs.output)
        for line, method, text in zip(logs.output, (
                "GET", "GET", "HEAD", "HEAD"), ("UTF-8", "control") * 2):
            self.assertIn(" %s /" % method, line)
            self.assertIn(" 400", line)
            self.assertIn(text, line)
            self.assertTrue(line.isprintable(), ascii(line))


class TestQuiet(LogTestCase):
    def test_clients_that_go_away_are_no_news(self):
        with self.serve() as server:
            url = urlsplit(server.url)
            for data in b"", b"GET / HT", b"\x16\x03\x01\x02\0", b"\r\n\r\n":
                with socket.create_connection(
                        (url.hostname, url.port)) as client:
                    client.sendall(data)
            connection = http.client.HTTPConnection(url.hostname, url.port)
            connection.request("GET", "/health")
            connection.getresponse().read()
            connection.close()
        self.assertEqual("", self.logged())
        self.assertEqual("", server.output)


if __name__ == "__main__":
    unittest.main()
