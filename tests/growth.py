"""How cost grows with the files: `python3 -m tests.benchmark --only growth`.

One directory grows from size to size; each time a server starts on it with
nothing cached.  What the system has cached of the files stays: they have just
been written.  Every file is a whole wheel of its own, with the metadata that
its name tells, ten for each project.
"""

import contextlib
import hashlib
import json
import os
import random
import socket
import statistics
import tempfile
import threading
import time
from typing import NamedTuple, Optional
from urllib.parse import urlsplit

from tests import archives, plot
from tests.helpers import ServerProcess, ask, wait_for
from tests.load import (
    GENERATOR, Request, digits, machine, memory, print_table, rate, receive,
    settle, show_progress,
)

NAME = "growth"
TEXT = "how cost grows with the files; measured only when it is named"
PICTURE = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                       "growth.svg")
SIZES = 1000, 10000, 100000, 300000  # files
EACH = 10       # files of a project
PATIENCE = 600  # seconds; whoever reads ahead for longer is not waited for
ROUNDS = 3      # of load
DROPPED = 5     # new files, one after the other
HTML = (("Accept", "text/html"),)
JSON = {"Accept": "application/vnd.pypi.simple.v1+json"}


class Figures(NamedTuple):
    """What was measured with so many files."""

    files: int
    start: float    # seconds until the first project list
    page: float     # seconds until the first page with all digests
    memory: Optional[float]  # MiB after that
    ahead: Optional[float]   # seconds until all was read ahead
    read: Optional[float]    # MiB then
    same: Optional[float]   # answers per second, one page again and again
    other: Optional[float]  # the same, pages of all projects
    listed: float   # seconds until a new file is listed
    p99: float      # milliseconds of other requests meanwhile


COLUMNS = (
    ("files", "files"), ("first list, s", "start"),
    ("first page, s", "page"), ("memory, MiB", "memory"),
    ("all read ahead, s", "ahead"), ("memory then, MiB", "read"),
    ("the same page, 1/s", "same"), ("pages of all projects, 1/s", "other"),
    ("a new file is listed, s", "listed"),
    ("p99 of others meanwhile, ms", "p99"))


def run(sizes, seconds, picture):
    """Measure, print a table, and write a picture of it."""
    machine_before = machine()
    with tempfile.TemporaryDirectory() as root:
        found = []
        for size in sizes:
            fill(root, found[-1].files if found else 0, size)
            found.append(measure(root, size, seconds))
    show_progress("")
    print_table([[head for head, _ in COLUMNS]] + [
        [str(each.files)] + [
            digits(getattr(each, field)) for _, field in COLUMNS[1:]]
        for each in found])
    print("load on 1 connection from " + GENERATOR)
    with open(picture, "w", encoding="utf-8") as file:
        file.write(draw(found, machine_before))
    print("written: " + picture)


