"""Section Names: pure tables of filenames, projects and versions."""

import unittest

from pypi_server import (
    Filename, is_prerelease, normalize, normalize_version, parse_filename,
    parse_version, split_stem, version_key,
)

WHEEL, EGG, SDIST = "bdist_wheel", "bdist_egg", "sdist"
WININST, MSI, DUMB = "bdist_wininst", "bdist_msi", "bdist_dumb"

# filename, normalized project, version as normalize_version() has it, type
FILENAMES = (
    # Wheels: PEP 427 and 491.
    ("foo-1.0-py3-none-any.whl", "foo", "1.0", WHEEL),
    ("Foo_Bar-1.0-py2.py3-none-any.whl", "foo-bar", "1.0", WHEEL),
    ("zope.interface-6.1-cp311-cp311-manylinux_2_5_x86_64."
     "manylinux1_x86_64.whl", "zope-interface", "6.1", WHEEL),
    ("foo__bar-1.0-py3-none-any.whl", "foo-bar", "1.0", WHEEL),
    # Build tags start with a digit.
    ("foo-1.0-2-py3-none-any.whl", "foo", "1.0", WHEEL),
    ("foo-1.0-2_local.1-py3-none-any.whl", "foo", "1.0", WHEEL),
    ("pywin32-217-55-cp27-none-win32.whl", "pywin32", "217", WHEEL),
    # Versions: local, epoch, post release, as old tools wrote them.
    ("foo-1.0+cu121-py3-none-any.whl", "foo", "1.0+cu121", WHEEL),
    ("foo-1.0+ubuntu_1-py3-none-any.whl", "foo", "1.0+ubuntu.1", WHEEL),
    ("foo-1!2.0-py3-none-any.whl", "foo", "1!2.0", WHEEL),
    ("foo-1.0_1-py2-none-any.whl", "foo", "1.0.post1", WHEEL),
    ("foo-2004d-py2-none-any.whl", "foo", "2004d", WHEEL),
    ("\xfcn\xef-1.0-py3-none-any.whl", "\xfcn\xef", "1.0", WHEEL),
    # Eggs.
    ("foo-1.0.egg", "foo", "1.0", EGG),
    ("foo_bar-1.0-py2.7.egg", "foo-bar", "1.0", EGG),
    ("foo-1.0-py3.10.egg", "foo", "1.0", EGG),
    ("greenlet-0.3.4-py3.1-win-amd64.egg", "greenlet", "0.3.4", EGG),
    ("greenlet-0.3.4-py2.7-linux-x86_64.egg", "greenlet", "0.3.4", EGG),
    ("foo-1.0_r5-py2.5.egg", "foo", "1.0.post5", EGG),
    # Installers.
    ("foo-1.0.win32.exe", "foo", "1.0", WININST),
    ("foo-bar-1.0.win32-py2.7.exe", "foo-bar", "1.0", WININST),
    ("greenlet-0.3.4.win-amd64-py3.2.exe", "greenlet", "0.3.4", WININST),
    ("foo-0.0.1.alpha.1.win-amd64-py3.2.exe", "foo", "0.0.1a1", WININST),
    ("gevent-1.0b1.win32-py2.6.msi", "gevent", "1.0b1", MSI),
    # "-py2.3-…": whatever bdist commands of the past put behind it.
    ("foo-1.0-py2.3-linux-i686.zip", "foo", "1.0", None),
    ("foo-1.0-py2.7-installer", "foo", "1.0", None),
    # bdist_dumb: for one platform, and no sdist.
    ("foo-1.0.linux-x86_64.tar.gz", "foo", "1.0", DUMB),
    ("package-name-0.0.1.dev0.linux-x86_64.tar.gz",
     "package-name", "0.0.1.dev0", DUMB),
    ("package-name-0.0.1.dev0.macosx-10.10-intel.tar.gz",
     "package-name", "0.0.1.dev0", DUMB),
    ("foo-1.0.win32.zip", "foo", "1.0", DUMB),
    # Sdists: PEP 625, and all that came before it.
    ("zope_interface-6.1.tar.gz", "zope-interface", "6.1", SDIST),
    ("zope.interface-6.1.tgz", "zope-interface", "6.1", SDIST),
    ("Foo-Bar-1.0.tar.bz2", "foo-bar", "1.0", SDIST),
    ("foo-1.0.tar.xz", "foo", "1.0", SDIST),
    ("foo-1.0.zip", "foo", "1.0", SDIST),
    ("foo-1.0.sdist.tar.gz", "foo", "1.0", SDIST),
    ("foo-1.0-py3.8.tar.gz", "foo", "1.0", SDIST),
    ("foo-1.0-1.tar.gz", "foo", "1.0.post1", SDIST),
    ("foo-1.0-beta1.tar.gz", "foo", "1.0b1", SDIST),
    ("foo-1.0-post-1.tar.gz", "foo", "1.0.post1", SDIST),
    ("foo-2-1.0.tar.gz", "foo-2", "1.0", SDIST),
    ("foo-1!2.0.tar.gz", "foo", "1!2.0", SDIST),
    ("foo-1.0+ubuntu-1.tar.gz", "foo", "1.0+ubuntu.1", SDIST),
    ("pytz-2011b.tar.bz2", "pytz", "2011b0", SDIST),
    ("ABC12-34_V1X-1.2.3.zip", "abc12-34-v1x", "1.2.3", SDIST),
    ("A100-200-XYZ-1.2.3.zip", "a100-200-xyz", "1.2.3", SDIST),
    ("flup-1.0.3.dev-20110405.tar.gz", "flup", "1.0.3.dev20110405", SDIST),
    ("package-1.0.0-alpha.1.zip", "package", "1.0.0a1", SDIST),
    ("package-1.3.7+build.11.e0f985a.zip",
     "package", "1.3.7+build.11.e0f985a", SDIST),
    ("package-v1-8.1.301.ga0df26f.zip",
     "package-v1", "8.1.301.ga0df26f", SDIST),
    ("package-v1.1-8.1.301.ga0df26f.zip",
     "package-v1-1", "8.1.301.ga0df26f", SDIST),
    ("package-2013.02.17.dev123.zip", "package", "2013.2.17.dev123", SDIST),
    ("package-20000101.zip", "package", "20000101", SDIST),
    ("flup-123-1.0.3.dev-20110405.tar.gz",
     "flup-123", "1.0.3.dev20110405", SDIST),
    ("package-123-1.0.0-alpha.1.zip", "package-123", "1.0.0a1", SDIST),
    ("package-123-v1.1_3-8.1.zip", "package-123-v1-1-3", "8.1", SDIST),
    # Versions that are none (PEP 440), and none at all.
    ("foo-1.0-final-fix.tar.gz", "foo", "1.0-final-fix", SDIST),
    ("foo-bar-snapshot.tar.gz", "foo-bar", "snapshot", SDIST),
    ("foo.zip", "foo", "", SDIST),
    # Letters beyond ASCII, and what URLs and HTML must escape.
    ("M\xf6hre-1.0.tar.gz", "m\xf6hre", "1.0", SDIST),
    ("a b-1.0.tar.gz", "a b", "1.0", SDIST),
    ("a%41-1.0#2.tar.gz", "a%41", "1.0#2", SDIST),
    ("a&b'\"<c>-1.0.tar.gz", "a&b'\"<c>", "1.0", SDIST),
)

