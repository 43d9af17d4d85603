"""An index that does what a test tells it to, and counts who connects."""

import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler

import pypi_server
from tests import archives

JSON = "application/vnd.pypi.simple.v1+json"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes

    def setup(self):
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def do_GET(self):
        with self.server.lock:
            self.server.requests.append((self.path, {
                name.lower(): text for name, text in self.headers.items()}))
        answer = self.server.answers.get(self.path)
        if callable(answer):
            answer = answer(self)
        if answer is None:
            answer = 404, {}, b""
        if answer == "drop":
            self.close_connection = True
            return
        status, headers, body = answer
        self.send_response(status)
        self.send_header("Content-Length", headers.pop(
            "Content-Length", str(len(body))) if headers else str(len(body)))
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Upstream(pypi_server.ThreadingHTTPServer):
    """Answers GET with what `answers` has for the path, else with 404.

    Its list of projects is there from the start, and empty.

    An answer is (status, headers, body), "drop", or a function of the
    handler that returns one of these.  Use it in a `with` statement.
    """

    daemon_threads = True
    request_queue_size = 100

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = {"/simple/": (
            200, {"Content-Type": JSON}, b'{"projects": []}')}
        self.requests = []   # (path, headers)
        self.connections = 0
        self.lock = threading.Lock()
        self.url = "http://127.0.0.1:%d/simple/" % self.server_address[1]

    def __enter__(self):
        # Poll often: shutdown() waits for the poll, 0.5 s by default.
        self.thread = threading.Thread(target=self.serve_forever,
                                       args=(0.01,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.shutdown()
        self.thread.join()
        self.server_close()

    def handle_error(self, request, client_address):
        """Clients may go away."""

    def asked(self):
        """Return the paths that were asked for, sorted."""
        return sorted(path for path, _ in self.requests)

    def has(self, project, *filenames, **more):
        """Answer for a project with these files, which are all empty."""
        self.answers["/simple/%s/" % project] = detail(project, [
            dict({"filename": filename, "url": "../../" + filename,
                  "hashes": {"sha256": "0" * 64}}, **more)
            for filename in filenames])


def detail(project, files):
    """Return the answer with the JSON of a project."""
    return 200, {"Content-Type": JSON}, json.dumps({
        "meta": {"api-version": "1.0"}, "name": project,
        "files": files}).encode()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def empty(directory, *filenames):
    """Make empty files; `update` looks at names only."""
    for filename in filenames:
        archives.put(directory, filename, b"")


def isolated(home, **more):
    """Return an environment without settings of pip and without proxies."""
    kept = {name: text for name, text in os.environ.items()
            if not name.upper().startswith("PIP_")
            and not name.lower().endswith("_proxy")}
    kept.update({
        "HOME": home, "XDG_CACHE_HOME": home, "XDG_CONFIG_HOME": home,
        "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_RETRIES": "0",
        "PYTHONIOENCODING": "utf-8"})
    kept.update(more)
    return kept
