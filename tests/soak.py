"""Mixed load with faults for some minutes: `python3 -m tests.soak MINUTES`.

Prints what the server uses, now and then and in the end, when all clients
are gone: neither descriptors nor threads nor memory may have grown, and there
were never more threads than connections are allowed.
"""

import argparse
import contextlib
import http.client
import os
import random
import socket
import ssl
import struct
import tempfile
import threading
import time
from urllib.parse import urlsplit

import pypi_server
from tests import archives, forms
from tests.certificates import Authority
from tests.helpers import ServerProcess

PROJECTS = 30
NAMES = 6000          # of other projects: a page that no socket holds
CONNECTIONS = 60      # that a worker may have
# Threads of a process besides: of the server, its log and what it reads ahead;
# and of connections that were ended for others, but have not noticed.
OTHERS = 20
PAUSE = .005  # seconds, after each thing that one client does
SHA = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="  # of "secret"
JOE = forms.credentials("joe", "secret")
RESET = struct.pack("ii", 1, 0)  # for SO_LINGER
BAD = (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02", b"GET /%zz HTTP/1.1\r\n"
       b"Host: a\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:"
       b" chunked\r\n\r\nzz\r\n", b"GET /" + b"x" * 9000, b"\0" * 100)


def processes(process):
    """Return the ids of a process and of its children."""
    with open("/proc/%d/task/%d/children" % (process.pid, process.pid)
              ) as file:
        return [process.pid] + list(map(int, file.read().split()))


def usage(process):
    """Return (descriptors, threads, bytes of resident memory) of a server
    with its workers.
    """
    found = [0, 0, 0]
    for each in processes(process):
        path = "/proc/%d/" % each
        with open(path + "status") as file:
            fields = dict(line.split(":", 1) for line in file)
        found[0] += len(os.listdir(path + "fd"))
        found[1] += int(fields["Threads"])
        # A worker that has just ended has none.
        found[2] += int(fields.get("VmRSS", "0").split()[0]) * 1024
    return tuple(found)


