"""Accounts that come from the system or from a directory, as in the guide.

The application of the guide runs in gunicorn, with python-pam on Debian's
PAM and ldap3 on Debian's slapd.
"""

import glob
import os
import shlex
import subprocess
import unittest

import pypi_server
from tests import forms, guide, toolbox
from tests.helpers import DirectoryTestCase
from tests.processes import Process, free_port
from tests.test_recipes import program

JOE = forms.credentials("joe", "secret")
DENIED = (forms.credentials("joe", "wrong"), forms.credentials("joe", ""),
          forms.credentials("", "secret"), forms.credentials("jim", "secret"),
          forms.credentials("joe,ou=people", "secret"), {})
# What stands before a service of PAM and asks a script.
PAM_SERVICE = """\
auth required pam_exec.so quiet expose_authtok {folder}/check
auth required pam_permit.so
account required pam_permit.so
"""
PAM_CHECK = """\
#!/bin/sh
test "$PAM_USER:$(tr -d '\\0')" = joe:secret
"""
SLAPD = """\
include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/pid
database mdb
suffix "dc=example,dc=org"
directory {folder}/database
TLSCertificateFile {folder}/ca.pem
TLSCertificateKeyFile {folder}/key.pem
"""
ENTRIES = """\
dn: dc=example,dc=org
objectClass: organization
objectClass: dcObject
o: Example
dc: example

dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people

dn: uid=joe,ou=people,dc=example,dc=org
objectClass: person
objectClass: uidObject
uid: joe
cn: Joe
sn: Joe
userPassword: secret
"""


class AutherTestCase(DirectoryTestCase):
    def write(self, name, text, mode=0o600):
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write(text.replace("{folder}", self.folder))
        os.chmod(path, mode)
        return path

    def application(self, name, *replacements):
        """Return the command that serves a file of the guide, and a port."""
        text = guide.recipe(name).replace("/srv/packages", self.root)
        for old, new in replacements:
            self.assertIn(old, text)
            text = text.replace(old, new)
        self.write(name, text)
        command = "gunicorn --threads 16 accounts_ldap:application"
        self.assertIn("`%s`" % command, guide.read())
        words = shlex.split(command.replace(
            "accounts_ldap", name.partition(".")[0]))
        port = free_port()
        site, = glob.glob(os.path.join(os.path.dirname(toolbox.require(
            "accounts")), "..", "lib", "*", "site-packages"))
        return [toolbox.require("servers", "gunicorn")] + words[1:] + [
            "--pythonpath", site, "-b", "127.0.0.1:%d" % port], port

    def check(self, server, path, status):
        self.assertEqual(status, server.get(path, JOE).status)
        for credentials in DENIED:
            self.assertEqual(401, server.get(path, credentials).status)


class TestPam(AutherTestCase):
    def test_guide(self):
        if not hasattr(os, "geteuid") or os.geteuid():
            self.skipTest("only root may mount another service of PAM")
        program("unshare", "util-linux")
        self.write("check", PAM_CHECK, 0o700)
        service = self.write("login", PAM_SERVICE)
        command, port = self.application("accounts_pam.py")
        command = ["unshare", "-m", "sh", "-c", (
            "mount --bind %s /etc/pam.d/login && exec " % service)
            + " ".join(map(shlex.quote, command))]
        with Process(command, port, self.folder) as server:
            self.check(server, "/simple/", 200)
            self.check(server, "/packages/none", 404)
            self.assertEqual(200, server.get("/health").status)


class TestLdap(AutherTestCase):
    def start_slapd(self):
        """Return the port of a directory that knows joe."""
        slapd = program("slapd", "slapd")
        subprocess.check_output(
            [program("openssl", "openssl"), "req", "-x509", "-nodes",
             "-newkey", "rsa:2048", "-keyout", "key.pem", "-out", "ca.pem",
             "-subj", "/CN=localhost", "-addext",
             "subjectAltName=DNS:localhost"], cwd=self.folder,
            stderr=subprocess.STDOUT)
        configuration = self.write("slapd.conf", SLAPD)
        os.mkdir(os.path.join(self.folder, "database"))
        subprocess.check_output(
            [program("slapadd", "slapd"), "-q", "-f", configuration, "-l",
             self.write("entries", ENTRIES)], stderr=subprocess.STDOUT)
        port = free_port()
        self.slapd = Process(
            [slapd, "-f", configuration, "-d", "0", "-h",
             "ldaps://127.0.0.1:%d" % port], port, self.folder)
        self.slapd.__enter__()
        self.addCleanup(self.slapd.__exit__)
        return port

    def test_guide(self):
        url = "ldaps://localhost:%d" % self.start_slapd()
        command, port = self.application(
            "accounts_ldap.py", ("ldaps://ldap.example.org", url))
        headers, body = forms.post([(":action", "submit")])

        def status(credentials):
            return server.get("/", dict(headers, **credentials), "POST",
                              body).status
        with Process(command, port, self.folder, SSL_CERT_FILE=os.path.join(
                self.folder, "ca.pem")) as server:
            self.assertEqual(200, status(JOE))
            for credentials in DENIED:
                self.assertEqual(401, status(credentials))
            self.assertEqual(200, server.get("/simple/").status)
            # A directory that is down lets nobody in.
            self.slapd.stop()
            self.assertEqual(500, status(JOE))

    def test_directory_of_somebody_else(self):
        """Its certificate is checked."""
        url = "ldaps://localhost:%d" % self.start_slapd()
        command, port = self.application(
            "accounts_ldap.py", ("ldaps://ldap.example.org", url))
        with Process(command, port, self.folder) as server:
            headers, body = forms.post([(":action", "submit")])
            answer = server.get("/", dict(headers, **JOE), "POST", body)
            self.assertEqual(500, answer.status)
            self.assertIn("CERTIFICATE_VERIFY_FAILED", server.printed())


class TestWsgi(AutherTestCase):
    def test_guide(self):
        text = guide.recipe("wsgi.py").replace("/srv/packages", self.root)
        found = {"pypi_server": pypi_server}
        exec(compile(text, "wsgi.py", "exec"), found)
        self.assertTrue(callable(found["application"]))


if __name__ == "__main__":
    unittest.main()
