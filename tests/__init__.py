"""Tests of pypi_server.py; nothing to install: python3 -m unittest

`python3 -m tests` runs these and the tests with real clients, on every
Python that it finds.
"""