NO_ARCHIVES = (
    "", "README.txt", "foo", "foo-1.0", "foo-1.0.txt", "foo-1.0.tar",
    "foo-1.0.deb", "foo-1.0.gz", "index.html", "foo.whl", "foo-1.0.whl",
    "foo-1.0-py3-none.whl", "foo-1.0-build-py3-none-any.whl",
    "foo-1.0-1-2-py3-none-any.whl", "-1.0-py3-none-any.whl",
    ".tar.gz", ".zip", ".whl", ".egg",
    # Companions and what is not an archive yet.
    "foo-1.0.tar.gz.asc", "foo-1.0-py3-none-any.whl.asc",
    "foo-1.0.tar.gz.yanked", "foo-1.0.tar.gz.provenance",
    "foo-1.0-py3-none-any.whl.metadata", "foo.status",
    "foo-1.0-py2.7-win32.egg.asc", "foo-1.0-py2.7-linux.asc",
    "foo-1.0-py2.7-linux.metadata", "foo-1.0-py2.7.status",
    "foo-1.0.tar.gz.part", "foo-1.0.tar.gz.partial",
    "foo-1.0.tar.gz.filepart", "foo-1.0.tar.gz.tmp", "foo-1.0.tar.gz~",
    "foo-1.0-py3-none-any.whl.crdownload", "foo-1.0-py2.7-linux.part",
)

