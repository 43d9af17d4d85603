"""Section WSGI: real servers of others serve the same application.

They come from the environment "servers" of tests/toolbox.py.
"""

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest
from typing import NamedTuple

import pypi_server
from tests import archives, forms, toolbox
from tests.guide import recipe
from tests.helpers import (
    SCRIPT, DirectoryTestCase, ServerProcess, ask, wait_for,
)
from tests.processes import TOP, Process, free_port
from tests.test_recipes import program
from tests.upstream import isolated

WHEEL = "foo-1.0-py3-none-any.whl"
DATA = archives.wheel("foo", "1.0", files={"zeros": bytes(300 * 1024)})


class Kind(NamedTuple):
    """What a server can do."""

    name: str       # of --server
    module: str     # that it needs
    chunked: bool = True      # takes bodies of unknown length


KINDS = (
    Kind("wsgiref", "", chunked=False),
    Kind("gunicorn", "gunicorn"),
    Kind("gevent", "gevent"),
    Kind("waitress", "waitress"),
    Kind("cherrypy", "cheroot"),
    Kind("twisted", "twisted"),
    Kind("paste", "paste", chunked=False),
)


class ServerTestCase(DirectoryTestCase):
    def setUp(self):
        super().setUp()
        archives.put(self.root, WHEEL, DATA)

    def check_reading(self, server):
        wait_for(lambda: WHEEL in server.get("/simple/foo/").body.decode(),
                 "it is listed")
        for path, status in (
                ("/", 200), ("/simple/", 200), ("/simple/foo", 302),
                ("/simple/none/", 404), ("/a/b/c", 404), ("/health", 200),
                ("/foo/json", 200), ("/packages/%s.metadata" % WHEEL, 200)):
            answer = server.get(path)
            self.assertEqual(status, answer.status, path)
            self.assertEqual(str(len(answer.body)),
                             answer.headers["content-length"], path)
            head = server.get(path, method="HEAD")
            self.assertEqual((status, b""), (head.status, head.body), path)
        # Apache answers this one itself.
        self.assertIn(server.get("/simple/%00/").status, (400, 404))
        self.assertEqual(DATA, server.get("/packages/" + WHEEL).body)
        for text, part in (("bytes=7-20", DATA[7:21]),
                           ("bytes=-9", DATA[-9:]),
                           ("bytes=100-", DATA[100:])):
            answer = server.get("/packages/" + WHEEL, {"Range": text})
            self.assertEqual((206, part), (answer.status, answer.body))
            self.assertTrue(answer.headers["content-range"])
        etag = server.get("/simple/foo/").headers["etag"]
        self.assertEqual(304, server.get(
            "/simple/foo/", {"If-None-Match": etag}).status)
        answer = server.get("/simple/foo/", {
            "Accept": "application/vnd.pypi.simple.v1+json"})
        self.assertEqual("application/vnd.pypi.simple.v1+json",
                         answer.headers["content-type"])
        self.assertEqual(405, server.get("/simple/foo/", method="PUT").status)

    def check_uploads(self, server, version, headers=None):
        data = archives.wheel("foo", version, files={
            "noise": os.urandom(3 * 2 ** 20)})
        name = "foo-%s-py3-none-any.whl" % version
        answer = server.post(forms.upload(
            name, data, headers=headers, **forms.digests(data)))
        self.assertEqual(200, answer.status, answer.body)
        self.assertEqual(data, server.get("/packages/" + name).body)
        self.assertIn(name.encode(), server.get("/simple/foo/").body)
        # What is refused is said, in the reason phrase too.
        answer = server.post(forms.upload(name, DATA, headers=headers))
        self.assertEqual(400, answer.status)
        self.assertIn(b"foo", answer.body)
        other = archives.wheel("foo", version, body="other")
        answer = server.post(forms.upload(name, other, headers=headers))
        self.assertEqual(409, answer.status)
        self.assertIn("File already exists", answer.reason)

    def check_chunks(self, server, version, is_able, headers=None):
        data = archives.wheel("foo", version, files={
            "noise": os.urandom(2 ** 20)})
        name = "foo-%s-py3-none-any.whl" % version
        try:
            status, body = server.post(
                forms.upload(name, data, headers=headers), chunk=10007)
        except (ConnectionError, http.client.HTTPException):
            self.assertFalse(is_able)
            status, body = 400, b"length"
        if is_able:
            self.assertEqual((200, data), (status, server.get(
                "/packages/" + name).body), body)
        else:
            self.assertIn(status, (400, 411, 501))
            self.assertRegex(body.decode(), "(?i)length|chunk")
            self.assertFalse(os.path.exists(os.path.join(self.root, name)))
        self.assertEqual([], [
            found for found in os.listdir(self.root)
            if found.startswith(pypi_server.TEMPORARY)])


