"""10,000 connections that are as slow as can be, with a real tool for that.

In each of its modes another client is served meanwhile, memory is bounded,
and when it is over nothing is left of it.
"""

import contextlib
import shutil
import subprocess
import time
import unittest

from tests import archives
from tests.helpers import DirectoryTestCase, ServerProcess, wait_for
from tests.soak import usage
from tests.test_limits import most_memory

SECONDS = 7   # of each mode, at least
COUNT = 10000
SPARE = 200   # files that the tool needs besides
MODES = {
    "heads": ["-H", "-i", "1"],
    "bodies": ["-B", "-i", "1", "-s", "100000", "-t", "POST"],
    "ranges": ["-R", "-a", "1", "-b", "3000", "-t", "GET"],
    "reading": ["-X", "-w", "10", "-y", "20", "-n", "1", "-z", "8", "-k", "3"],
}


@unittest.skipUnless(shutil.which("slowhttptest"), "no program slowhttptest")
class TestSlow(DirectoryTestCase):
    def test_each_mode(self):
        import resource
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        count = COUNT if hard == resource.RLIM_INFINITY \
            else min(COUNT, hard - SPARE)
        for number in range(50):
            name = "p%d" % number
            archives.put(self.root, name + "-1.0-py3-none-any.whl",
                         archives.wheel(name, "1.0"))
        with ServerProcess("--log-stream", "none", self.root) as server:
            self.assertEqual(200, server.get("simple/").status)
            for mode, options in MODES.items():
                with self.subTest(mode):
                    self.check_mode(server, options, count)
            self.assertEqual(0, server.stop())

    def check_mode(self, server, options, count):
        tool = subprocess.Popen(
            ["slowhttptest", "-c", str(count), "-r", str(count // 4), "-l",
             str(5 * SECONDS), "-p", "3", "-u", server.url + "simple/",
             *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        times, others = [], []
        ends = time.monotonic() + SECONDS
        try:
            # The tool alone takes most of a small machine.
            while tool.poll() is None and (
                    time.monotonic() < ends or len(times) < 4):
                started = time.monotonic()
                try:
                    status = server.get("health").status
                except OSError as error:
                    status = type(error).__name__
                if status == 200:
                    times.append(time.monotonic() - started)
                else:
                    others.append(status)
                time.sleep(0.1)
        finally:
            with contextlib.suppress(OSError):
                tool.kill()
            tool.wait(60)
        self.assertGreater(len(times), 3, others)
        self.assertLess(len(others), len(times) / 5, others)
        self.assertLess(sorted(times)[len(times) // 2], 3)
        self.assertLess(most_memory(server.process), 400 * 2 ** 20)
        wait_for(lambda: usage(server.process)[1] <= 5, "all are gone", 30)


if __name__ == "__main__":
    unittest.main()
