"""Load on a server, what that costs it, and how figures are shown."""

import contextlib
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import NamedTuple, Tuple

WRK = shutil.which("wrk")
GENERATOR = "wrk" if WRK else "Python, since wrk is not installed: it is " \
    "slower than what it measures"
# For wrk: the paths of a file, one after the other, again and again.
IN_TURN = """
local paths, at = {}, 0
for line in io.lines("%s") do paths[#paths + 1] = line end
request = function()
  at = at %% #paths + 1
  return wrk.format(nil, paths[at])
end
"""


class Request(NamedTuple):
    """What the load generator sends again and again."""

    paths: Tuple[str, ...]  # in turn
    connections: int
    headers: Tuple[Tuple[str, str], ...] = ()


def rate(port, request, seconds):
    """Return answers per second; None when some are errors."""
    return (load_with_wrk if WRK else load_with_python)(
        port, request, seconds)


def load_with_wrk(port, request, seconds):
    return float(re.search(
        r"Requests/sec: *([\d.]+)|$",
        run_wrk(port, request, seconds)).group(1) or 0) or None


def percentile(port, request, seconds):
    """Return the milliseconds that 99 of 100 answers take at the most; None
    without wrk, and when some are errors.
    """
    found = WRK and re.search(
        r"\n +99% +([\d.]+)(us|ms|s)\n",
        run_wrk(port, request, seconds, "--latency"))
    return float(found.group(1)) * {"us": .001, "ms": 1, "s": 1000}[
        found.group(2)] if found else None


def run_wrk(port, request, seconds, *options):
    """Return what wrk prints, "" when some answers are errors."""
    command = [WRK, "-t1", "-c%d" % request.connections, "-d%ds" % seconds,
               "--timeout", "20s", *options]
    for pair in request.headers:
        command += ["-H", "%s: %s" % pair]
    with tempfile.TemporaryDirectory() as folder:
        if len(request.paths) > 1:
            paths = os.path.join(folder, "paths")
            with open(paths, "w") as file:
                file.write("\n".join(request.paths) + "\n")
            command += ["-s", os.path.join(folder, "in_turn.lua")]
            with open(command[-1], "w") as file:
                file.write(IN_TURN % paths)
        found = subprocess.run(
            command + ["http://127.0.0.1:%d%s" % (port, request.paths[0])],
            check=True, stdout=subprocess.PIPE, universal_newlines=True)
    return "" if re.search("Non-2xx|Socket errors", found.stdout) \
        else found.stdout


def load_with_python(port, request, seconds):
    """Return answers per second of threads that keep their connections.

    They share the cores and, among themselves, one interpreter: the figure
    tells as much of them as of the server.
    """
    messages = ["GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n" % (path, "".join(
        "%s: %s\r\n" % pair for pair in request.headers))
        for path in request.paths]
    counts = [0] * request.connections
    errors = []
    stop = time.perf_counter() + seconds

    def run(place):
        with socket.create_connection(("127.0.0.1", port), 20) as client:
            while time.perf_counter() < stop:
                client.sendall(messages[counts[place] % len(messages)]
                               .encode())
                if receive(client) not in (200, 304):
                    errors.append(place)
                counts[place] += 1
    threads = [threading.Thread(target=run, args=(place,))
               for place in range(request.connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return None if errors else sum(counts) / seconds


def receive(client):
    """Read one answer to its end; return its status."""
    received = more(client)
    while b"\r\n\r\n" not in received:
        received += more(client)
    head, _, body = received.partition(b"\r\n\r\n")
    status = int(head[9:12])
    length = re.search(br"(?i)\ncontent-length: *(\d+)", head)
    left = int(length.group(1)) - len(body) \
        if length and status != 304 else 0
    while left > 0:
        left -= len(more(client))
    return status


def more(client):
    data = client.recv(65536)
    if not data:
        raise ConnectionError("the server closed in an answer")
    return data


def memory(process, key="VmRSS"):
    """Return VmRSS or VmHWM of a process in MiB, None where /proc is not.

    That of its children is added.
    """
    try:
        with open("/proc/%d/status" % process) as file:
            found = int(re.search(key + r":\s+(\d+)", file.read()).group(1))
        with open("/proc/%d/task/%d/children" % (process, process)) as file:
            children = file.read().split()
        return found / 1024 + sum(
            memory(int(child), key) or 0 for child in children)
    except (OSError, AttributeError):
        return None


def settle(processes, seconds=60, idle=1):
    """Wait until all have been idle for a while: none reads ahead any more.

    Together they take less than 5 % of a core then.

    Returns:
        the time.perf_counter() when they had become idle; None when that did
        not happen in so many seconds, or cannot be seen.
    """
    started = last = time.perf_counter()
    try:
        before = ticks(processes)
        while time.perf_counter() - started < seconds:
            time.sleep(0.25)
            now, spent = time.perf_counter(), ticks(processes)
            if spent - before >= 2:
                last = now
            elif now - last >= idle:
                return last
            before = spent
    except OSError:
        pass
    return None


def ticks(processes):
    """Return the processor time of processes, in hundredths of a second."""
    found = 0
    for process in processes:
        with open("/proc/%d/stat" % process) as file:
            found += sum(map(int, file.read().rpartition(
                ")")[2].split()[11:13]))
    return found


def show_progress(text):
    if sys.stderr.isatty():
        sys.stderr.write("\r%-78s\r" % text)
        sys.stderr.flush()


def digits(value):
    """Show three digits."""
    if value is None:
        return ""
    if value >= 100:
        return "%d" % round(value)
    return "%.2f" % value if value < 10 else "%.1f" % value


def print_table(table):
    """Print it in Markdown, so that it can be pasted."""
    table = [list(row) for row in table]
    widths = [max(map(len, column)) for column in zip(*table)]
    table[1:1] = [["-" * width for width in widths]]
    for row in table:
        print("| %s |" % " | ".join(
            cell.rjust(width) if place > 1 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths))))


def machine():
    model = ""
    with contextlib.suppress(OSError, AttributeError):
        with open("/proc/cpuinfo") as file:
            model = ", " + re.search(
                r"model name\s*: (.*)", file.read()).group(1)
    busy = ", load %.1f before it" % os.getloadavg()[0] \
        if hasattr(os, "getloadavg") else ""
    return "%s; %s %s; %s, %s cores%s%s" % (
        time.strftime("%Y-%m-%d"), platform.python_implementation(),
        platform.python_version(), platform.system(), os.cpu_count(), model,
        busy)