STEMS = (
    ("foo-1.0", "foo", "1.0"),
    ("foo", "foo", ""),
    ("foo-", "foo", ""),
    ("foo-bar-", "foo-bar", ""),
    ("foo-1.0-1", "foo", "1.0-1"),
    ("foo-1.0-rc-1", "foo", "1.0-rc-1"),
    ("foo-2-1.0", "foo-2", "1.0"),
    ("a-1-1", "a", "1-1"),
    ("foo-v1.0", "foo", "v1.0"),
    ("foo-1.x", "foo", "1.x"),
)

NAMES = (
    ("Foo.Bar", "foo-bar"), ("foo_bar", "foo-bar"), ("foo-bar", "foo-bar"),
    ("FOO-._BAR", "foo-bar"), ("foo--bar", "foo-bar"), ("foo", "foo"),
    ("F\xd6\xd6", "f\xf6\xf6"), ("a.b_c-d", "a-b-c-d"), ("..", "-"),
)

# Ascending; those in one row are one release.
ORDER = (
    ("2004-final",), ("snapshot",),
    ("0.dev0",), ("0", "0.0", "0.0.0"), ("0.1",),
    ("1.dev0", "1.0dev", "1.0.DEV0", "1.0-dev_0"),
    ("1.dev456", "1.0.dev456"),
    ("1a1.dev1",), ("1.0a1", "1.0-alpha-1", "1.0.ALPHA1", "v1a1"),
    ("1.0a1.post1.dev3",), ("1.0a1.post1",), ("1a2.dev456",),
    ("1.0a12.dev456",), ("1.0a12",), ("1.0b1.dev456",),
    ("1.0b2", "1.0beta2"), ("1.0b2.post345.dev456",),
    ("1.0b2.post345", "1.0b2-345"), ("1.0rc1.dev456",),
    ("1.0rc1", "1.0c1", "1.0pre1", "1.0-preview-1"),
    ("1", "1.0", "1.0.0", "v1.0", "01.00", " 1.0 "),
    ("1.0+abc", "1.0+ABC"), ("1.0+abc.5", "1.0+abc_5"), ("1.0+abc.7",),
    ("1.0+5", "1.0+05"), ("1.0+5.a",), ("1.0+5.1",), ("1.0+10",),
    ("1.0.post456.dev34",), ("1.0.post456", "1.0-456", "1.0rev456"),
    ("1.0.post456+x",), ("1.0.1.dev1",), ("1.0.1",), ("1.0.15",),
    ("1.1.dev1",), ("1.1",), ("1.10",), ("2",), ("2004",),
    ("1!0.1",), ("1!1.0",), ("2!0",),
)

NORMAL = (
    ("1.0", "1.0"), ("v1.0", "1.0"), ("V1.0", "1.0"), ("1.0.0", "1.0.0"),
    ("001.010", "1.10"), ("0!1.0", "1.0"), ("1!1.0", "1!1.0"),
    ("1.0ALPHA", "1.0a0"), ("1.0-beta.3", "1.0b3"), ("1.0c1", "1.0rc1"),
    ("1.0.pre", "1.0rc0"), ("1.0_preview_7", "1.0rc7"),
    ("1.0-1", "1.0.post1"), ("1.0r", "1.0.post0"), ("1.0.rev3", "1.0.post3"),
    ("1.0post", "1.0.post0"), ("1.0dev", "1.0.dev0"),
    ("1.0a1.dev3", "1.0a1.dev3"), ("1.0+Ubuntu-1_2", "1.0+ubuntu.1.2"),
    ("1.0+001", "1.0+1"), ("1.0+00a", "1.0+00a"), ("\t1.0\n", "1.0"),
    # Legacy versions stay as they are.
    ("2004-final", "2004-final"), ("1.0-x-y", "1.0-x-y"), ("", ""),
    ("1.0#2", "1.0#2"),
)