class Load:
    """Clients of all kinds, each a method that a thread calls for ever."""

    def __init__(self, folder, server):
        self.root = os.path.join(folder, "packages")
        self.server = server
        address = urlsplit(server.url)
        self.address = address.hostname, address.port
        self.context = None
        if address.scheme == "https":
            self.context = ssl.create_default_context()
            self.context.check_hostname = False
            self.context.verify_mode = ssl.CERT_NONE
        self.ending = threading.Event()
        self.statuses = {}   # {what was done: {status: how often}}
        self.threads = 0     # the most that there were
        self.lock = threading.Lock()

    def connect(self, buffer=0):
        """Return a socket, with TLS if the server has that."""
        wire = socket.socket()
        try:
            wire.settimeout(30)
            if buffer:
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            wire.connect(self.address)
            return self.context.wrap_socket(wire) if self.context else wire
        except BaseException:
            wire.close()
            raise

    def ask(self, method, path, headers=None, body=None):
        """Return the status of an answer."""
        client = http.client.HTTPConnection(*self.address, timeout=30) \
            if self.context is None else http.client.HTTPSConnection(
                *self.address, timeout=30, context=self.context)
        with contextlib.closing(client):
            client.request(method, path, body, headers or {})
            answer = client.getresponse()
            answer.read()
            return answer.status

    def fill(self):
        for number in range(PROJECTS):
            archives.put(self.root, "p%d-1.0-py3-none-any.whl" % number,
                         archives.wheel("p%d" % number, "1.0", files={
                             "noise": os.urandom(300000)}))

    def count(self, what, status):
        with self.lock:
            found = self.statuses.setdefault(what, {})
            found[status] = found.get(status, 0) + 1

    def any_wheel(self):
        return "p%d-1.0-py3-none-any.whl" % random.randrange(PROJECTS)

    def pages(self):
        path = random.choice((
            "/", "/search/", "/packages/", "/pypi/p1/json",
            "/health", "/a/b/c",
            "/simple/p%d/" % random.randrange(2 * PROJECTS),
            "/packages/%s.metadata" % self.any_wheel()))
        self.count("page", self.ask("GET", path))

    def hosts(self):
        """Many names for one page, on one connection."""
        with self.connect() as wire:
            for _ in range(100):
                host = "h%d" % random.getrandbits(64) + "x" * (
                    7900 if random.random() < .02 else 200)
                wire.sendall((
                    "GET /withheld/?format=application/json&page=%d HTTP/1.1"
                    "\r\nHost: %s\r\n\r\n" % (random.getrandbits(29), host)
                    ).encode())
                status = wire.recv(65536)[9:12].decode()
                self.count("other host", status)
                if status != "200":
                    return

    def slow_readers(self):
        """They ask for what others get at once too, and do not read it."""
        with contextlib.ExitStack() as wires:
            for _ in range(10):
                wire = wires.enter_context(self.connect(2048))
                wire.sendall(b"GET /simple/ HTTP/1.1\r\nHost: a\r\n\r\n")
                self.count("slow reader", wire.recv(12)[9:].decode())
            self.ending.wait(random.random())

    def trickle(self):
        """Bodies and heads that come byte by byte, of nobody."""
        with self.connect() as wire:
            wire.sendall(random.choice((
                b"POST /RPC2 HTTP/1.1\r\nHost: a\r\nContent-Type: text/xml"
                b"\r\nContent-Length: 60000\r\n\r\n",
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000"
                b"\r\n\r\n", b"GET / HTTP/1.1\r\n", BAD[0])))
            for _ in range(random.randrange(20)):
                self.ending.wait(.1)
                wire.sendall(b"a" * 60)
        self.count("trickle", 0)

    def downloads(self):
        self.count("download", self.ask(
            "GET", "/packages/" + self.any_wheel()))

    def aborted_downloads(self):
        with self.connect() as wire:
            wire.sendall(b"GET /packages/%s HTTP/1.1\r\nHost: a\r\n\r\n"
                         % self.any_wheel().encode())
            wire.recv(random.choice((1, 50000)))
            self.hang_up(wire)
        self.count("aborted download", 0)

    def hang_up(self, wire):
        if random.random() < .5:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def uploads(self):
        """New, or others in place of those that are there."""
        project = "up%d" % random.randrange(20)
        name = project + "-1.0-py3-none-any.whl"
        headers, body = forms.upload(name, archives.wheel(
            project, "1.0", files={"noise": os.urandom(100000)}))
        self.count("upload", self.ask(
            "POST", "/", dict(headers, **JOE), body))
        self.count("page", self.ask("GET", "/project/%s/" % project))
        if random.random() < .5:
            headers, body = forms.post([
                (":action", "remove_pkg"), ("name", project),
                ("version", "1.0")])
            self.count("removal", self.ask(
                "POST", "/", dict(headers, **JOE), body))

    def aborted_uploads(self):
        headers, body = forms.upload("cut-1.0.tar.gz", bytes(300000))
        fields = dict(headers, Host="a", **JOE)
        fields["Content-Length"] = str(len(body))
        with self.connect() as wire:
            wire.sendall(("POST / HTTP/1.1\r\n" + "".join(
                "%s: %s\r\n" % pair for pair in fields.items())
                + "\r\n").encode() + body[:random.randrange(len(body))])
            self.hang_up(wire)
        self.count("aborted upload", 0)

    def bad_requests(self):
        with self.connect() as wire:
            wire.sendall(random.choice(BAD))
            if not self.context:
                wire.shutdown(socket.SHUT_WR)
            answer = wire.recv(65536)
        self.count("bad request", answer[9:12].decode())

    def bad_logins(self):
        headers, body = forms.upload("x-1.0.tar.gz", b"x")
        self.count("bad login", self.ask("POST", "/", dict(
            headers, **forms.credentials("joe", str(random.random()))),
            body))

    def idle(self):
        with contextlib.ExitStack() as wires:
            for _ in range(20):
                wires.enter_context(
                    socket.create_connection(self.address, 30))
            self.ending.wait(1)

    def files(self):
        """Files come, are replaced, broken, made unreadable, and go."""
        name = self.any_wheel().replace(
            "-1.0", "-1.%d" % random.randrange(1, 9))
        project = name.partition("-")[0]
        data = archives.wheel(project, name.split("-")[1], files={
            "noise": os.urandom(1000)})
        path = archives.put(self.root, name, random.choice(
            (data, data[:-9], b"")), random.choice((0, 60)))
        os.chmod(path, random.choice((0o644, 0)))
        self.ending.wait(.05)
        if random.random() < .9:
            os.unlink(path)
        self.count("file", 0)

    def run(self, method):
        while not self.ending.is_set():
            try:
                method()
                self.ending.wait(PAUSE)
            except (OSError, http.client.HTTPException) as error:
                self.count("error", type(error).__name__)

    def go_on(self, seconds, report):
        """Let all of them work, and tell how it goes."""
        kinds = (self.pages, self.pages, self.downloads,
                 self.aborted_downloads, self.uploads, self.aborted_uploads,
                 self.bad_requests, self.bad_logins, self.idle, self.files,
                 self.hosts, self.slow_readers, self.slow_readers,
                 self.trickle, self.trickle)
        threads = [threading.Thread(target=self.run, args=(kind,))
                   for kind in kinds]
        for thread in threads:
            thread.start()
        try:
            self.watch(seconds, report)
        finally:
            self.ending.set()
            for thread in threads:
                thread.join()

    def watch(self, seconds, report):
        begun = told = time.monotonic()
        while time.monotonic() < begun + seconds:
            self.ending.wait(0.1)
            descriptors, threads, memory = usage(self.server.process)
            self.threads = max(threads, self.threads)
            if time.monotonic() > told + min(seconds / 6, 30):
                told = time.monotonic()
                report("%4d s: %d descriptors, %d threads, %.1f MB" % (
                    told - begun, descriptors, threads, memory / 2 ** 20))


