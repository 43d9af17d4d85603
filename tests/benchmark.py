"""What the server costs, beside its peers: `python3 -m tests.benchmark`.

Speed differs between machines and from hour to hour.  So all servers are
measured in one run, in rounds: each round asks every server once, and the
table shows the median of the rounds.  Compare ratios, and only those of one
run.

The peers are the predecessor (pypiserver) and simple-repository-server, which
are installed into the cache of the tests when there is a network, and nginx
where the system has it, which sends the very bytes of this server's answers
as ready-made files.  Load comes from wrk where it is installed.

How cost grows with the files is measured apart, by `--only growth`.
"""

import argparse
import contextlib
import hashlib
import http.client
import os
import re
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
import zipfile
from typing import Callable, NamedTuple, Tuple
from urllib.parse import urljoin, urlsplit

from tests import archives, forms, growth, toolbox
from tests.helpers import ServerProcess, ask
from tests.load import (
    GENERATOR, Request, digits, machine, memory, percentile, print_table,
    rate, settle, show_progress,
)
from tests.processes import Process, free_port

MIB = 1024 ** 2
PROJECTS, FILES = 1000, 5  # wheels of each project; "demo" has ten
LARGE = 256    # MiB of the large wheel
UPLOADS = 100  # small ones
BLOCK = os.urandom(MIB)
HTML = "text/html"
JSON = "application/vnd.pypi.simple.v1+json"
PAGE = "/simple/demo/"
WHEEL = "/packages/" + archives.wheel_filename("demo", "1.0")
BIG = "/packages/large-1.0-py3-none-any.whl"
LOGIN = forms.credentials("joe", "secret")
USERS = "joe:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n"  # "secret"
OURS, WORKERS, LOCKED = "this server", "--workers 2", "with a password"
NGINX, OLD, OTHER = "nginx", "pypiserver", "simple-repository-server"
OPEN = "-a", ".", "-P", "."
NGINX_CONFIGURATION = """
%(user)s daemon off; worker_processes 1; pid nginx.pid; error_log stderr;
events { worker_connections 1024; }
http {
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
  open_file_cache max=10000; open_file_cache_valid 1s; default_type %(html)s;
  client_body_temp_path bodies; proxy_temp_path proxied;
  fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  server {
    listen 127.0.0.1:%(port)d backlog=1024; root site; index index.html;
    gzip_static on;
    location /packages/ { alias %(packages)s/; }
    location /private/ {
      alias site/; auth_basic x; auth_basic_user_file users;
    }
    location = /store {
      client_max_body_size 0; client_body_in_file_only clean;
      proxy_pass http://127.0.0.1:%(port)d/stored;
      proxy_pass_request_body off; proxy_set_header Content-Length "";
    }
    location = /stored { return 200; }
  }
}
"""


class Server(NamedTuple):
    """One that runs, while others are measured as well."""

    port: int
    process: int  # id
    wheel: str = WHEEL  # path of a small wheel of its own


class Measurement(NamedTuple):
    """One line of the table."""

    name: str     # for --only
    text: str
    unit: str
    servers: Tuple[str, ...]
    measure: Callable  # (Bench, name of a server) -> float, or None
    rounds: int = 0    # at most; 0 for no limit


