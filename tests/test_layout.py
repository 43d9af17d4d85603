"""The promises that pypi_server.py makes about itself."""

import ast
import doctest
import os
import re
import subprocess
import sys
import tempfile
import unittest

import pypi_server

try:
    import symtable
except ImportError:  # PyPy
    symtable = None

with open(pypi_server.__file__, encoding="utf-8") as _file:
    SOURCE = _file.read()
BANNER = re.compile(r"^# === +(\d+)  (\S.*?) =+$", re.MULTILINE)
ENTRY = re.compile(r"^ +(\d+)  (\S+(?: \S+)*)  +\S", re.MULTILINE)
LAST_PURE = int(re.search(
    r"Sections 1-(\d+) are pure", pypi_server.__doc__).group(1))
IMPURE = {"open", "print", "input", "getpass", "logging", "os", "random",
          "shutil", "signal", "socket", "subprocess", "sys", "tempfile",
          "threading", "time"}
LONGEST_FUNCTION = 50  # lines
LONGEST_SECTION = 600
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


# (first line, number) of the sections, in file order
STARTS = [(SOURCE.count("\n", 0, found.start()) + 1, int(found.group(1)))
          for found in BANNER.finditer(SOURCE)]


def section_of(line):
    return max([0] + [number for start, number in STARTS if start <= line])


def statements():
    """Yield (section number, top-level statement), in file order."""
    for node in ast.parse(SOURCE).body:
        yield section_of(node.lineno), node


def defined(node):
    """Return the names that a top-level statement gives to the module."""
    if isinstance(node, FUNCTIONS + (ast.ClassDef,)):
        return {node.name}
    return {found.id for found in ast.walk(node)
            if isinstance(found, ast.Name)
            and isinstance(found.ctx, ast.Store)}


def tables(table):
    """Yield a symbol table and all below it."""
    yield table
    for child in table.get_children():
        yield from tables(child)


def uses():
    """Yield (section number, line, name) of every use of a module's name.

    The compiler knows which names are those of the module, and which are
    local variables that happen to be called the same.
    """
    for top in symtable.symtable(SOURCE, "source", "exec").get_children():
        for table in tables(top):
            for symbol in table.get_symbols():
                if symbol.is_referenced() and symbol.is_global():
                    yield (section_of(top.get_lineno()), table.get_lineno(),
                           symbol.get_name())
    # Outside of functions and classes, every name is the module's.
    for number, node in statements():
        if not isinstance(node, FUNCTIONS + (ast.ClassDef,)):
            for found in ast.walk(node):
                if isinstance(found, ast.Name) and isinstance(
                        found.ctx, ast.Load):
                    yield number, found.lineno, found.id


def last_line(node):
    return max(getattr(found, "end_lineno", None)
               or getattr(found, "lineno", 0) for found in ast.walk(node))


class TestSections(unittest.TestCase):
    def test_contents_list_the_banners(self):
        self.assertEqual(
            ENTRY.findall(pypi_server.__doc__), BANNER.findall(SOURCE))

    def test_numbers_are_in_order(self):
        numbers = [number for _, number in STARTS]
        self.assertEqual(list(range(1, len(numbers) + 1)), numbers)

    @unittest.skipUnless(symtable, "there is no symtable")
    def test_upper_sections_are_pure(self):
        for number, line, name in uses():
            if 1 <= number <= LAST_PURE:
                with self.subTest("line %d" % line):
                    self.assertNotIn(name, IMPURE)

    def test_upper_sections_import_nothing_impure(self):
        for number, top in statements():
            for node in ast.walk(top) if 1 <= number <= LAST_PURE else ():
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    names = {name.name.partition(".")[0]
                             for name in node.names}
                    names.add((getattr(node, "module", "") or "")
                              .partition(".")[0])
                    self.assertEqual(set(), names & IMPURE,
                                     "line %d" % node.lineno)

    @unittest.skipUnless(symtable, "there is no symtable")
    def test_sections_use_only_sections_above(self):
        home = {}
        for number, node in statements():
            for name in defined(node):
                home.setdefault(name, number)
        checked = 0
        for number, line, name in uses():
            with self.subTest("line %d uses %s" % (line, name)):
                self.assertLessEqual(home.get(name, 0), number)
            checked += name in home
        self.assertGreater(checked, 300)

    def test_names_are_given_once(self):
        """A second constant of a name would change what the first limits."""
        seen = set()
        for _, node in statements():
            names = defined(node) if not isinstance(
                node, (ast.If, ast.For, ast.With, ast.Try)) else set()
            with self.subTest("line %d" % node.lineno):
                self.assertEqual(set(), names & seen)
            seen |= names
        self.assertGreater(len(seen), 300)

    def test_sections_are_short(self):
        """Longer ones have a second idea in them."""
        places = [line for line, _ in STARTS] + [SOURCE.count("\n")]
        for start, stop in zip(places, places[1:]):
            with self.subTest("line %d" % start):
                self.assertLessEqual(stop - start, LONGEST_SECTION)