def soak(seconds, report, workers=1, is_secured=False):
    """Return (usage before, usage after, most threads, {what: {status: how
    often}}, log).

    Before and after: with nothing to do, and all caches filled.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.join(folder, "packages")
        os.mkdir(root)
        users = os.path.join(folder, "users")
        with open(users, "w") as file:
            file.write("joe:%s\n" % SHA)
        for number in range(NAMES):
            archives.put(root, "%s%d-1.0.tar.gz" % ("x" * 230, number),
                         forms.once(archives.sdist, "x", "1.0"))
        options = ("-P", users, "--disable-fallback", "--overwrite",
                   "--workers", str(workers),
                   "--max-connections", str(CONNECTIONS))
        if is_secured:
            certificate, key = Authority(folder).certify("server")
            options += "--tls-cert", certificate, "--tls-key", key
        with ServerProcess(*options + (root,)) as server:
            load = Load(folder, server)
            load.fill()
            Load(folder, server).go_on(min(seconds / 4, 30), lambda line: 0)
            before = settled(server)
            load.go_on(seconds, report)
            after = settled(server)
            server.stop()
            return (before, after, load.threads, load.statuses,
                    server.output)


def settled(server):
    """Return the usage when no client is there any more.

    By then the server has given back what it needed for the clients only.
    """
    begins = time.monotonic() + pypi_server.GIVE_BACK_INTERVAL + 2
    ends = begins + 20
    found = usage(server.process)
    while time.monotonic() < ends:
        time.sleep(.5)
        now = usage(server.process)
        # The main thread, the log, the warm-up, and what waits for signals.
        if now[1] <= 4 * len(processes(server.process)) \
                and time.monotonic() > begins:
            return now
        found = now
    return found


def most_threads(workers=1):
    """Return how many threads there may be at any time."""
    return workers * (CONNECTIONS + OTHERS) + (workers > 1) * OTHERS


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("minutes", type=float, nargs="?", default=10)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    before, after, threads, statuses, log = soak(
        options.minutes * 60, print, options.workers, options.tls)
    print("before: %d descriptors, %d threads, %d bytes" % before)
    print("after:  %d descriptors, %d threads, %d bytes" % after)
    print("%d threads at the most; %d are allowed" % (
        threads, most_threads(options.workers)))
    for what, found in sorted(statuses.items()):
        print("%-16s %s" % (what, found))
    print("%d lines of log, %d tracebacks" % (
        log.count("\n"), log.count("Traceback")))


if __name__ == "__main__":
    main()
