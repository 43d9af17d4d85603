"""A server as its users start it, and three ways into one application."""

import contextlib
import http.client
import io
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import warnings
from html.parser import HTMLParser
from typing import Dict, NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import WSGIWarning, validator

import pypi_server

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPT = os.path.join(os.path.dirname(HERE), "pypi_server.py")
# What Python is to run, before the arguments: to compile the script each time
# would cost more than many a test.
PROGRAM = ("-c", "import sys; sys.path.insert(0, sys.argv.pop(1)); "
           "import pypi_server; sys.exit(pypi_server.main())",
           os.path.dirname(SCRIPT))
if sys.version_info < (3, 7) or sys.implementation.name != "cpython":
    # In a plain locale they start themselves anew: only a script can.
    os.environ["LC_ALL"] = "C.UTF-8"
READY = re.compile(r"^Serving .* at (http\S+)$")
# What is withheld is logged; here it would only be in the way.
logging.getLogger("pypi_server").addHandler(logging.NullHandler())
# What the clients of the three ways call the server.
HOST = "index.example"
# Headers that only a socket has.
TRANSPORT = ("connection", "date", "server")


def without(module):
    """Return what to run for a Python that was built without a module."""
    return (PROGRAM[0], "import sys; sys.modules[%r] = None; %s" % (
        module, PROGRAM[1]), *PROGRAM[2:])


class ServerProcess:
    """`pypi_server.py run` in a process of its own, on a free port.

    Use it in a `with` statement; `url` ends with a slash.  What the server
    prints after its first line is in `output` once it has stopped.  Its
    cache is thrown away, unless the arguments or the environment name one.
    """

    def __init__(self, *arguments, python=sys.executable, environment=None,
                 program=PROGRAM):
        self.environment = dict(os.environ, **(environment or {}))
        self.cache = tempfile.TemporaryDirectory()
        if "--cache-dir" not in arguments \
                and "XDG_CACHE_HOME" not in (environment or {}):
            arguments = ("--cache-dir", self.cache.name) + arguments
        self.command = [python, "-W", "error", *program, "run", "-p", "0",
                        "-H", "127.0.0.1", *arguments]
        self.output = ""

    def __enter__(self):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=self.log,
            env=self.environment, universal_newlines=True)
        self.line = self.process.stdout.readline()
        found = READY.match(self.line)
        if not found:
            self.stop()
            raise AssertionError(
                "no server: %r\n%s" % (self.line, self.output))
        self.url = found.group(1)
        return self

    def __exit__(self, *exception):
        self.stop()

    def stop(self, number=signal.SIGTERM):
        """Stop the server, read what it printed, return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        if not self.log.closed:
            rest, _ = self.process.communicate(timeout=60)
            self.output = rest + self.logged()
            self.log.close()
            self.cache.cleanup()
        return self.process.returncode

    def logged(self):
        """Return what the running server has logged so far."""
        # Not through the file object: it shares its place with the server.
        size = os.fstat(self.log.fileno()).st_size
        return os.pread(self.log.fileno(), size, 0).decode("utf-8", "replace")

    def get(self, path, headers=None, method="GET"):
        """Return the Answer to one request on a connection of its own."""
        address = urlsplit(self.url)
        return ask(address.hostname, address.port, method,
                   address.path + path, headers)


def names_in(folder):
    """Return all names in a directory, sorted, but that of the lock."""
    return sorted(set(os.listdir(folder)) - {".lock"})


class Answer(NamedTuple):
    """What a client sees."""

    status: int
    reason: str
    headers: Dict[str, str]  # names in lower case
    body: bytes


def ask(host, port, method, target, headers=None, body=b""):
    """Send one request over TCP; only the headers given, and Host."""
    client = http.client.HTTPConnection(host, port, timeout=30)
    try:
        client.putrequest(method, target, skip_host=True,
                          skip_accept_encoding=True)
        for name, text in dict({"Host": HOST}, **(headers or {})).items():
            client.putheader(name, text)
        if body:
            client.putheader("Content-Length", str(len(body)))
        client.endheaders(body or None)
        response = client.getresponse()
        return Answer(response.status, response.reason,
                      fields(response.getheaders()), response.read())
    finally:
        client.close()


def fields(headers):
    """Return headers by name; the server never sends one twice."""
    found = {name.lower(): text for name, text in headers}
    if len(found) != len(headers):
        raise AssertionError("a header comes twice: %r" % headers)
    return found


def call(app, method, target, headers=None, body=b""):
    """Answer in-process: no server, no socket."""
    path, query = pypi_server.split_target(target)
    request = pypi_server.Request(
        method=method, path=path, query=query, read=io.BytesIO(body).read,
        headers=dict({"host": HOST}, **{
            name.lower(): text for name, text in (headers or {}).items()}),
        client="127.0.0.1", base="http://%s/" % HOST)
    response, file = pypi_server.answer(app, request)
    found = response.body
    if file is not None:
        with file:
            file.seek(found.start)
            found = file.read(found.length)
    return Answer(
        response.status,
        response.reason or http.client.responses[response.status],
        fields(list(pypi_server.headers_of(response))),
        b"" if method == "HEAD" else found)


def call_wsgi(app, method, target, headers=None, body=b"", script=""):
    """Answer through WSGI, with the standard library's referee watching."""
    path, _, query = target.partition("?")
    environ = {
        "REQUEST_METHOD": method, "SCRIPT_NAME": script,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query, "HTTP_HOST": HOST, "REMOTE_ADDR": "127.0.0.1",
        "wsgi.input": io.BytesIO(body)}
    if body:
        environ["CONTENT_LENGTH"] = str(len(body))
    for name, text in (headers or {}).items():
        name = name.upper().replace("-", "_")
        environ[name if name == "CONTENT_TYPE" else "HTTP_" + name] = text
    setup_testing_defaults(environ)
    started = []
    with warnings.catch_warnings():
        # The referee warns of methods that it does not know.
        warnings.simplefilter("ignore", WSGIWarning)
        blocks = validator(pypi_server.wsgi_app(app))(
            environ, lambda *arguments: started.append(arguments))
    try:
        data = b"".join(blocks)
    finally:
        blocks.close()
    status, found = started[0][:2]
    return Answer(int(status[:3]), status[4:], fields(found), data)


