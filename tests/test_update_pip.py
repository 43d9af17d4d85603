"""What `update` prints is executed: the newest pip, a real shell."""

import os
import shlex
import stat
import subprocess
import threading
import unittest

from tests import test_update, toolbox
from tests.upstream import isolated


class TestPrinted(test_update.KindsTestCase):
    def test_printed_commands_work_in_a_shell(self):
        """The newest pip fetches exactly the files of the same kind."""
        python = toolbox.require("tools")
        out = os.path.join(self.folder, "new files")
        result = self.update(self.url, "-u", "-d", out, self.root)
        script = os.path.join(self.folder, "bin", "pip")
        os.mkdir(os.path.dirname(script))
        with open(script, "w") as file:
            file.write('#!/bin/sh\nexec %s -m pip "$@"\n'
                       % shlex.quote(python))
        os.chmod(script, stat.S_IRWXU)
        lines = [line for line in result.lines if not line.startswith("#")]
        failed = []

        def run(part):
            for line in part:
                process = subprocess.run(
                    ["sh", "-c", line], stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                    env=isolated(self.folder, PATH=os.path.dirname(script)
                                 + os.pathsep + os.environ["PATH"]))
                if process.returncode:
                    failed.append((line, process.stdout.decode()))
        threads = [threading.Thread(target=run, args=(lines[start::4],))
                   for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([], failed)
        expected = sorted(filename for row in test_update.KINDS for filename in
                          test_update.filenames(
                              row, row.unstable or row.fetched))
        self.assertEqual(expected, sorted(os.listdir(out)))
        for filename in expected:
            with open(os.path.join(out, filename), "rb") as one, \
                    open(os.path.join(self.theirs, filename), "rb") as other:
                self.assertEqual(other.read(), one.read())


if __name__ == "__main__":
    unittest.main()