class TestServers(ServerTestCase):
    """All of them, for each of these."""

    def start(self, kind, *options, **environment):
        python = toolbox.require("servers") if kind.module \
            else sys.executable
        port = free_port()
        return Process(
            [python, SCRIPT, "run", "--server", kind.name, "-p", str(port),
             "-H", "127.0.0.1", "-a", ".", "-P", ".", self.root]
            + list(options), port, self.folder, **environment)

    def each(self, *options, **environment):
        toolbox.require("servers")
        for kind in KINDS:
            server = self.start(kind, *options, **environment)
            yield kind, server

    def test_reading(self):
        for kind, server in self.each("--disable-fallback"):
            with self.subTest(kind.name), server:
                self.check_reading(server)

    def test_uploads(self):
        for number, (kind, server) in enumerate(self.each()):
            with self.subTest(kind.name), server:
                self.check_uploads(server, "2.%d" % number)

    def test_uploads_in_chunks(self):
        """Taken whole, or refused with a sentence; never half a file."""
        for number, (kind, server) in enumerate(self.each()):
            with self.subTest(kind.name), server:
                self.check_chunks(server, "3.%d" % number, kind.chunked)

    def test_upload_that_is_cut_off(self):
        for kind, server in self.each():
            with self.subTest(kind.name), server:
                headers, body = forms.upload(
                    "foo-9.0-py3-none-any.whl",
                    archives.wheel("foo", "9.0", files={
                        "noise": os.urandom(2 ** 20)}))
                with socket.create_connection(
                        ("127.0.0.1", server.port)) as client:
                    client.sendall("\r\n".join(
                        ["POST / HTTP/1.1", "Host: a",
                         "Content-Length: %d" % len(body)]
                        + ["%s: %s" % pair for pair in headers.items()]
                        + ["", ""]).encode() + body[:len(body) // 2])
                self.assertEqual(200, server.get("/health").status)
                wait_for(lambda: os.listdir(self.root) == [WHEEL],
                         "nothing is left: %r" % os.listdir(self.root))

    def test_signal_ends_them(self):
        for kind, server in self.each():
            with self.subTest(kind.name), server:
                server.get("/health")
                self.assertLess(server.stop(), 8)
                self.assertNotIn("Traceback", server.printed())
                self.assertEqual(0, server.process.returncode)

    def test_interrupt_ends_them_quietly(self):
        for kind, server in self.each():
            with self.subTest(kind.name), server:
                server.get("/health")
                self.assertLess(server.stop(signal.SIGINT), 8)
                self.assertNotIn("Traceback", server.printed())

    def test_first_line(self):
        for kind, server in self.each():
            with self.subTest(kind.name), server:
                wait_for(lambda: "Serving" in server.printed(), "printed")
                server.stop()
                self.assertRegex(server.printed(), re.compile(
                    r"^Serving .* at http://127\.0\.0\.1:%d/$" % server.port,
                    re.M))

    def test_log(self):
        """The options for the log apply; one line for an upload."""
        for number, (kind, server) in enumerate(self.each(
                "-v", "--log-file", "log", "--log-frmt", "<%(message)s>")):
            with self.subTest(kind.name), server:
                version = "4.%d" % number
                name = "foo-%s-py3-none-any.whl" % version
                server.get("/health")
                self.assertEqual(200, server.post(forms.upload(
                    name, archives.wheel("foo", version))).status)
                path = os.path.join(self.folder, "log")

                def logged():
                    with open(path) as file:
                        return file.read()
                wait_for(lambda: "uploaded" in logged(), "it is logged", 3)
                self.assertIn("<127.0.0.1 GET /health 200>", logged())
                self.assertEqual(1, logged().count(" uploaded "))
                server.stop()
                os.remove(path)

    def test_hangup_opens_the_log_anew(self):
        for kind, server in self.each("-v", "--log-file", "log"):
            with self.subTest(kind.name), server:
                path = os.path.join(self.folder, "log")
                server.get("/health")
                wait_for(lambda: os.path.exists(path), "there is a log")
                os.rename(path, path + ".1")
                server.process.send_signal(signal.SIGHUP)

                def is_new():
                    with contextlib.suppress(OSError):
                        server.get("/health")
                    return os.path.exists(path) and os.path.getsize(path)
                wait_for(is_new, "a new log")
                self.assertEqual(200, server.get("/health").status)
                server.stop()
                self.assertEqual(0, server.process.returncode)
                os.remove(path)

    def test_slow_client_delays_nobody(self):
        for kind, server in self.each():
            with self.subTest(kind.name), server:
                clients = []
                try:
                    for data in (b"", b"GET / HTTP/1.1\r\nHo",
                                 b"POST / HTTP/1.1\r\nHost: a\r\n"
                                 b"Content-Length: 9\r\n\r\n"):
                        client = socket.create_connection(
                            ("127.0.0.1", server.port))
                        client.sendall(data)
                        clients.append(client)
                    started = time.monotonic()
                    self.assertEqual(200, server.get("/health").status)
                    self.assertLess(time.monotonic() - started, 3)
                finally:
                    for client in clients:
                        client.close()

    def test_parallel_downloads(self):
        for kind, server in self.each():
            with self.subTest(kind.name), server:
                found = []

                def run():
                    for _ in range(5):
                        found.append(server.get("/packages/" + WHEEL).body)
                threads = [threading.Thread(target=run) for _ in range(6)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                self.assertEqual([DATA] * 30, found)

    def test_port_in_use(self):
        """Exit status 2 and one sentence, as with the built-in server."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen(1)
            port = taken.getsockname()[1]
            for kind in KINDS:
                with self.subTest(kind.name):
                    python = toolbox.require("servers")
                    process = subprocess.run(
                        [python, SCRIPT, "run", "--server", kind.name, "-p",
                         str(port), "-H", "127.0.0.1", self.root],
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                        timeout=60, env=isolated(self.folder))
                    errors = process.stderr.decode()
                    self.assertNotIn("Traceback", errors)
                    self.assertIn(str(port), errors)
                    self.assertEqual(2, process.returncode)
                    self.assertNotIn(b"Serving", process.stdout)

    @unittest.skipUnless(socket.has_ipv6, "has no IPv6")
    def test_ipv6(self):
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
        except OSError:
            self.skipTest("there is no ::1 here")
        for kind in KINDS:
            with self.subTest(kind.name):
                python = toolbox.require("servers")
                port = free_port()
                server = Process(
                    [python, SCRIPT, "run", "--server", kind.name, "-p",
                     str(port), "-H", "::1", self.root], port, self.folder)

                def is_up(server=server):
                    if server.process.poll() is not None:
                        raise AssertionError("it ended")
                    try:
                        socket.create_connection(
                            ("::1", server.port), 1).close()
                    except OSError:
                        return False
                    return True
                server.is_up = is_up
                with server:
                    self.assertEqual(200, ask(
                        "::1", port, "GET", "/health").status)
                    self.assertIn("http://[::1]:%d/" % port,
                                  server.printed())


class TestOwnStart(ServerTestCase):
    """Servers that are started by their own command."""

    def test_gunicorn(self):
        """As in the guide, with several workers."""
        gunicorn = toolbox.require("servers", "gunicorn")
        port = free_port()
        with Process(
                [gunicorn, "-w", "3", "-b", "127.0.0.1:%d" % port,
                 'pypi_server:app(root="%s", authenticated=[], '
                 'password_file=".", disable_fallback=True)' % self.root],
                port, self.folder) as server:
            wait_for(lambda: server.get("/simple/foo/").status == 200,
                     "the file is listed")
            for number in range(12):
                version = "5.%d" % number
                name = "foo-%s-py3-none-any.whl" % version
                data = archives.wheel("foo", version)
                self.assertEqual(200, server.post(
                    forms.upload(name, data)).status)
                # Whatever worker answers; they know nothing of each other.
                for _ in range(4):
                    self.assertIn(name.encode(),
                                  server.get("/simple/foo/").body)
                    self.assertEqual(data,
                                     server.get("/packages/" + name).body)
            self.assertLess(server.stop(), 8)
            self.assertNotIn("Traceback", server.printed())

    def test_workers_see_every_change(self):
        """Another content, a signature, a removal; wherever the file is."""
        gunicorn = toolbox.require("servers", "gunicorn")
        port = free_port()
        archives.put(self.root, "deep/bar-1.0-py3-none-any.whl",
                     archives.wheel("bar", "1.0"))
        with Process(
                [gunicorn, "-w", "3", "-b", "127.0.0.1:%d" % port,
                 'pypi_server:app(root="%s", authenticated=[], '
                 'password_file=".", overwrite=True)' % self.root],
                port, self.folder) as server:
            for project in "foo", "bar":
                wait_for(lambda: server.get(
                    "/simple/%s/" % project).status == 200, "it is listed")
                name = project + "-1.0-py3-none-any.whl"
                for number in range(8):
                    data = archives.wheel(project, "1.0", body=str(number))
                    self.assertEqual(200, server.post(
                        forms.upload(name, data)).status)
                    digest = forms.digests(data)["sha256_digest"]
                    self.see(server, project, digest.encode())
                self.assertEqual(200, server.post(forms.upload(
                    name + ".asc", b"signed")).status)
                self.see(server, project, b'data-gpg-sig="true"')
                # Until each worker takes what it knows of names for certain.
                time.sleep(3 * pypi_server.TICK)
                self.see(server, project, b'data-gpg-sig="true"')
                self.assertEqual(200, server.post(forms.post([
                    (":action", "remove_pkg"), ("name", project),
                    ("version", "1.0")])).status)
                for _ in range(9):
                    self.assertEqual(404, server.get(
                        "/simple/%s/" % project).status)

    def see(self, server, project, text):
        for _ in range(9):
            self.assertIn(text, server.get("/simple/%s/" % project).body)

    def test_gunicorn_with_several_roots(self):
        gunicorn = toolbox.require("servers", "gunicorn")
        other = os.path.join(self.folder, "other")
        archives.put(other, "bar-1.0.tar.gz", archives.sdist("bar", "1.0"))
        port = free_port()
        with Process(
                [gunicorn, "-w2", "-b", "127.0.0.1:%d" % port,
                 'pypi_server:app(root=["%s", "%s"])' % (self.root, other)],
                port, self.folder) as server:
            wait_for(lambda: all(
                name in server.get("/simple/").body
                for name in (b"foo", b"bar")), "both are listed")

    def test_gunicorn_says_what_is_wrong(self):
        gunicorn = toolbox.require("servers", "gunicorn")
        process = subprocess.run(
            [gunicorn, "-b", "127.0.0.1:%d" % free_port(),
             'pypi_server:app(rot="/a")'], stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=60,
            env=isolated(self.folder, PYTHONPATH=TOP))
        self.assertNotEqual(0, process.returncode)
        self.assertIn(b"there is no setting 'rot'", process.stdout)

    def test_waitress(self):
        waitress = toolbox.require("servers", "waitress-serve")
        port = free_port()
        archives.put(self.folder, "site_app.py", (
            "import pypi_server\n"
            "application = pypi_server.app(root=%r)\n" % self.root).encode())
        with Process([waitress, "--listen=127.0.0.1:%d" % port,
                      "site_app:application"], port, self.folder) as server:
            wait_for(lambda: server.get("/simple/foo/").status == 200,
                     "the file is listed")


class TestRecipes(ServerTestCase):
    """uWSGI and mod_wsgi, as the guide has them, in several processes."""

    def script(self):
        archives.put(self.folder, "htpasswd",
                     b"joe:{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=\n")
        # A server that gives up root may not see the repository.
        shutil.copy(SCRIPT, self.folder)
        return self.put("pypi.wsgi", ("/srv/pypi", self.folder),
                        ("/opt", self.folder),
                        ("app(", "app(disable_fallback=True,"))

    def put(self, name, *changes):
        """Write a recipe with other values into the folder."""
        text = recipe(name)
        for old, new in changes:
            self.assertIn(old, text)
            text = text.replace(old, new)
        return archives.put(self.folder, name, text.encode())

    def check(self, server, chunked):
        joe = forms.credentials("joe", "123456")
        self.check_reading(server)
        self.check_chunks(server, "8.0", chunked, joe)
        for number in range(3):
            self.check_uploads(server, "7.%d" % number, joe)
        message = forms.upload(WHEEL, DATA)
        self.assertEqual(401, server.post(message).status)
        self.assertLess(server.stop(), 15)
        self.assertNotIn("Traceback", server.printed())
        self.assertEqual(0, server.process.returncode)
        self.assertRegex(server.printed(), "joe at 127.0.0.1 uploaded .*7.0")

    def test_uwsgi(self):
        command = program("uwsgi", "uwsgi-core uwsgi-plugin-python3")
        port = free_port()
        self.script()
        path = self.put("uwsgi.ini", ("/srv/pypi", self.folder),
                        ("8080", str(port)))
        with Process([command, "--ini", path], port, self.folder) as server:
            self.check(server, chunked=False)

    def test_mod_wsgi(self):
        command = program("apache2", "apache2")
        module = "/usr/lib/apache2/modules/mod_wsgi.so"
        if not os.path.exists(module):
            self.skipTest("mod_wsgi is not installed: apt-get install "
                          "libapache2-mod-wsgi-py3")
        port = free_port()
        self.script()
        user = ""
        if os.geteuid() == 0:
            user = "User www-data\nGroup www-data\n"
            for folder, _, _ in os.walk(self.folder):
                shutil.chown(folder, "www-data", "www-data")
        site = self.put("apache-wsgi.conf", ("/srv/pypi", self.folder),
                        ("*:80", "127.0.0.1:%d" % port))
        loads = "".join(
            "LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n"
            % (name, name) for name in ("mpm_event", "authz_core", "wsgi"))
        path = archives.put(self.folder, "apache.conf", (
            "ServerRoot %s\nDefaultRuntimeDir %s\nServerName localhost\n"
            "PidFile pid\nErrorLog /dev/stderr\nListen 127.0.0.1:%d\n%s%s"
            "Include %s\n" % (self.folder, self.folder, port, user, loads,
                              site)).encode())
        with Process([command, "-f", path, "-D", "FOREGROUND"], port,
                     self.folder) as server:
            self.check(server, chunked=True)


class TestMissing(ServerTestCase):
    """One sentence on what to install."""

    def test_not_installed(self):
        for kind in KINDS:
            if not kind.module:
                continue
            with self.subTest(kind.name):
                # A module that cannot be imported stands for none.
                archives.put(self.folder, "none/%s.py" % kind.module,
                             b"raise ImportError('it is not there')")
                process = subprocess.run(
                    [sys.executable, "-W", "error", SCRIPT, "run",
                     "--server", kind.name.upper(), "-p",
                     str(free_port()), self.root], stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE, timeout=60,
                    env=isolated(self.folder, PYTHONPATH=os.path.join(
                        self.folder, "none")))
                errors = process.stderr.decode()
                self.assertEqual((2, b""),
                                 (process.returncode, process.stdout))
                self.assertEqual(1, errors.count("\n"), errors)
                for text in ("pypi-server: error: ", "install", kind.module,
                             kind.name):
                    self.assertIn(text, errors)

    def test_options_of_the_built_in_server(self):
        for option in "--workers", "--max-connections":
            process = subprocess.run(
                [sys.executable, SCRIPT, "run", "--server", "wsgiref",
                 option, "2", self.root], stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, timeout=60,
                env=isolated(self.folder))
            self.assertEqual((2, b""), (process.returncode, process.stdout))
            self.assertIn(option.encode(), process.stderr)

    def test_any_port(self):
        with ServerProcess("--server", "wsgiref", self.root) as server:
            self.assertEqual(200, server.get("health").status)

    def test_every_server_is_tested(self):
        self.assertEqual(
            sorted(kind.name for kind in KINDS),
            sorted(set(pypi_server.SERVERS) - {"auto"}))
        self.assertEqual(set(pypi_server.SERVERS) - {"auto"},
                         set(pypi_server.WSGI_SERVERS))

    def test_auto_needs_nothing(self):
        """Other servers that are installed change nothing."""
        self.assertEqual("auto", pypi_server.Config().server)


if __name__ == "__main__":
    unittest.main()