@contextlib.contextmanager
def running(app):
    """Serve over TCP from a thread; yield the server."""
    server = pypi_server.Server(app._replace(config=app.config._replace(
        host="127.0.0.1", port=0)))
    # Poll often: shutdown() waits for the poll, 0.5 s by default.
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.stop()


@contextlib.contextmanager
def listening(app):
    """Serve over TCP from a thread; yield (host, port)."""
    with running(app) as server:
        yield server.server_address[:2]


def call_socket(app, method, target, headers=None, body=b""):
    """Answer over TCP, on a port that the system chose."""
    with listening(app) as (host, port):
        return ask(host, port, method, target, headers, body)


WAYS = (call, call_wsgi, call_socket)


class Wire:
    """The raw bytes that a client sends and gets."""

    def __init__(self, address, timeout=20):
        self.socket = socket.create_connection(address, timeout)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def receive(self):
        """Add to the buffer; False at the end of the connection."""
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            data = b""
        self.buffer += data
        return bool(data)

    def head(self):
        """Return (status, headers) of the next answer."""
        while b"\r\n\r\n" not in self.buffer:
            if not self.receive():
                raise AssertionError("no answer, only %r" % self.buffer)
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        return int(first.split()[1]), fields(
            [tuple(line.split(": ", 1)) for line in lines])

    def answer(self, method="GET"):
        """Return (status, headers, body) of the next answer."""
        status, headers = self.head()
        length = int(headers.get("content-length", 0))
        if method == "HEAD" or status < 200 or status == 304:
            length = 0
        while len(self.buffer) < length:
            if not self.receive():
                raise AssertionError("the body is cut off")
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return status, headers, body

    def is_closed(self):
        """Tell, after an answer, whether the server closes in turn."""
        while self.receive():
            pass
        return not self.buffer


class Anchors(HTMLParser):
    """Collects (attributes, text) of the links of a page."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.inside = False

    def handle_starttag(self, tag, attributes):
        if tag == "a":
            if len(dict(attributes)) != len(attributes):
                raise AssertionError("an attribute twice: %r" % attributes)
            self.inside = True
            self.found.append((dict(attributes), ""))

    def handle_data(self, data):
        if self.inside:
            attributes, text = self.found[-1]
            self.found[-1] = (attributes, text + data)

    def handle_endtag(self, tag):
        if tag == "a":
            self.inside = False


def anchors(page):
    """Return the links of a page in order, as (attributes, text)."""
    parser = Anchors()
    parser.feed(page.decode("utf-8"))
    parser.close()
    return parser.found


def entries(page):
    """Return the links of a list in order, as (attributes, text).

    Those of the page around it do not count, nor does the way to the page
    of what is not on the list.
    """
    inside = page.split(b"<main")[-1].split(b"</main>")[0]
    return [(attributes, text) for attributes, text in anchors(inside)
            if attributes["href"] != "../withheld/"]


def texts(page):
    """Return the texts of the links of a list, in order."""
    return [text for _, text in entries(page)]


def wait_for(condition, what, seconds=10.0, pause=0.02):
    """Return the first true value of condition(), or fail in the end."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError("not within %s s: %s" % (seconds, what))
        time.sleep(pause)


def listed(app):
    """Return the filenames on all project pages, sorted."""
    names = texts(call(app, "GET", "/simple/").body)
    return sorted(filename for name in names for filename in texts(
        call(app, "GET", "/simple/%s/" % pypi_server.quote(name)).body))


class DirectoryTestCase(unittest.TestCase):
    """Gives each test a package directory of its own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.root = os.path.join(folder.name, "packages")
        os.mkdir(self.root)

    def make_app(self, *roots, **settings):
        """Return an App over the directory, with a cache of its own."""
        settings.setdefault("cache_dir", os.path.join(self.folder, "cache"))
        app = pypi_server.make_app(pypi_server.Config(
            roots=roots or (self.root,), **settings))
        self.addCleanup(app.warmer.stop)
        return app


class SharedTestCase(unittest.TestCase):
    """Gives all tests of a class one directory, filled by fill(root).

    The App over it is in `app`.  Tests may make others with make_app(),
    which find the files settled.
    """

    settings = {}

    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = cls.temporary.name
        cls.root = os.path.join(cls.folder, "packages")
        os.mkdir(cls.root)
        cls.apps = []
        try:
            expected = sorted(cls.fill(cls.root))
            cls.app = cls.make_app(**cls.settings)
            wait_for(lambda: listed(cls.app) == expected,
                     "listed: %r" % expected)
        except BaseException:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls):
        for app in cls.apps:
            app.warmer.stop()
        cls.temporary.cleanup()

    @classmethod
    def make_app(cls, **settings):
        settings.setdefault("roots", (cls.root,))
        settings.setdefault("cache_dir", os.path.join(cls.folder, "cache"))
        app = pypi_server.make_app(pypi_server.Config(**settings))
        cls.apps.append(app)
        return app

    @classmethod
    def fill(cls, root):
        """Make files; return the names of those that will be listed."""
        raise NotImplementedError