class Bench:
    """The servers, and the files that they serve."""

    def __init__(self, folder, seconds):
        self.folder = folder
        self.seconds = seconds  # of load for each figure
        self.stack = contextlib.ExitStack()
        self.servers = {}
        self.count = 0
        self.missing = []
        self.packages = os.path.join(folder, "packages")
        self.tree = os.path.join(folder, "tree")
        self.users = os.path.join(folder, "users")
        self.nginx = os.path.join(folder, "nginx")

    def prepare(self, names):
        """Make the files, and start these servers."""
        self.make_files()
        with open(self.users, "w") as file:
            file.write(USERS)
        for name, start in STARTS.items():
            if name in names or (name == OURS and NGINX in names):
                try:
                    self.servers[name] = start(self)
                except MissingError as problem:
                    self.missing.append("%s: %s" % (name, problem))

    def make_files(self):
        os.mkdir(self.packages)
        names = [("demo", 10)] + [
            ("project-%04d" % number, FILES) for number in range(PROJECTS)]
        for name, count in names:
            for number in range(count):
                version = "1.%d" % number
                path = archives.put(
                    self.packages, archives.wheel_filename(name, version),
                    archives.wheel(name, version))
                self.link(path, name)
        self.large = large_wheel(self.packages)
        self.link(self.large, "large")

    def link(self, path, project):
        """Put it where servers look that have a directory per project."""
        folder = os.path.join(self.tree, project)
        os.makedirs(folder, exist_ok=True)
        os.link(path, os.path.join(folder, os.path.basename(path)))

    def ours(self, *options, root=None):
        server = self.stack.enter_context(ServerProcess(
            "--disable-fallback", *options + (root or self.packages,)))
        return Server(urlsplit(server.url).port, server.process.pid)

    def other(self, command, port, folder):
        running = self.stack.enter_context(Process(
            [str(part) for part in command], port, folder))
        return Server(port, running.process.pid)

    def fresh_folder(self, name):
        self.count += 1
        path = os.path.join(self.folder, "%s-%d" % (name, self.count))
        os.mkdir(path)
        return path

    def load(self, name, request):
        """Return answers per second; None where a server has no such.

        One that is so slow that it could not answer all connections gets
        fewer: what is left over would slow down who comes next.
        """
        server = self.servers[name]
        headers = dict(request.headers)
        started = time.perf_counter()
        answer = ask("127.0.0.1", server.port, "GET", request.paths[0],
                     headers)
        if answer.status not in (200, 304):
            return None
        most = int(self.seconds / (time.perf_counter() - started))
        return rate(server.port, request._replace(connections=max(
            1, min(request.connections, most))), self.seconds)


class MissingError(Exception):
    """Why a server cannot be measured here."""