LEGACY = (
    "", " ", "v", "abc", "1.", ".1", "1..0", "1.0-", "1.0+", "1.0+a..b",
    "1.0+a-", "1.0-1-2", "1.0a1b1", "1!", "!1", "1!1!1", "1 .0", "1.0 a1",
    "2004d", "1.0-final", "1.0.0.x", "1.0.*", "1,0", "1.0\n1",
    # int() takes these digits, PEP 440 does not.
    "\u0661.\u0660", "1.\xb2", "1.0a\u0661", "1.0+\u0661", "\uff11.0",
    # The Kelvin sign and the long s match under IGNORECASE without ASCII.
    "1.0.po\u017ft1", "1.0+\u212a",
    # int() refuses more than 4300 digits.
    "9" * 5000, "1." * 5000 + "1", "1.0+" + "a" * 5000,
)

PRERELEASES = ("1.0a1", "1.0.dev1", "1.0rc1.post2", "1.0.post1.dev2")
FINALS = ("1.0", "1.0.post1", "1.0+dev", "2004-final", "", "1!1")


class TestFilenames(unittest.TestCase):
    def test_archives(self):
        for filename, project, version, filetype in FILENAMES:
            with self.subTest(filename):
                found = parse_filename(filename)
                self.assertIsInstance(found, Filename)
                self.assertEqual(
                    (project, version),
                    (found.project, normalize_version(found.version)))
                if filetype:
                    self.assertEqual(filetype, found.filetype)

    def test_others_are_no_archives(self):
        for filename in NO_ARCHIVES:
            with self.subTest(filename):
                self.assertIsNone(parse_filename(filename))

    def test_spellings_are_one_project(self):
        for name in ("Foo.Bar", "foo_bar", "foo-bar", "FOO--Bar"):
            for rest in ("-1.0.tar.gz", "-1.0.zip", "-1.0.tgz"):
                with self.subTest(name + rest):
                    self.assertEqual(
                        ("foo-bar", "1.0"),
                        parse_filename(name + rest)[:2])

    def test_stems(self):
        for stem, name, version in STEMS:
            with self.subTest(stem):
                self.assertEqual((name, version), split_stem(stem))

    def test_anything_is_parsed_in_time(self):
        """No name makes a regular expression run for ever."""
        for part in "-", "1", "a", "1-", "a-", ".", "-py2.", "-py2.7-", "_":
            for end in ".whl", ".egg", ".tar.gz", ".exe", "", "\n":
                parse_filename(part * (250 // len(part)) + end)


class TestNames(unittest.TestCase):
    def test_normalize(self):
        for name, normal in NAMES:
            with self.subTest(name):
                self.assertEqual(normal, normalize(name))
                self.assertEqual(normal, normalize(normal))


class TestVersions(unittest.TestCase):
    def test_order(self):
        keys = [(place, text, version_key(text))
                for place, row in enumerate(ORDER) for text in row]
        for place, text, key in keys:
            for other_place, other, other_key in keys:
                self.assertEqual(
                    (place < other_place, place == other_place),
                    (key < other_key, key == other_key), (text, other))

    def test_normal_form(self):
        for text, normal in NORMAL:
            with self.subTest(text):
                self.assertEqual(normal, normalize_version(text))
                self.assertEqual(normal, normalize_version(normal))
                self.assertEqual(version_key(text), version_key(normal))

    def test_legacy_versions_sort_below(self):
        for text in LEGACY:
            with self.subTest(text[:40]):
                self.assertIsNone(parse_version(text))
                self.assertEqual(text, normalize_version(text))
                self.assertLess(version_key(text), version_key("0.dev0"))
                self.assertFalse(is_prerelease(text))
        sorted(LEGACY, key=version_key)

    def test_prereleases(self):
        for text in PRERELEASES:
            self.assertTrue(is_prerelease(text), text)
        for text in FINALS:
            self.assertFalse(is_prerelease(text), text)


if __name__ == "__main__":
    unittest.main()
