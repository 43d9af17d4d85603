"""What the server costs, measured from outside: python3 -m tests.benchmark

Speed differs between machines and from hour to hour: compare the figures of
one run, not of two.
"""

import contextlib
import hashlib
import http.client
import os
import sys
import tempfile
import threading
import time
import zipfile
from urllib.parse import urlsplit

from tests import archives
from tests.helpers import ServerProcess

MIB = 1024 ** 2
LARGE = 2048  # MiB of the upload
BLOCK = os.urandom(MIB)
BOUNDARY = "benchmark"


def memory(process, key):
    """Return VmRSS or VmHWM of a process in MiB, None where /proc is not."""
    try:
        with open("/proc/%d/status" % process.pid) as file:
            for line in file:
                if line.startswith(key + ":"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None


def show(name, value, unit):
    text = "-" if value is None else "%10.1f" % value
    print("%-52s %10s %s" % (name, text, unit))


def large_wheel(path):
    """Write a wheel of LARGE MiB; return (path, sha256 in hex)."""
    path = os.path.join(path, "large-1.0-py3-none-any.whl")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number in range(LARGE // 64):
            archive.writestr("large/%d" % number, BLOCK * 64)
        archive.writestr("large-1.0.dist-info/METADATA",
                         archives.metadata("large", "1.0"))
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(MIB), b""):
            digest.update(block)
    return path, digest.hexdigest()


def form_around(path, digest):
    """Return (head, tail) of the form that uploads a file."""
    fields = ((":action", "file_upload"), ("sha256_digest", digest))
    head = "".join(
        '--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
        % (BOUNDARY, name, value) for name, value in fields)
    head += ('--%s\r\nContent-Disposition: form-data; name="content"; '
             'filename="%s"\r\n\r\n' % (BOUNDARY, os.path.basename(path)))
    return head.encode(), ("\r\n--%s--\r\n" % BOUNDARY).encode()


def upload(url, path, digest):
    """Upload a file as clients do, in pieces; return the status."""
    head, tail = form_around(path, digest)
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname, address.port)
    with contextlib.closing(connection):
        connection.putrequest("POST", address.path)
        connection.putheader("Content-Length", str(
            len(head) + os.path.getsize(path) + len(tail)))
        connection.putheader(
            "Content-Type", "multipart/form-data; boundary=" + BOUNDARY)
        connection.endheaders()
        connection.send(head)
        with open(path, "rb") as file:
            connection.send(file)
        connection.send(tail)
        response = connection.getresponse()
        response.read()
        return response.status


def measure_upload(folder):
    root = os.path.join(folder, "packages")
    os.mkdir(root)
    path, digest = large_wheel(folder)
    with ServerProcess("-a", ".", "-P", ".", root) as server:
        # The peak until now belongs to the start.
        with contextlib.suppress(OSError):
            with open("/proc/%d/clear_refs" % server.process.pid, "w") as file:
                file.write("5")
        before = memory(server.process, "VmRSS")
        started = time.perf_counter()
        status = upload(server.url, path, digest)
        seconds = time.perf_counter() - started
        peak = memory(server.process, "VmHWM")
    show("upload of %d MiB" % LARGE, LARGE / seconds, "MiB/s")
    show("memory of the server before it", before, "MiB")
    show("memory that the upload added at its peak",
         peak - before if before else None, "MiB")
    return status == 200


def measure_pages(folder):
    root = os.path.join(folder, "small")
    for number in range(20):
        version = "1.%d" % number
        archives.put(root, archives.wheel_filename("demo", version),
                     archives.wheel("demo", version))
    with ServerProcess(root) as server:
        address = urlsplit(server.url)
        for clients in (1, 8):
            show("project pages of 20 files, %d connections" % clients,
                 rate(address, "/simple/demo/", clients), "1/s")


def rate(address, path, clients, seconds=3):
    """Return requests per second of some clients that keep connections.

    The clients are Python as well, and share the cores with the server.
    """
    counts = [0] * clients
    stop = time.perf_counter() + seconds

    def run(place):
        connection = http.client.HTTPConnection(
            address.hostname, address.port)
        with contextlib.closing(connection):
            while time.perf_counter() < stop:
                connection.request("GET", path)
                connection.getresponse().read()
                counts[place] += 1
    threads = [threading.Thread(target=run, args=(place,))
               for place in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def main():
    print("Python %s, %s cores" % (sys.version.split()[0], os.cpu_count()))
    with tempfile.TemporaryDirectory() as folder:
        measure_pages(folder)
        is_fine = measure_upload(folder)
    return 0 if is_fine else 1


if __name__ == "__main__":
    sys.exit(main())
