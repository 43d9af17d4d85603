"""What `run` prints on a terminal, and what it does not print elsewhere."""

import contextlib
import os
import re
import select
import subprocess
import sys
import tempfile
import unittest

from tests import archives
from tests.helpers import (
    READY, SCRIPT, DirectoryTestCase, ServerProcess, ask, wait_for,
)
from tests.test_command_line import free_port
from tests.test_people import BROWSER, Parsed

try:
    import pty
except ImportError:  # Windows
    pty = None
PROGRESS = re.compile(r"Reading files: ([\d,]+) of ([\d,]+) projects")


@unittest.skipIf(os.name == "nt", "no shell of POSIX")
class TestStreams(DirectoryTestCase):
    def test_nobody_need_hear_where_it_serves(self):
        """Streams may be closed, and what they lead to may be full."""
        for streams in (">&-", "<&- >&- 2>&-", "2>&-", ">/dev/full",
                        ">/dev/full 2>&1", ">/dev/full --workers 2"):
            port = free_port()
            process = subprocess.Popen(
                ["sh", "-c", 'exec "$@" ' + streams, "sh", sys.executable,
                 SCRIPT, "run", "-p", str(port), "-H", "127.0.0.1",
                 "--cache-dir", os.path.join(self.folder, "cache"),
                 self.root], stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE)
            with self.subTest(streams):
                def is_served(process=process, port=port):
                    self.assertIsNone(process.poll())
                    with contextlib.suppress(ConnectionError):
                        return ask("127.0.0.1", port, "GET", "/health").body
                try:
                    self.assertEqual(b"Ok", wait_for(is_served, "served", 30))
                finally:
                    process.terminate()
                    _, errors = process.communicate()
                self.assertEqual(b"", errors)
                self.assertEqual(0, process.returncode)


@unittest.skipUnless(pty, "there are no terminals to be had")
class TestTerminal(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.root = os.path.join(folder.name, "packages")
        os.mkdir(self.root)

    @contextlib.contextmanager
    def server(self, **environment):
        """Start it on a terminal; yield what gives all it printed so far."""
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, SCRIPT, "run", "-p", "0", "-H", "127.0.0.1",
             "--cache-dir", self.folder + "/cache", self.root],
            stdin=slave, stdout=slave, stderr=slave, env=dict(
                {name: text for name, text in os.environ.items()
                 if name != "NO_COLOR"}, **environment))
        os.close(slave)
        printed = []

        def read():
            while select.select([master], [], [], 0)[0]:
                try:
                    printed.append(os.read(master, 65536))
                except OSError:
                    break
            return b"".join(printed).decode()
        try:
            yield read
        finally:
            process.terminate()
            # What it still prints must be read, or it would not end.
            wait_for(lambda: (read(), process.poll() is not None)[1], "ends")
            os.close(master)

    def test_address_stands_out(self):
        with self.server() as read:
            line = wait_for(lambda: re.search("(.*)\r\n", read()), "started")
        self.assertRegex(line.group(1), r"\AServing 0 projects from \S+ at "
                         "\x1b\\[1mhttp://127.0.0.1:\\d+/\x1b\\[0m\\Z")

    def test_without_colour(self):
        with self.server(NO_COLOR="1") as read:
            line = wait_for(lambda: re.search("(.*)\r\n", read()), "started")
        self.assertRegex(line.group(1), READY)

    def test_first_reading_of_a_large_directory(self):
        # Small files that take long to be read.
        data = archives.sdist("p", "1.0", files={"x": bytes(40 * 1024 ** 2)})
        for number in range(60):
            archives.put(self.root, "p%d-1.0.tar.gz" % number, data)
        with self.server() as read:
            wait_for(lambda: read().endswith(" " * 60 + "\r"), "all is read",
                     120)
            found = [tuple(int(text.replace(",", "")) for text in pair)
                     for pair in PROGRESS.findall(read())]
        self.assertGreater(len(found), 5)
        self.assertEqual(sorted(found), found)
        self.assertEqual({60}, {total for _, total in found})

    def test_elsewhere_there_is_one_plain_line(self):
        for number in range(3):
            archives.put(self.root, "p%d-1.0.zip" % number, archives.zipped(
                {"p-1.0/PKG-INFO": archives.metadata("p%d" % number, "1")}))
        with ServerProcess(self.root) as server:
            wait_for(lambda: b"have been read" not in server.get("").body,
                     "all is read")
        self.assertRegex(server.line, READY)
        self.assertEqual("", server.output)


class TestWorkers(unittest.TestCase):
    """Every worker has its lists, although one of them reads the files."""

    def test_lists(self):
        with tempfile.TemporaryDirectory() as root:
            for number in range(50):
                archives.put(
                    root, "p%d-1.0-py3-none-any.whl" % number,
                    archives.wheel("p%d" % number, "1.0"))
            with ServerProcess("--workers", "3", root) as server:
                def complete():
                    # Some connections reach each of them.
                    return all("files 50 " in Parsed(server.get(
                        "", {"Accept": BROWSER["Accept"]}).body.decode()).text
                        for _ in range(12))
                wait_for(complete, "all workers know all", 60)


if __name__ == "__main__":
    unittest.main()
