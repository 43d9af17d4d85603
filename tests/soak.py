"""Mixed load with faults for some minutes: `python3 -m tests.soak MINUTES`.

Prints what the server uses, now and then and in the end, when all clients
are gone: neither descriptors nor threads nor memory may have grown.
"""

import contextlib
import os
import random
import socket
import struct
import sys
import tempfile
import threading
import time
from urllib.parse import urlsplit

from tests import archives, forms
from tests.helpers import ServerProcess, ask

PROJECTS = 30
PAUSE = .005  # seconds, after each thing that one client does
SHA = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="  # of "secret"
JOE = forms.credentials("joe", "secret")
RESET = struct.pack("ii", 1, 0)  # for SO_LINGER
BAD = (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02", b"GET /%zz HTTP/1.1\r\n"
       b"Host: a\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:"
       b" chunked\r\n\r\nzz\r\n", b"GET /" + b"x" * 9000, b"\0" * 100)


def usage(process):
    """Return (descriptors, threads, bytes of resident memory)."""
    path = "/proc/%d/" % process.pid
    with open(path + "status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return (len(os.listdir(path + "fd")), int(fields["Threads"]),
            int(fields["VmRSS"].split()[0]) * 1024)


class Load:
    """Clients of all kinds, each a method that a thread calls for ever."""

    def __init__(self, folder, server):
        self.root = os.path.join(folder, "packages")
        self.server = server
        address = urlsplit(server.url)
        self.address = address.hostname, address.port
        self.ending = threading.Event()
        self.statuses = {}   # {what was done: {status: how often}}
        self.lock = threading.Lock()

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
            "/", "/simple/", "/packages/", "/simple/p%d/" % random.randrange(
                2 * PROJECTS), "/pypi/p1/json", "/health", "/a/b/c",
            "/packages/%s.metadata" % self.any_wheel()))
        self.count("page", ask(*self.address, "GET", path).status)

    def downloads(self):
        answer = ask(*self.address, "GET", "/packages/" + self.any_wheel())
        self.count("download", answer.status)

    def aborted_downloads(self):
        with socket.create_connection(self.address, 30) as wire:
            wire.sendall(b"GET /packages/%s HTTP/1.1\r\nHost: a\r\n\r\n"
                         % self.any_wheel().encode())
            wire.recv(random.choice((1, 50000)))
            self.hang_up(wire)
        self.count("aborted download", 0)

    def hang_up(self, wire):
        if random.random() < .5:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def uploads(self):
        number = random.randrange(20)
        name = "up-%d.0-py3-none-any.whl" % number
        headers, body = forms.upload(name, archives.wheel(
            "up", "%d.0" % number, files={"noise": os.urandom(100000)}))
        self.count("upload", ask(*self.address, "POST", "/", dict(
            headers, **JOE), body).status)
        if random.random() < .5:
            headers, body = forms.post([
                (":action", "remove_pkg"), ("name", "up"),
                ("version", "%d.0" % number)])
            self.count("removal", ask(*self.address, "POST", "/", dict(
                headers, **JOE), body).status)

    def aborted_uploads(self):
        headers, body = forms.upload("cut-1.0.tar.gz", bytes(300000))
        fields = dict(headers, Host="a", **JOE)
        fields["Content-Length"] = str(len(body))
        with socket.create_connection(self.address, 30) as wire:
            wire.sendall(("POST / HTTP/1.1\r\n" + "".join(
                "%s: %s\r\n" % pair for pair in fields.items())
                + "\r\n").encode() + body[:random.randrange(len(body))])
            self.hang_up(wire)
        self.count("aborted upload", 0)

    def bad_requests(self):
        with socket.create_connection(self.address, 30) as wire:
            wire.sendall(random.choice(BAD))
            wire.shutdown(socket.SHUT_WR)
            answer = wire.recv(65536)
        self.count("bad request", answer[9:12].decode())

    def bad_logins(self):
        headers, body = forms.upload("x-1.0.tar.gz", b"x")
        self.count("bad login", ask(*self.address, "POST", "/", dict(
            headers, **forms.credentials("joe", str(random.random()))),
            body).status)

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
            except OSError as error:
                self.count("error", type(error).__name__)

    def go_on(self, seconds, report):
        """Let all of them work, and tell how it goes."""
        kinds = (self.pages, self.pages, self.downloads,
                 self.aborted_downloads, self.uploads, self.aborted_uploads,
                 self.bad_requests, self.bad_logins, self.idle, self.files)
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
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.ending.wait(min(seconds / 6, 30))
            report("%4d s: %d descriptors, %d threads, %.1f MB" % (
                (seconds - (ends - time.monotonic()),)
                + usage(self.server.process)[:2]
                + (usage(self.server.process)[2] / 2 ** 20,)))


def soak(seconds, report):
    """Return (usage before, usage after, {what: {status: how often}}, log).

    Before and after: with nothing to do, and all caches filled.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.join(folder, "packages")
        os.mkdir(root)
        users = os.path.join(folder, "users")
        with open(users, "w") as file:
            file.write("joe:%s\n" % SHA)
        with ServerProcess("-P", users, "--disable-fallback",
                           root) as server:
            load = Load(folder, server)
            load.fill()
            Load(folder, server).go_on(min(seconds / 4, 30), lambda line: 0)
            before = settled(server)
            load.go_on(seconds, report)
            after = settled(server)
            server.stop()
            return before, after, load.statuses, server.output


def settled(server):
    """Return the usage when no client is there any more."""
    ends = time.monotonic() + 20
    found = usage(server.process)
    while time.monotonic() < ends:
        time.sleep(.5)
        now = usage(server.process)
        if now[1] <= 4:  # the main thread, the log, the warm-up
            return now
        found = now
    return found


def main():
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    before, after, statuses, log = soak(minutes * 60, print)
    print("before: %d descriptors, %d threads, %d bytes" % before)
    print("after:  %d descriptors, %d threads, %d bytes" % after)
    for what, found in sorted(statuses.items()):
        print("%-16s %s" % (what, found))
    print("%d lines of log, %d tracebacks" % (
        log.count("\n"), log.count("Traceback")))


if __name__ == "__main__":
    main()
