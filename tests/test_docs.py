"""README.md says what the code says: `python3 -m tests.test_docs` makes it so.

That command writes the tables anew between the marks in README.md:
<!-- options --> for those of `run`, <!-- options update --> for those that
only `update` has, and <!-- routes -->.
"""

import os
import re
import tempfile
import unittest

import pypi_server
from tests import guide
from tests.helpers import HOST, call

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
README = os.path.join(TOP, "README.md")
VISIBLE = {"LICENSE", "README.md", "pypi_server.py", "pyproject.toml",
           "tests"}
MADE_BY_TOOLS = {"__pycache__", "build", "dist"}
MARKED = re.compile(
    r"(<!-- (options|routes)(?: (\w+))? -->\n)(.*?)(<!-- /\2(?: \w+)? -->)",
    re.DOTALL)
# What no user of the program has on his machine.
WORKPLACE = re.compile("(?<!example)/(?:work|root)/(?!_)")


def read(*path):
    with open(os.path.join(TOP, *path), encoding="utf-8") as file:
        return file.read()


def table(*rows):
    """Return a table in Markdown; the first row is its head."""
    lines = ["| %s |" % " | ".join(
        cell.replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|"] + lines[1:]
                     ) + "\n"


def code(text):
    return "`%s`" % text


def options_table(command="run"):
    """Return the options of `run`, or those of another command alone."""
    rows = [("option", "", "meaning", "default")]
    for option in pypi_server.OPTIONS:
        if command not in option.commands or (
                command != "run" and "run" in option.commands):
            continue
        argument = "" if option.metavar in ("", "+") else " " + option.metavar
        default = getattr(pypi_server.Config(), option.field)
        if isinstance(default, tuple):
            default = ",".join(default)
        has_default = default not in ("", None, False) and argument
        rows.append((
            ", ".join(code(flag + argument) for flag in option.flags),
            "c" if "" in option.commands else "", option.help,
            code(default) if has_default else ""))
    return table(*rows)


def routes_table(_=None):
    """Return the routes; those of one handler are one row."""
    rows = {}
    for route in pypi_server.ROUTES:
        key = route.method, route.handler, route.action
        rows.setdefault(key, []).append(
            code(route.pattern) if route.pattern else "the index itself")
    return table(("method", "address", "answer", "action"), *(
        (method, ", ".join(patterns), summary(handler), action)
        for (method, handler, action), patterns in rows.items()))


def summary(handler):
    """Return what a handler answers: the first line of its docstring."""
    text = (handler.__doc__ or handler.__name__.replace("_", " ")).strip()
    line = " ".join(text.partition("\n\n")[0].split()).rstrip(".")
    return re.sub("^Answer (with )?", "", line)


TABLES = {"options": options_table, "routes": routes_table}


def current(text):
    """Return README.md with its tables made anew."""
    return MARKED.sub(
        lambda found: found.group(1) + TABLES[found.group(2)](
            *filter(None, (found.group(3),))) + found.group(5), text)


@unittest.skipUnless(os.path.exists(README), "there is no README.md yet")
class TestReadme(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.text = read("README.md")

    def test_tables_are_current(self):
        self.assertEqual(current(self.text), self.text,
                         "run `python3 -m tests.test_docs`")

    def test_both_tables_are_there(self):
        marks = {found[1] for found in MARKED.findall(self.text)}
        self.assertEqual(set(TABLES), marks)

    def test_every_flag_is_there(self):
        for option in pypi_server.OPTIONS:
            for flag in option.flags:
                self.assertIn("`" + flag, self.text)

    def test_two_commands_are_on_the_first_screen(self):
        """In their order: what it is, serve, test, install, upload."""
        screen = "\n".join(self.text.split("\n")[:24])
        places = [screen.index(text) for text in (
            "# pypi_server.py", "A PyPI-compatible package server",
            "    python3 pypi_server.py run ", "    python3 -m tests",
            "    pip install --index-url ", "    uv pip install ",
            "    scp ", "    twine upload ", "    uv publish ",
            "Uploads need an account")]
        self.assertEqual(sorted(places), places)
        self.assertLess(screen[:places[2]].count("\n"), 15)

    def test_pictures_are_there_and_shown(self):
        folder = os.path.join(TOP, "tests", "screenshots")
        self.assertEqual(
            {"tests/screenshots/" + name for name in os.listdir(folder)},
            set(re.findall(r"\]\((tests/screenshots/[^)]*)\)", self.text)))

    def test_variables_of_the_home_page(self):
        """The table has those that a template is filled with."""
        values = {
            "URL": "http://%s/" % HOST, "SIMPLE": "simple/", "NUMPKGS": "0",
            "PACKAGES": "packages/", "VERSION": pypi_server.__version__}
        rows = guide.sections()["Another home page"].rows
        self.assertEqual({code(name) for name in values},
                         {row[0] for row in rows})
        with tempfile.TemporaryDirectory() as folder:
            app = pypi_server.make_app(pypi_server.Config(
                roots=(folder,), backend="simple-dir", welcome_msg="".join(
                    "{{%s}} {{!%s}} " % (name, name) for name in values)))
            self.addCleanup(app.warmer.stop)
            page = call(app, "GET", "/").body.decode()
        self.assertEqual([text for value in values.values()
                          for text in (value, value)], page.split())

    def test_links_within_lead_somewhere(self):
        titles = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
                  for title in re.findall(r"^#+ (.*)$", self.text, re.M)}
        for link in re.findall(r"\]\(#([^)]*)\)", self.text):
            self.assertIn(link, titles)


class TestTables(unittest.TestCase):
    def test_options(self):
        text = options_table()
        self.assertIn("| `-p PORT`, `--port PORT` |  | listen on ", text)
        self.assertIn(" | `8080` |\n", text)
        for line in text.splitlines():
            self.assertEqual(text.split("\n")[0].count(" | "),
                             line.replace("\\|", "").count(" | ")
                             or line.count("---") - 1, line)

    def test_routes(self):
        text = routes_table()
        for route in pypi_server.ROUTES:
            if route.pattern:
                self.assertIn(code(route.pattern), text)


class TestRepository(unittest.TestCase):
    def test_visible_entries(self):
        found = {name for name in os.listdir(TOP)
                 if not name.startswith(".")} - MADE_BY_TOOLS
        self.assertLessEqual(found, VISIBLE)

    def test_version_is_in_one_place(self):
        source = read("pypi_server.py")
        self.assertEqual(
            1, len(re.findall("^__version__ = ", source, re.M)))
        self.assertEqual(1, source.count('"%s"' % pypi_server.__version__))
        if os.path.exists(os.path.join(TOP, "pyproject.toml")):
            project = read("pyproject.toml")
            self.assertNotRegex(project, r"(?m)^version *=")
            self.assertRegex(project, r'(?m)^dynamic *= *\[.*"version"')

    def test_nothing_tells_where_it_was_made(self):
        for folder, folders, names in os.walk(TOP):
            folders[:] = [name for name in folders
                          if not name.startswith((".", "__pycache__"))]
            for name in names:
                if name.endswith((".py", ".md", ".toml", ".txt", ".json")):
                    path = os.path.join(folder, name)
                    with self.subTest(path):
                        for line in read(path).splitlines():
                            self.assertIsNone(WORKPLACE.search(line), line)


def main():
    """Write the tables of README.md anew."""
    text = current(read("README.md"))
    with open(README, "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main()
