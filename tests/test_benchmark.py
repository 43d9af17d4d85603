"""The benchmark runs, and measures what it lists."""

import os
import re
import subprocess
import sys
import unittest

from tests import benchmark
from tests.helpers import SCRIPT

README = os.path.join(os.path.dirname(SCRIPT), "README.md")


def run(*arguments):
    process = subprocess.run(
        (sys.executable, "-m", "tests.benchmark") + arguments, timeout=300,
        cwd=os.path.dirname(SCRIPT), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True)
    return process.returncode, process.stdout, process.stderr


class TestBenchmark(unittest.TestCase):
    def test_list(self):
        status, out, _ = run("--list")
        self.assertEqual(0, status)
        self.assertEqual([each.name for each in benchmark.MEASUREMENTS],
                         [line.split()[0] for line in out.splitlines()])

    def test_unknown_name(self):
        status, _, err = run("--only", "nothing")
        self.assertEqual(2, status)
        self.assertIn("page-32", err)

    def test_one_measurement(self):
        """Beside the peers that are there; no figure is missing."""
        status, out, err = run("--only", "password-32", "--rounds", "1")
        self.assertEqual((0, ""), (status, err))
        row = out.splitlines()[-1]
        self.assertRegex(row, r"^\| page with a password, 32 connections +\|")
        self.assertRegex(row, r"\| 1/s  \| +\d+")
        self.assertTrue(re.search("(?m)^not measured: nginx", out)
                        or float(row.split("|")[-3]) > 0, out)

    def test_ratios(self):
        """Above 1 is in our favour, whether more is better or less."""
        chosen = [each for each in benchmark.MEASUREMENTS
                  if each.name in ("page-1", "start")]
        found = {"page-1": {benchmark.OURS: 30.0, benchmark.NGINX: 20.0,
                            benchmark.OLD: 10.0, benchmark.OTHER: 15.0},
                 "start": {benchmark.OURS: 2.0, benchmark.OLD: 3.0}}
        page, start = list(benchmark.rows(chosen, found))[1:]
        self.assertEqual(("1.50", "2.00"), page[-2:])
        self.assertEqual(("", "1.50"), start[-2:])

    def test_table_of_the_guide(self):
        """It has the rows and the columns that the benchmark prints."""
        with open(README, encoding="utf-8") as file:
            table = re.search("(?s)<!-- speed -->\n(.*)<!-- /speed -->",
                              file.read()).group(1).splitlines()
        rows = [[cell.strip() for cell in line.strip("|").split("|")]
                for line in table]
        head, *_ = benchmark.rows((), {})
        self.assertEqual(list(head), rows[0])
        self.assertEqual([each.text for each in benchmark.MEASUREMENTS],
                         [row[0] for row in rows[2:]])


if __name__ == "__main__":
    unittest.main()
