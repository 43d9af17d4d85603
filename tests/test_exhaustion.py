"""What anybody may make a server keep, hold or do: all of it is bounded."""

import gc
import platform
import sys
import unittest
from unittest import mock

import pypi_server
from tests import archives
from tests.helpers import DirectoryTestCase, Wire, call, listening

PYPY = platform.python_implementation() == "PyPy"


def size_of(value, counted):
    """Return the bytes of a value with all that is in it, each once."""
    if id(value) in counted:
        return 0
    counted.add(id(value))
    size = sys.getsizeof(value)
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, (list, tuple)):
        size += sum(size_of(part, counted) for part in value)
    return size


class TestPages(DirectoryTestCase):
    """Rendered pages are kept by what clients say, but not without end."""

    @unittest.skipIf(PYPY, "it cannot tell what an object needs")
    def test_pages_for_many_hosts(self):
        archives.put(self.root, "foo-1.0-py3-none-any.whl",
                     archives.wheel("foo", "1.0"))
        limit = 10 ** 6
        for path in ("/withheld/?page=%d", "/project/foo/?page=%d",
                     "/simple/foo/?%d"):
            with self.subTest(path), \
                    mock.patch.object(pypi_server, "PAGES_LIMIT", limit):
                app = self.make_app()
                for number in range(1500):
                    host = "%s%d" % ("x" * 240, number)
                    self.assertEqual(200, call(
                        app, "GET", path % number, {"Host": host}).status)
                # The briefs, which both share, are there in any case.
                self.assertLess(size_of(app.pages.found, set()), 1.1 * limit)

    def test_what_does_not_depend_on_the_client_is_kept_once(self):
        app = self.make_app()
        for number in range(100):
            answer = call(
                app, "GET", "/withheld/?format=application/json&page=%d"
                % number, {"Host": "h%d" % number})
            self.assertEqual(200, answer.status)
        self.assertEqual(1, len(app.pages.found))

    def test_no_host_is_so_long(self):
        with listening(self.make_app()) as address:
            for length, status in (250, 200), (300, 400), (8000, 400):
                with Wire(address) as wire:
                    wire.send(b"GET /health HTTP/1.1\r\nHost: %s\r\n\r\n" % (
                        b"h" * length))
                    self.assertEqual(status, wire.answer()[0])

    def test_no_list_of_all_names_stays(self):
        """Of each change there is one, with all names of that moment."""
        app = self.make_app()
        for number in range(8):
            name = "p%d" % number
            archives.put(self.root, name + "-1.0-py3-none-any.whl",
                         archives.wheel(name, "1.0"))
            app.directories.refresh()
            for path in "/simple/%s/", "/project/%s/", "/withheld/?%s":
                self.assertEqual(200, call(
                    app, "GET", path % name, {"Host": name}).status)
        gc.collect()
        snapshots = [found for found in gc.get_objects()
                     if isinstance(found, pypi_server.Snapshot)
                     and any(path.startswith(self.root)
                             for path in {archive.root for archive
                                          in found.archives.values()})]
        self.assertIn(len(snapshots), (1, 2, 3))


if __name__ == "__main__":
    unittest.main()
