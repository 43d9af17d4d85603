"""The benchmark runs, and measures what it lists."""

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import unittest
from urllib.parse import urlsplit
from xml.etree import ElementTree

from tests import archives, benchmark, growth, load, plot
from tests.helpers import SCRIPT, ServerProcess

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
        self.assertEqual(
            [each.name for each in benchmark.MEASUREMENTS] + ["growth"],
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


def texts(svg):
    """Return all texts of a picture, in order."""
    return [element.text for element in ElementTree.fromstring(svg).iter()
            if element.tag.endswith("}text")]


class TestGrowth(unittest.TestCase):
    def test_tiny_sizes(self):
        """Each figure is there, and no file is left."""
        printed = io.StringIO()
        with tempfile.TemporaryDirectory() as folder:
            picture = os.path.join(folder, "growth.svg")
            with contextlib.redirect_stdout(printed):
                growth.run((20, 40), 1, picture)
            self.assertEqual(["growth.svg"], os.listdir(folder))
            with open(picture, encoding="utf-8") as file:
                svg = file.read()
        rows = [[cell.strip() for cell in line.strip("|").split("|")]
                for line in printed.getvalue().splitlines()
                if line.startswith("|")]
        self.assertEqual([head for head, _ in growth.COLUMNS], rows[0])
        self.assertEqual(["20", "40"], [row[0] for row in rows[2:]])
        for row in rows[2:]:
            for head, cell in zip(rows[0], row):
                if os.path.exists("/proc/self/status"):
                    self.assertGreater(float(cell), 0, head)
        found = texts(svg)
        for label in "20 files", "40", "Memory, MiB", "project list":
            self.assertIn(label, found)
        self.assertRegex(found[-2], "measured once, not promised")
        self.assertRegex(found[-1], r"^\d{4}-\d\d-\d\d; .* cores")

    def test_picture_of_the_guide(self):
        """It is what the guide shows, of the sizes measured now."""
        with open(README, encoding="utf-8") as file:
            self.assertIn("](tests/%s)" % os.path.basename(growth.PICTURE),
                          file.read())
        with open(growth.PICTURE, encoding="utf-8") as file:
            found = texts(file.read())
        for size in growth.SIZES:
            self.assertTrue({plot.short(size), plot.short(size) + " files"}
                            & set(found), size)

    def test_without_memory(self):
        """Where the system does not tell it, its panel is left out."""
        figures = growth.Figures(10, 1.0, 1.0, None, None, None, 9.0, 9.0,
                                 0.5, 2.0)
        found = texts(growth.draw(
            [figures, figures._replace(files=100)], "here"))
        self.assertNotIn("Memory, MiB", found)
        self.assertIn("here", found)


class TestPlot(unittest.TestCase):
    def test_labels(self):
        svg = plot.svg("a < b", (1000, 300000), (
            plot.Panel("x & y", (("<one>", (250.0, 25000.0)),
                                 ("two", (300.0, 0.85))), True),
            plot.Panel("z", (("three", (0.5, 3.4)),))), ("end", "of it"))
        self.assertEqual("a < b", ElementTree.fromstring(svg)[0].text)
        self.assertEqual(
            ["x & y", "0.1", "1", "10", "100", "1k", "10k", "100k",
             "1k files", "300k", "<one>", "two", "300", "250", "25k", "0.85",
             "z", "0", "1", "2", "3", "4", "1k files", "300k", "three", "0.5",
             "3.4", "end", "of it"], texts(svg))

    def test_scale(self):
        """More is higher, and nothing leaves the panel."""
        for logarithmic in True, False:
            for values in (1, 3, 7), (0.02, 0.5), (40, 198), (9000,):
                marks, y_of = plot.scale(values, logarithmic)
                with self.subTest(values=values, logarithmic=logarithmic):
                    places = [y_of(value) for value in values]
                    self.assertEqual(sorted(places, reverse=True), places)
                    self.assertLessEqual(plot.TOP, min(places))
                    self.assertGreaterEqual(plot.BOTTOM, max(places))
                    self.assertLessEqual(len(marks), 7)

    def test_short(self):
        for value, text in ((300000, "300k"), (1000, "1k"), (1234, "1.2k"),
                            (9960, "10k"), (25400, "25k"), (640, "640"),
                            (64.4, "64"), (0.854, "0.85"), (3, "3"), (0, "0")):
            self.assertEqual(text, plot.short(value))


class TestLoad(unittest.TestCase):
    def test_rate(self):
        """Of wrk and without it, of one page and of several."""
        with tempfile.TemporaryDirectory() as folder:
            for name in "foo", "bar":
                archives.put(folder, archives.wheel_filename(name, "1.0"),
                             archives.wheel(name, "1.0"))
            with ServerProcess("--disable-fallback", folder) as server:
                port = urlsplit(server.url).port
                for generator in (load.load_with_python, load.load_with_wrk
                                  )[:2 if load.WRK else 1]:
                    for paths in (("/simple/foo/",),
                                  ("/simple/foo/", "/simple/bar/")):
                        found = generator(port, load.Request(paths, 2), 1)
                        self.assertGreater(found, 1)
                    # An error is no answer.
                    self.assertIsNone(generator(port, load.Request((
                        "/simple/foo/", "/simple/nothing/"), 1), 1))


if __name__ == "__main__":
    unittest.main()