class TestCode(unittest.TestCase):
    def test_functions_are_short(self):
        for node in ast.walk(ast.parse(SOURCE)):
            if isinstance(node, FUNCTIONS):
                length = last_line(node) - node.lineno + 1
                with self.subTest(node.name):
                    self.assertLessEqual(length, LONGEST_FUNCTION)

    def test_lines_are_short(self):
        for number, line in enumerate(SOURCE.split("\n"), 1):
            self.assertLessEqual(len(line), 79, number)
            self.assertEqual(line.rstrip(), line, number)

    @unittest.skipIf(sys.version_info < (3, 8), "knows no other grammar")
    def test_grammar_is_that_of_python_3_6(self):
        ast.parse(SOURCE, feature_version=(3, 6))

    def test_examples_in_docstrings(self):
        found = doctest.testmod(pypi_server)
        self.assertEqual(0, found.failed)
        self.assertGreater(found.attempted, 20)

    def test_public_names_exist(self):
        self.assertEqual(sorted(pypi_server.__all__), pypi_server.__all__)
        for name in pypi_server.__all__:
            self.assertTrue(hasattr(pypi_server, name), name)

    def test_import_has_no_side_effects(self):
        code = ("import logging, os, threading, pypi_server; print("
                "logging.getLogger('pypi_server').handlers, "
                "logging.getLogger().handlers, threading.active_count(), "
                "os.listdir('.'))")
        with tempfile.TemporaryDirectory() as folder:
            environment = dict(
                os.environ, HOME=folder, XDG_CACHE_HOME=folder,
                PYTHONDONTWRITEBYTECODE="1",
                PYTHONPATH=os.path.dirname(pypi_server.__file__))
            found = subprocess.check_output(
                [sys.executable, "-W", "error", "-c", code], cwd=folder,
                env=environment, stderr=subprocess.STDOUT)
        self.assertEqual(b"[] [] 1 []", found.strip())


class TestTables(unittest.TestCase):
    def test_options_are_fields_and_leave_defaults_to_them(self):
        fields = [option.field for option in pypi_server.OPTIONS]
        self.assertEqual(len(set(fields)), len(fields))
        for option in pypi_server.OPTIONS:
            with self.subTest(option.field):
                self.assertIn(option.field, pypi_server.Config._fields)
                self.assertNotIn("default", option.help)

    def test_flags_are_used_once(self):
        flags = [(command, flag) for option in pypi_server.OPTIONS
                 for command in option.commands for flag in option.flags]
        self.assertEqual(len(set(flags)), len(flags))
        for _, flag in flags:
            self.assertRegex(flag, r"\A(-\w|--[a-z]+(-[a-z]+)*)\Z")

    def test_defaults_are_what_their_parser_makes(self):
        """An option that says its default changes nothing."""
        config = pypi_server.Config()
        for option in pypi_server.OPTIONS:
            default = getattr(config, option.field)
            if option.metavar in ("", "+") or default in ("", None, ()):
                continue
            with self.subTest(option.field):
                text = ",".join(default) if isinstance(
                    default, tuple) else str(default)
                if text != "0":
                    self.assertEqual(default, option.parse(text))

    def test_every_route_names_an_action(self):
        for route in pypi_server.ROUTES:
            with self.subTest(route.pattern, method=route.method):
                self.assertIn(route.action, ("",) + pypi_server.ACTIONS)
                self.assertIn(route.method, ("GET", "POST"))
                # "" is the address of the index without its slash.
                self.assertRegex(route.pattern, r"\A(/.*|\[/\]|)\Z")

    def test_what_changes_something_is_protected(self):
        for route in pypi_server.ROUTES:
            if route.method == "GET":
                self.assertNotEqual("update", route.action)
            else:
                self.assertNotEqual("", route.action)


if __name__ == "__main__":
    unittest.main()
