"""Section Htpasswd: lines, hashes against known ones, Basic headers."""

import base64
import ctypes
import ctypes.util
import os
import shutil
import subprocess
import tempfile
import unittest

from pypi_server import (
    new_hash, parse_basic, parse_htpasswd, verify_here, verify_password,
)

LONG = ("a very much longer text to encrypt.  This one even stretches over "
        "morethan one line.")
UMLAUTS = "p\xe4ssw\xf6rd"

# Of Apache's htpasswd 2.4.71, OpenSSL 3.0.19 (both printed the same), and
# https://www.akkadia.org/drepper/SHA-crypt.txt.
VECTORS = (
    ("password", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="),
    ("", "{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk="),
    ("password", "$apr1$abcdefgh$FBwExRW4dCc8aL.OvjpIE1"),
    ("", "$apr1$x$tMwYqBfQwi3FYAr0aJc8M/"),
    ("x" * 40, "$apr1$12345678$lmvIejSHXo9SZNHoskkNr0"),
    (UMLAUTS, "$apr1$a$2d01Xy0fbE0vXnDa5etP6/"),
    ("myPassword", "$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/"),
    ("password", "$apr1$rn99URSt$qBcdGlBlewsBGWJG5wsA/1"),
    ("password", "$1$abcdefgh$G//4keteveJp0qb8z2DxG/"),
    ("", "$1$x$fwjfZtMwarkdetsjiQreU1"),
    ("x" * 40, "$1$12345678$WmUwxmYnSdAX9cEZA7SiC."),
    (UMLAUTS, "$1$a$E98LgktP6GDXLUgXJ7bs8/"),
    ("Hello world!",
     "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
    ("Hello world!",
     "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2."
     "opqey6IcA"),
    (LONG, "$5$rounds=1400$anotherlongsalts$Rx.j8H.h8HjEDGomFU8bDkXm3XIUnzyx"
     "f12oP84Bnq1"),
    ("we have a short salt string but not a short password",
     "$5$rounds=77777$short$JiO1O3ZpDAxGJeaDIuqCoEFysAe1mZNJRs3pw0KQRd/"),
    ("a short string",
     "$5$rounds=123456$asaltof16chars..$gP3VQ/6X7UUEW3HkBn2w1/Ptq2jxPyzV/cZK"
     "mF/wJvD"),
    ("x" * 300, "$5$a$.5l.iPuZZ/31D9OrhCmh5KzQcUvgwfMqCA8TCGk5eo7"),
    ("Hello world!",
     "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI"
     "68u4OTLiBFdcbYEdFCoEOfaS35inz1"),
    ("Hello world!",
     "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbb"
     "MCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v."),
    (LONG, "$6$rounds=1400$anotherlongsalts$POfYwTEok97VWcjxIiSOjiykti.o/pQs"
     ".wPvMxQ6Fm7I6IoYN3CmLs66x9t0oSwbtEW7o7UmJEiDwGqd8p4ur1"),
    ("", "$6$rounds=1000$x$JUgHESfT/mKR2X.Qz/PrkEgBINN.wbH/GsJhhFRcgrb0a4MjV"
     "YFixxXtKicccBbv9PSG/n1kVdpVqZiR7Brv1."),
    (UMLAUTS, "$6$a$OKrcUSoIZoiG4funxwR5M0Cdjn4r6bVFeOsvtx043G7n7r8nLbeKuJB5"
     "/YRFX2PMrcP/rrx/9NoGI.2s53a92."),
    ("password",
     "$6$G5chUPilL3iwgEAl$VLIpvCllUfa2vQ.Vsxipdc9oUzM12TjsqsGRXP4S3WRi0ZEzvw"
     "0udgckAbqUS9oqYi8FG.41YpxeDkTb8P4NH/"),
)
# The system must know these.
BCRYPT = (
    ("password",
     "$2y$05$7.VIbCxv0.eJwW.iDq2kCeVTNC1T3akEjcfwx4ujjNU5vmDizshfK"),
    ("p\xe4ss",
     "$2b$04$......................oT6uTB2fNtbg.neehfRQ6damJwBl.jm"),
    # Of jBCrypt.
    ("", "$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s."),
)


def crypt_of_the_system(password, setting):
    """Call crypt(3), as Apache and nginx do; None where it is not."""
    name = ctypes.util.find_library("crypt")
    if not name:
        return None
    function = ctypes.CDLL(name).crypt
    function.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
    function.restype = ctypes.c_char_p
    found = function(password.encode("utf-8"), setting.encode())
    return found.decode() if found else None


def nowhere(password, digest):
    """Stand for a system that knows no further hashes."""
    return


class HashTest(unittest.TestCase):

    def check(self, vectors, elsewhere):
        for password, digest in vectors:
            data = password.encode("utf-8")
            with self.subTest(password=password, digest=digest):
                self.assertIs(
                    verify_password(data, digest, elsewhere), True)
                self.assertIs(
                    verify_password(data + b" ", digest, elsewhere), False)

    def test_other_hashes_of_the_same_password(self):
        for password, digest in VECTORS[:9]:
            with self.subTest(digest=digest):
                changed = digest[:-1] + ("x" if digest[-1] != "x" else "y")
                self.assertFalse(verify_password(
                    password.encode("utf-8"), changed, nowhere))

    def test_hashes_that_need_no_help(self):
        self.check(VECTORS, nowhere)

    def test_bcrypt(self):
        if not (crypt_of_the_system(*BCRYPT[0]) or "").startswith("$2y$"):
            self.skipTest("crypt(3) of this system does not know bcrypt")
        for password, digest in BCRYPT:
            with self.subTest(digest=digest):
                data = password.encode("utf-8")
                self.assertIs(
                    verify_password(data, digest, verify_here), True)
                self.assertIs(verify_password(
                    b"wrong", digest, verify_here), False)

    def test_kinds_that_nobody_knows(self):
        for digest in ("$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA", "$nosuch$",
                       "$", "$$", "$9$salt$hash", "$2y$05$short", "$1$", "$5$",
                       "$6$rounds=x$salt$hash", "$apr1$too-long-salt$x"):
            for elsewhere in (nowhere, verify_here):
                with self.subTest(digest=digest, elsewhere=elsewhere):
                    self.assertFalse(verify_password(b"", digest, elsewhere))

    def test_hashes_with_something_wrong(self):
        for digest in ("{SHA}", "{SHA}!", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g",
                       "{SHA}\xfc", "$apr1$a$\xfc"):
            with self.subTest(digest=digest):
                self.assertFalse(
                    verify_password(b"password", digest, nowhere))

    def test_the_system_agrees(self):
        if not crypt_of_the_system("x", "$6$salt$"):
            self.skipTest("crypt(3) of this system does not know SHA-512")
        for password, digest in VECTORS + BCRYPT:
            if digest.startswith(("$1$", "$5$", "$6$", "$2y$")):
                with self.subTest(digest=digest):
                    self.assertEqual(
                        crypt_of_the_system(password, digest), digest)


class NewHashTest(unittest.TestCase):
    """What `passwd` writes, Apache and nginx on Linux read as well."""

    PASSWORDS = ("secret", UMLAUTS, "a:b", " x ", "\u20ac" * 60, "x" * 400)

    def test_new_hashes_verify_and_differ(self):
        for password in self.PASSWORDS:
            digest = new_hash(password)
            with self.subTest(password=password):
                self.assertTrue(verify_password(
                    password.encode("utf-8"), digest, nowhere))
                self.assertFalse(verify_password(b"x", digest, nowhere))
                self.assertNotEqual(new_hash(password), digest)

    def test_libcrypt(self):
        if not crypt_of_the_system("x", "$6$salt$"):
            self.skipTest("crypt(3) of this system does not know SHA-512")
        for password in self.PASSWORDS:
            digest = new_hash(password)
            self.assertEqual(crypt_of_the_system(password, digest), digest)

    def test_openssl(self):
        openssl = shutil.which("openssl")
        if not openssl:
            self.skipTest("no program openssl")
        for password in self.PASSWORDS[:4]:
            digest = new_hash(password)
            _, kind, rounds, salt, _ = digest.split("$")
            process = subprocess.run(
                [openssl, "passwd", "-" + kind, "-salt",
                 "%s$%s" % (rounds, salt), "-stdin"],
                input=password.encode("utf-8"), stdout=subprocess.PIPE,
                stderr=subprocess.PIPE)
            if process.returncode:
                self.skipTest("openssl: %r" % process.stderr)
            self.assertEqual(process.stdout.decode().strip(), digest)

    def test_htpasswd(self):
        htpasswd = shutil.which("htpasswd")
        if not htpasswd:
            self.skipTest("no program htpasswd")
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "users")
            with open(path, "w") as file:
                for number, password in enumerate(self.PASSWORDS[:4]):
                    file.write("u%d:%s\n" % (number, new_hash(password)))
            for number, password in enumerate(self.PASSWORDS[:4]):
                for sent, status in ((password, 0), ("wrong", 3)):
                    process = subprocess.run(
                        [htpasswd, "-vb", path, "u%d" % number, sent],
                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                    self.assertEqual(
                        process.returncode, status, process.stderr)


# text of the file, users in order, number and a word of each problem
LINES = (
    ("", {}, ()),
    ("joe:{SHA}x", {"joe": "{SHA}x"}, ()),
    ("joe:{SHA}x\n", {"joe": "{SHA}x"}, ()),
    ("joe:{SHA}x\r\njim:{SHA}y\r\n", {"joe": "{SHA}x", "jim": "{SHA}y"}, ()),
    ("\ufeffjoe:{SHA}x\n", {"joe": "{SHA}x"}, ()),
    ("\ufeff# staff\njoe:{SHA}x\n", {"joe": "{SHA}x"}, ()),
    ("\n  \n\t\r\n# staff\n  # more: x\njoe:{SHA}x\n\n", {"joe": "{SHA}x"},
     ()),
    ("  joe:{SHA}x  \n", {"joe": "{SHA}x"}, ()),
    ("joe:{SHA}x:Joe Doe:more\n", {"joe": "{SHA}x"}, ()),
    ("J\xf6rg:{SHA}x\n\udcfc:{SHA}y\n",
     {"J\xf6rg": "{SHA}x", "\udcfc": "{SHA}y"}, ()),
    ("joe doe:{SHA}x\n", {"joe doe": "{SHA}x"}, ()),
    ("joe:$apr1$s$h\njim:$2y$05$x\n", {"joe": "$apr1$s$h",
                                       "jim": "$2y$05$x"}, ()),
    # Twins: the first counts, as in Apache.
    ("joe:{SHA}x\njoe:{SHA}y\n", {"joe": "{SHA}x"}, ((2, "joe"),)),
    ("joe:{SHA}x\nJoe:{SHA}y\n", {"joe": "{SHA}x", "Joe": "{SHA}y"}, ()),
    # A line that is wrong does not concern the others.
    ("joe\njim:{SHA}y\n", {"jim": "{SHA}y"}, ((1, "USER:HASH"),)),
    ("joe:\njim:{SHA}y\n", {"jim": "{SHA}y"}, ((1, "USER:HASH"),)),
    (":{SHA}x\njim:{SHA}y\n", {"jim": "{SHA}y"}, ((1, "USER:HASH"),)),
    (":\njim:{SHA}y\n", {"jim": "{SHA}y"}, ((1, "USER:HASH"),)),
    ("jim:{SHA}y\n\n# x\n\0\x01garbage\xff\n", {"jim": "{SHA}y"},
     ((4, "USER:HASH"),)),
    # Plain text and DES: anybody with eyes, or a laptop, has the password.
    ("joe:secret\njim:{SHA}y\n", {"jim": "{SHA}y"}, ((1, "plain text"),)),
    ("joe:tl8wKGk3Hj4VU\njim:{SHA}y\n", {"jim": "{SHA}y"},
     ((1, "DES"),)),
    ("joe:_J9..rasmBYk8r9AiWNc\n", {}, ((1, "DES"),)),
    ("joe:{PLAIN}x\n", {}, ((1, "plain text"),)),
    # No hash has such characters, and what verifies them may not like them.
    ("joe:$6$sa\udcfflt$x\njim:{SHA}y\n", {"jim": "{SHA}y"}, ((1, "joe"),)),
    ("joe:{SHA}\xe4\njim:{SHA}y\nann:$2y$05$\0x\n", {"jim": "{SHA}y"},
     ((1, "joe"), (3, "ann"))),
    ("a:x\nb:{SHA}y\nc\nb:{SHA}z\n", {"b": "{SHA}y"},
     ((1, "a"), (3, "USER:HASH"), (4, "b"))),
    # A line ends with \n, for Apache and for editors that count.
    ("# page\x0cjoe:{SHA}x\njim\n", {}, ((2, "USER:HASH"),)),
    ("# \u2028joe:{SHA}x\n# \x85joe:{SHA}x\n# \x1cjoe:{SHA}x\njim\n", {},
     ((4, "USER:HASH"),)),
)


class LinesTest(unittest.TestCase):

    def test_lines(self):
        for text, expected, wrong in LINES:
            with self.subTest(text=text):
                users, problems = parse_htpasswd(text)
                self.assertEqual(users, expected)
                self.assertEqual(len(problems), len(wrong), problems)
                for problem, (number, word) in zip(problems, wrong):
                    self.assertRegex(problem, r"\bline %d\b" % number)
                    self.assertIn(word, problem)

    def test_problems_do_not_tell_passwords(self):
        _, problems = parse_htpasswd("joe:secret\njim secret\njoe:{SHA}x:y\n")
        self.assertNotIn("secret", " ".join(problems))


def basic(text, coding="utf-8"):
    return "Basic " + base64.b64encode(text.encode(coding)).decode()


# header, credentials
HEADERS = (
    (basic("joe:secret"), ("joe", "secret")),
    (basic("joe:secret").replace("Basic", "basic"), ("joe", "secret")),
    (basic("joe:secret").replace("Basic", "BASIC"), ("joe", "secret")),
    (basic("joe:secret").replace(" ", "  ") + " ", ("joe", "secret")),
    (basic("joe:a:b::"), ("joe", "a:b::")),
    (basic("joe:"), ("joe", "")),
    (basic(":secret"), ("", "secret")),
    (basic(":"), ("", "")),
    (basic("J\xf6rg:p\xe4ss"), ("J\xf6rg", "p\xe4ss")),
    (basic("J\xf6rg:p\xe4ss", "latin-1"), ("J\xf6rg", "p\xe4ss")),
    (basic("joe:\u20ac"), ("joe", "\u20ac")),
    (basic("joe: x "), ("joe", " x ")),
    (basic("__token__:pypi-x"), ("__token__", "pypi-x")),
    (basic("joe:\0"), ("joe", "\0")),
    ("", None),
    ("Basic", None),
    ("Basic ", None),
    (basic(""), None),
    (basic("joe"), None),
    ("Basic joe:secret", None),
    ("Basic am9lOnNlY3JldA", None),       # without its padding
    ("Basic am9lOnNlY3JldA===", None),
    ("Basic am9lOnNl Y3JldA==", None),
    ("Basic am9lOnNlY3Jl\xfcdA==", None),
    ("Basic ====", None),
    ("Basic " + "=" * 99999, None),
    ("Basic\tam9lOnNlY3JldA==", None),
    ("Bearer am9lOnNlY3JldA==", None),
    ("Digest username=\"joe\"", None),
    ("am9lOnNlY3JldA==", None),
    ("\0", None),
)


class BasicTest(unittest.TestCase):

    def test_headers(self):
        for header, expected in HEADERS:
            with self.subTest(header=header[:99]):
                self.assertEqual(parse_basic(header), expected)


if __name__ == "__main__":
    unittest.main()
