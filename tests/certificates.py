"""A private authority, and certificates of it, made with openssl."""

import os
import shutil
import ssl
import subprocess
import unittest

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
           "-nodes")
EXTENSIONS = """
subjectAltName = DNS:localhost, IP:127.0.0.1
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


def openssl(*arguments):
    """Run openssl, or skip the test."""
    if not shutil.which("openssl"):
        raise unittest.SkipTest("no program openssl")
    process = subprocess.run(
        ("openssl",) + arguments, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        universal_newlines=True)
    if process.returncode:
        raise AssertionError(process.stdout)


class Authority:
    """A private authority, with all its files in one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.path = os.path.join(folder, "ca.pem")
        openssl("req", "-x509", *NEW_KEY, "-days", "30", "-keyout",
                self.path + ".key", "-out", self.path, "-subj",
                "/CN=Authority of tests", "-addext",
                "keyUsage=critical,keyCertSign,cRLSign")

    def certify(self, name):
        """Return the paths of a new certificate for localhost and its key."""
        path = os.path.join(self.folder, name)
        with open(path + ".extensions", "w") as file:
            file.write(EXTENSIONS)
        openssl("req", *NEW_KEY, "-keyout", path + ".key", "-out",
                path + ".request", "-subj", "/CN=localhost")
        openssl("x509", "-req", "-in", path + ".request", "-CA", self.path,
                "-CAkey", self.path + ".key", "-CAcreateserial", "-days",
                "30", "-extfile", path + ".extensions", "-out", path + ".pem")
        return path + ".pem", path + ".key"

    def context(self):
        """Return what trusts this authority and nobody else."""
        return ssl.create_default_context(cafile=self.path)
