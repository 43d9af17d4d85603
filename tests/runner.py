"""Run test modules in this interpreter and leave a summary for the caller.

    python -m tests.runner SUMMARY.json MODULE ...

The summary has `passed`, `seconds`, `failed` and `skipped`; the last two are
lists of [test, text], where the text is the traceback or the reason.
"""

import json
import sys
import time
import unittest


class Result(unittest.TestResult):
    """Counts each test once, however many of its subtests fail."""

    def __init__(self):
        super().__init__()
        self.passed = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.passed += 1

    def summary(self):
        failed = {}
        for test, text in self.failures + self.errors:
            # A subtest is an object of its own; its name begins with the
            # test's.
            owner = getattr(test, "test_case", test)
            failed.setdefault(str(owner), []).append(
                text if owner is test else "%s\n%s" % (test, text))
        for test in self.unexpectedSuccesses:
            failed.setdefault(str(test), []).append("unexpected success")
        return {
            "passed": self.passed,
            "failed": [[name, "\n".join(texts)]
                       for name, texts in failed.items()],
            "skipped": [[str(test), reason]
                        for test, reason in self.skipped]}


def main(path, *modules):
    loader = unittest.TestLoader()
    suite = unittest.TestSuite()
    result = Result()
    start = time.perf_counter()
    for module in modules:
        try:
            suite.addTest(loader.loadTestsFromName(module))
        except unittest.SkipTest as reason:  # raised while importing it
            result.addSkip(module, str(reason))
    suite.run(result)
    summary = result.summary()
    summary["seconds"] = time.perf_counter() - start
    with open(path, "w") as file:
        json.dump(summary, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