def large_wheel(folder):
    """Write a wheel of LARGE MiB; return its path."""
    path = os.path.join(folder, "large-1.0-py3-none-any.whl")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number in range(LARGE // 64):
            archive.writestr("large/%d" % number, BLOCK * 64)
        archive.writestr("large-1.0.dist-info/METADATA",
                         archives.metadata("large", "1.0"))
    return path


# How each server is started


def start_ours(bench):
    server = bench.ours(*OPEN)
    for path in "/simple/", PAGE:  # its digests are made now
        ask("127.0.0.1", server.port, "GET", path)
    return server


def start_workers(bench):
    if not hasattr(os, "fork"):
        raise MissingError("this system has no fork()")
    return bench.ours("--workers", "2", *OPEN)


def start_locked(bench):
    return bench.ours("-a", "download,list,update", "-P", bench.users)


def start_old(bench, root=None):
    program = peer("pypi-server")
    port = free_port()
    return bench.other(
        [program, "run", "-p", port, "-i", "127.0.0.1", "--disable-fallback",
         *OPEN, root or bench.packages], port, bench.folder)


def start_other(bench):
    program = peer("simple-repository-server")
    port = free_port()
    server = bench.other([program, "--host", "127.0.0.1", "--port", port,
                          bench.tree], port, bench.folder)
    page = ask("127.0.0.1", server.port, "GET", PAGE).body.decode()
    link = re.search('href="([^"#]*demo-1.0-[^"#]*)', page).group(1)
    return server._replace(wheel=urlsplit(urljoin(PAGE, link)).path)


def peer(program):
    """Return the path of a peer; install it when it is not there."""
    if not toolbox.command(toolbox.PEERS):
        with toolbox.locked():
            problem = toolbox.attempt(toolbox.install, toolbox.PEERS)
        if problem:
            raise MissingError(problem)
    return toolbox.command(toolbox.PEERS, program)


def start_nginx(bench):
    """Let nginx send what this server answers, from ready-made files."""
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if not program:
        raise MissingError("it is not installed")
    os.mkdir(bench.nginx)
    port = bench.servers[OURS].port
    for folder, accept in ("simple", HTML), ("json", JSON):
        for path in "", "demo/":
            where = os.path.join(bench.nginx, "site", folder, path)
            os.makedirs(where, exist_ok=True)
            for name, coding in ("index.html", "identity"), (
                    "index.html.gz", "gzip"):
                with open(os.path.join(where, name), "wb") as file:
                    file.write(ask(
                        "127.0.0.1", port, "GET", "/simple/" + path, {
                            "Accept": accept,
                            "Accept-Encoding": coding}).body)
    shutil.copy(bench.users, bench.nginx)
    port = free_port()
    path = os.path.join(bench.nginx, "nginx.conf")
    with open(path, "w") as file:
        file.write(NGINX_CONFIGURATION.replace("alias site/", "alias %s/site/"
                                               % bench.nginx) % {
            "port": port, "packages": bench.packages, "html": HTML,
            "user": "user root;" if os.getuid() == 0 else ""})
    return bench.other([program, "-c", path, "-p", bench.nginx], port,
                       bench.folder)


STARTS = {OURS: start_ours, WORKERS: start_workers, LOCKED: start_locked,
          NGINX: start_nginx, OLD: start_old, OTHER: start_other}


# What is measured


def requests(path, connections, *headers):
    """Return what measures how often a path is answered."""
    def measure(bench, name):
        return bench.load(name, Request(
            (path,), connections, (("Accept", HTML),) + headers))
    return measure


def slow_pages(bench, name):
    """Return the milliseconds of the slowest of 100 answers."""
    return percentile(bench.servers[name].port, Request(
        (PAGE,), 32, (("Accept", HTML),)), bench.seconds)


def json_pages(connections):
    def measure(bench, name):
        return bench.load(name, Request(
            ("/json/demo/" if name == NGINX else PAGE,), connections,
            (("Accept", JSON),)))
    return measure


def wheels(connections):
    def measure(bench, name):
        return bench.load(name, Request(
            (bench.servers[name].wheel,), connections))
    return measure


def not_modified(bench, name):
    etag = ask("127.0.0.1", bench.servers[name].port, "GET", PAGE,
               {"Accept": HTML}).headers["etag"]
    return bench.load(name, Request((PAGE,), 32, (
        ("Accept", HTML), ("If-None-Match", etag))))


def locked_pages(bench, name):
    path = "/private" + PAGE if name == NGINX else PAGE
    return bench.load(name, Request((path,), 32, (
        ("Accept", HTML),) + tuple(LOGIN.items())))


def download(readers):
    """Return what measures MiB/s of a large file."""
    def measure(bench, name):
        port = bench.servers[name].port
        started = time.perf_counter()
        threads = [threading.Thread(target=discard, args=(port, BIG))
                   for _ in range(readers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return readers * LARGE / (time.perf_counter() - started)
    return measure


def discard(port, path):
    """Get a file, and let the system throw it away unread."""
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        client.sendall(b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                       b"\r\n" % path.encode())
        block = bytearray(MIB)
        flag = socket.MSG_TRUNC if sys.platform == "linux" else 0
        while client.recv_into(block, MIB, flag):
            pass


def measure_start(bench, name):
    """Seconds until the first project list, with nothing cached."""
    with contextlib.ExitStack() as stack:
        aside, bench.stack = bench.stack, stack
        try:
            started = time.perf_counter()
            server = {OURS: lambda: bench.ours(*OPEN),
                      OLD: lambda: start_old(bench),
                      OTHER: lambda: start_other(bench)}[name]()
            ask("127.0.0.1", server.port, "GET", "/simple/")
            return time.perf_counter() - started
        finally:
            bench.stack = aside


def measure_memory(bench, name):
    return memory(bench.servers[name].process)


def upload_server(bench, name):
    """Start one that takes uploads into a directory of some files."""
    root = bench.fresh_folder("uploads")
    names = sorted(os.listdir(bench.packages))
    for filename in [name for name in names if "large" not in name][:500]:
        os.link(os.path.join(bench.packages, filename),
                os.path.join(root, filename))
    server = bench.ours(*OPEN, root=root) if name == OURS \
        else start_old(bench, root)
    settle([server.process])
    return server


def measure_upload(bench, name):
    """MiB/s of a large wheel, from the first byte to the answer."""
    with contextlib.ExitStack() as stack:
        aside, bench.stack = bench.stack, stack
        try:
            if name == NGINX:
                return upload(bench.servers[name].port, "/store",
                              bench.large)[0]
            return upload(upload_server(bench, name).port, "/",
                          bench.large)[0]
        finally:
            bench.stack = aside


def measure_upload_memory(bench, name):
    """MiB that the upload of a large wheel adds at its peak."""
    with contextlib.ExitStack() as stack:
        aside, bench.stack = bench.stack, stack
        try:
            server = upload_server(bench, name)
            # The peak until now belongs to the start.
            with contextlib.suppress(OSError):
                with open("/proc/%d/clear_refs" % server.process, "w") as file:
                    file.write("5")
            before = memory(server.process)
            upload(server.port, "/", bench.large)
            peak = memory(server.process, "VmHWM")
            return peak - before if before else None
        finally:
            bench.stack = aside


def upload(port, target, path):
    """Upload a file as clients do, in pieces; return (MiB/s, status)."""
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    headers, body = forms.upload(
        os.path.basename(path), b"\0", sha256_digest=digest)
    head, _, tail = body.partition(b"\0")
    size = os.path.getsize(path)
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    with contextlib.closing(client):
        started = time.perf_counter()
        client.putrequest("POST", target)
        client.putheader("Content-Length", str(len(head) + size + len(tail)))
        for pair in headers.items():
            client.putheader(*pair)
        client.endheaders(head)
        with open(path, "rb") as file:
            client.sock.sendfile(file)
        client.send(tail)
        response = client.getresponse()
        response.read()
        seconds = time.perf_counter() - started
    if response.status != 200:
        raise AssertionError("upload: status %d" % response.status)
    return size / MIB / seconds, response.status


def measure_small_uploads(bench, name):
    """Uploads per second, eight at a time."""
    with contextlib.ExitStack() as stack:
        aside, bench.stack = bench.stack, stack
        try:
            port = upload_server(bench, name).port
        finally:
            bench.stack = aside
        messages = [forms.upload(
            archives.wheel_filename("small-%d" % number, "1.0"),
            archives.wheel("small-%d" % number, "1.0"))
            for number in range(UPLOADS)]
        failed = []

        def run():
            while messages:
                try:
                    headers, body = messages.pop()
                except IndexError:
                    return
                status = ask("127.0.0.1", port, "POST", "/", headers,
                             body).status
                if status != 200:
                    failed.append(status)
        started = time.perf_counter()
        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - started
        if failed:
            raise AssertionError("uploads: status %r" % failed[:3])
        return UPLOADS / seconds


EVERY = OURS, NGINX, OLD, OTHER
GZIP = "Accept-Encoding", "gzip"
MEASUREMENTS = (
    Measurement("page-1", "project page, 1 connection", "1/s",
                EVERY, requests(PAGE, 1)),
    Measurement("page-32", "project page, 32 connections", "1/s",
                EVERY, requests(PAGE, 32)),
    Measurement("slow-32", "time that 99 of 100 of those take at the most",
                "ms", (OURS, NGINX), slow_pages),
    Measurement("workers-32", "the same, with --workers 2", "1/s",
                (WORKERS,), requests(PAGE, 32)),
    Measurement("json-1", "JSON page, 1 connection", "1/s",
                (OURS, NGINX, OTHER), json_pages(1)),
    Measurement("json-32", "JSON page, 32 connections", "1/s",
                (OURS, NGINX, OTHER), json_pages(32)),
    Measurement("304-32", "page not modified (304), 32 connections", "1/s",
                (OURS, NGINX), not_modified),
    Measurement("gzip-32", "page with gzip, 32 connections", "1/s",
                (OURS, NGINX), requests(PAGE, 32, GZIP)),
    Measurement("password-32", "page with a password, 32 connections", "1/s",
                (LOCKED, NGINX), locked_pages),
    Measurement("list-1", "project list, 1 connection", "1/s",
                EVERY, requests("/simple/", 1)),
    Measurement("list-32", "project list, 32 connections", "1/s",
                EVERY, requests("/simple/", 32)),
    Measurement("wheel-1", "small wheel, 1 connection", "1/s",
                EVERY, wheels(1)),
    Measurement("wheel-32", "small wheel, 32 connections", "1/s",
                EVERY, wheels(32)),
    Measurement("large-1", "wheel of %d MiB, 1 reader" % LARGE, "MiB/s",
                (OURS, NGINX, OLD), download(1)),
    Measurement("large-8", "wheel of %d MiB, 8 readers" % LARGE, "MiB/s",
                (OURS, NGINX, OLD), download(8)),
    Measurement("start", "start until the first project list", "s",
                (OURS, OLD, OTHER), measure_start, 2),
    Measurement("memory", "memory after all this", "MiB",
                EVERY, measure_memory, 1),
    Measurement("upload", "upload of %d MiB" % LARGE, "MiB/s",
                (OURS, NGINX, OLD), measure_upload, 2),
    Measurement("upload-memory", "memory that it adds at its peak", "MiB",
                (OURS, OLD), measure_upload_memory, 1),
    Measurement("uploads", "small uploads, 8 at a time", "1/s",
                (OURS, OLD), measure_small_uploads, 2),
)


def run(bench, chosen, rounds):
    """Return {name: {server: median}}, measured in rounds."""
    found = {each.name: {} for each in chosen}
    for number in range(rounds):
        for each in chosen:
            if each.rounds and number < rounds - each.rounds:
                continue
            servers = [name for name in each.servers if name in bench.servers]
            # No server is always the first, or always after the same one.
            turn = number % len(servers) if servers else 0
            for name in servers[turn:] + servers[:turn]:
                show_progress("round %d of %d: %s, %s" % (
                    number + 1, rounds, each.text, name))
                value = each.measure(bench, name)
                if value is not None:
                    found[each.name].setdefault(name, []).append(value)
    show_progress("")
    return {name: {server: statistics.median(values)
                   for server, values in each.items()}
            for name, each in found.items()}


def rows(chosen, found):
    """Return the cells of the table; a ratio above 1 is in our favour."""
    yield ("", "unit", OURS, NGINX, OLD, OTHER, "x nginx", "x best peer")
    for each in chosen:
        values = found[each.name]
        if each.servers == (WORKERS,):  # compared with its own kind
            values = dict(found.get("page-32", {}), **values)
        ours = values.get(each.servers[0])
        peers = [values[name] for name in (OLD, OTHER) if name in values]
        is_less_better = each.unit in ("s", "ms", "MiB")
        best = (min if is_less_better else max)(peers) if peers else None

        def ratio(other, ours=ours, is_less_better=is_less_better):
            if not ours or not other:
                return ""
            return digits(other / ours if is_less_better else ours / other)
        yield (each.text, each.unit, digits(ours)) + tuple(
            digits(values.get(name)) for name in (NGINX, OLD, OTHER)) + (
                ratio(values.get(NGINX)), ratio(best))


def names():
    """Yield what can be asked for: (name, text)."""
    for each in MEASUREMENTS:
        yield each.name, each.text
    yield growth.NAME, growth.TEXT


def compare(chosen, options):
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder, options.seconds)
        with bench.stack:
            show_progress("making %d files, starting the servers"
                          % (PROJECTS * FILES))
            bench.prepare({name for each in chosen for name in each.servers})
            settle([each.process for each in bench.servers.values()])
            found = run(bench, chosen, options.rounds)
    print("%d projects, %d files; median of %d rounds of %d s; load from %s"
          % (PROJECTS + 2, PROJECTS * FILES + 11, options.rounds,
             options.seconds, GENERATOR))
    for text in bench.missing:
        print("not measured: " + text)
    print()
    print_table(rows(chosen, found))


def main():
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.benchmark",
        description="Measure this server beside its peers.")
    parser.add_argument("--list", action="store_true",
                        help="list the names of the measurements")
    parser.add_argument("--only", metavar="NAME", action="append",
                        choices=[name for name, _ in names()],
                        help="measure this alone; may be repeated")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--seconds", type=int, default=1, metavar="N",
                        help="of load for each figure")
    options = parser.parse_args()
    if options.list:
        for pair in names():
            print("%-14s %s" % pair)
        return 0
    chosen = [each for each in MEASUREMENTS
              if not options.only or each.name in options.only]
    print(machine())
    if chosen:
        compare(chosen, options)
    if growth.NAME in (options.only or ()):
        growth.run(growth.SIZES, options.seconds, growth.PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
