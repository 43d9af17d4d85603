"""Section Names: versions agree with the packaging library."""

import contextlib
import random
import unittest

from pypi_server import (
    is_prerelease, normalize_version, parse_version, version_key,
)

try:
    from packaging import version as packaging_version
except ImportError:
    packaging_version = None


@unittest.skipUnless(packaging_version, "packaging is not installed")
class TestAgainstPackaging(unittest.TestCase):
    """The same versions, in the same order, as the packaging library."""

    SEED = 440
    COUNT = 30000

    def setUp(self):
        chance = random.Random(self.SEED)
        self.texts = [random_version(chance) for _ in range(self.COUNT)]
        self.valid = {}
        for text in self.texts:
            with contextlib.suppress(packaging_version.InvalidVersion):
                self.valid[text] = packaging_version.Version(text)
        self.assertGreater(len(self.valid), self.COUNT // 3)
        self.assertLess(len(self.valid), self.COUNT)

    def test_same_versions(self):
        for text in self.texts:
            self.assertEqual(
                text in self.valid, parse_version(text) is not None, text)

    def test_same_normal_form(self):
        for text, version in self.valid.items():
            self.assertEqual(str(version), normalize_version(text), text)
            self.assertEqual(
                version.is_prerelease, is_prerelease(text), text)

    def test_same_order(self):
        chance = random.Random(self.SEED)
        texts = sorted(self.valid)
        pairs = [(chance.choice(texts), chance.choice(texts))
                 for _ in range(self.COUNT)]
        ordered = sorted(texts, key=self.valid.get)
        pairs += zip(ordered, ordered[1:])
        for one, other in pairs:
            mine = version_key(one), version_key(other)
            theirs = self.valid[one], self.valid[other]
            self.assertEqual(
                (theirs[0] < theirs[1], theirs[0] == theirs[1]),
                (mine[0] < mine[1], mine[0] == mine[1]), (one, other))


def random_version(chance):
    """Return what may be a version, and often is one."""
    def maybe(share, *makers):
        return "".join(make() for make in makers) \
            if chance.random() < share else ""

    def pick(*choices):
        return lambda: chance.choice(choices)

    def number():
        return chance.choice("0 1 2 3 10 01 007 2004 20260101".split())

    def separator():
        return chance.choice(("", ".", "-", "_", "", ".", "--", " "))

    text = maybe(0.1, pick("v", "V", "v.")) + maybe(0.1, number, pick("!"))
    text += ".".join(number() for _ in range(chance.randint(1, 4)))
    text += maybe(0.1, pick(".0", ".00.0", "."))
    text += maybe(0.4, separator, pick(
        "a", "alpha", "b", "Beta", "c", "rc", "RC", "pre", "preview", "x"))
    text += maybe(0.3, separator, number)
    text += maybe(0.3, separator, pick("post", "rev", "r", "POST"))
    text += maybe(0.2, separator, number)
    text += maybe(0.3, separator, pick("dev", "Dev"))
    text += maybe(0.2, separator, number)
    text += maybe(0.2, pick("+"), pick("abc", "1", "01", "a1", "1a", "Z"))
    text += maybe(0.1, separator, pick("abc", "2", "02", "b2"))
    return maybe(0.05, pick(" ", "\t", "\n")) + text + maybe(
        0.05, pick(" ", "\n", "\xa0", "-", "+"))


if __name__ == "__main__":
    unittest.main()