def fill(root, have, want):
    """Let a directory grow to so many files."""
    for number in range(have, want):
        if number % 1000 == 0:
            show_progress("making %d files: %d" % (want, number))
        put(root, project(number // EACH), "1.%d" % (number % EACH))
    if hasattr(os, "sync"):
        os.sync()  # else the disk is busy with them in what follows
    time.sleep(2)  # the server waits for files that are younger


def project(number):
    return "project-%05d" % number


def put(root, name, version, age=60):
    return archives.put(root, archives.wheel_filename(name, version),
                        archives.wheel(name, version), age)


def measure(root, files, seconds):
    """Start a server with nothing cached, and ask it all there is."""
    names = [project(number) for number in range(files // EACH)]
    middle = names[len(names) // 2]
    wanted = digests(root, middle)
    show_progress("%d files: start" % files)
    started = time.perf_counter()
    with ServerProcess("--disable-fallback", "-a", ".", "-P", ".",
                       root) as server:
        process, port = server.process.pid, urlsplit(server.url).port
        wait_for(lambda: server.get("simple/").status == 200, "a list")
        start = time.perf_counter() - started
        wait_for(lambda: listed(port, middle) == wanted, "a page")
        page = time.perf_counter() - started
        before = memory(process)
        show_progress("%d files: reading ahead" % files)
        # It begins a second after the start.
        done = settle([process], PATIENCE, idle=3)
        ahead = done and done - started
        after = memory(process)
        show_progress("%d files: pages" % files)
        paths = ["/simple/%s/" % name for name in names]
        random.Random(files).shuffle(paths)
        same, other = rates(port, (("/simple/%s/" % middle,), tuple(paths)),
                            seconds)
        show_progress("%d files: new files" % files)
        seen, p99 = drop(root, port, paths)
    return Figures(files, start, page, before, ahead, after, same, other,
                   seen, p99)


def rates(port, kinds, seconds):
    """Return the median of answers per second for each kind of paths.

    They take turns: another program may be busy for a while.
    """
    rounds = [[rate(port, Request(paths, 1, HTML), seconds)
               for paths in kinds] for _ in range(ROUNDS)]
    return [None if None in found else statistics.median(found)
            for found in zip(*rounds)]


def digests(root, name):
    """Return {filename: SHA-256} of the files of a project."""
    found = {}
    for number in range(EACH):
        filename = archives.wheel_filename(name, "1.%d" % number)
        with open(os.path.join(root, filename), "rb") as file:
            found[filename] = hashlib.sha256(file.read()).hexdigest()
    return found


def listed(port, name):
    """Return the same as the server tells it, {} where it has none."""
    answer = ask("127.0.0.1", port, "GET", "/simple/%s/" % name, JSON)
    if answer.status != 200:
        return {}
    return {file["filename"]: file["hashes"].get("sha256")
            for file in json.loads(answer.body.decode())["files"]}


def drop(root, port, paths):
    """Copy new files there, one after the other, and remove them.

    Returns:
        (median of the seconds until each was listed,
        milliseconds in which 99 % of other requests meanwhile were answered)
    """
    seconds, waits, made = [], [], []
    try:
        for number in range(DROPPED):
            with asking(port, paths) as times:
                started = time.perf_counter()
                name = "new-%d" % number
                made.append(put(root, name, "1.0", age=0))
                wait_for(lambda: listed(port, name), "it is listed", 60)
                seconds.append(time.perf_counter() - started)
            waits += times
    finally:
        for path in made:
            os.remove(path)
    waits.sort()
    return statistics.median(seconds), 1000 * waits[int(0.99 * len(waits))]


@contextlib.contextmanager
def asking(port, paths):
    """Ask for one page after the other; yield a list of the seconds."""
    times, done = [], threading.Event()

    def ask_on():
        with socket.create_connection(("127.0.0.1", port), 60) as client:
            # At least once.
            while not (times and done.is_set()):
                path = paths[len(times) % len(paths)]
                started = time.perf_counter()
                client.sendall(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"
                               % path.encode())
                if receive(client) != 200:
                    raise AssertionError("no page: " + path)
                times.append(time.perf_counter() - started)
                done.wait(0.002)
    thread = threading.Thread(target=ask_on)
    thread.start()
    try:
        yield times
    finally:
        done.set()
        thread.join()


def draw(found, where):
    """Return a picture of the figures, as SVG."""
    def line(label, field):
        return label, tuple(getattr(each, field) for each in found)

    def panel(title, *lines, logarithmic=False):
        # Where there is no /proc, there is no memory.
        return plot.Panel(title, tuple(
            each for each in lines if None not in each[1]), logarithmic)
    panels = (
        panel("Project pages per second, 1 connection",
              line("the same again", "same"),
              line("of all projects", "other"), logarithmic=True),
        panel("Start with nothing cached, seconds",
              line("first page with digests", "page"),
              line("project list", "start")),
        panel("Memory, MiB", line("all read ahead", "read"),
              line("after the start", "memory")),
        panel("A new file, milliseconds",
              ("until it is listed",
               tuple(1000 * each.listed for each in found)),
              line("p99 of other requests", "p99"), logarithmic=True))
    return plot.svg(
        "What it costs to serve %s files" % ", ".join(
            plot.short(each.files) for each in found),
        [each.files for each in found],
        [each for each in panels if each.lines],
        ("Over the number of files in one directory, %d for each project; "
         "measured once, not promised." % EACH, where))
