"""Runs files of PyMongo's own test suite, and says what became of each test: a line of JSON each.

The working directory is the folder that holds the suite's `test`; the server is named by `DB_IP` and `DB_PORT`, as the
suite wants it. Arguments: what pytest is to collect.
"""

import json
import os
import sys

import pytest

OPTIONS = [
    "--quiet",
    "--no-header",
    "--no-summary",
    "--tb=short",
    "-p", "no:cacheprovider",
    # What the suite's own configuration says, which is not part of `test`.
    "-o", "asyncio_default_fixture_loop_scope=session",
    "-W", "ignore::pytest.PytestUnknownMarkWarning",
]


class Teller:
    """Says a line as soon as a test has ended."""

    def __init__(self, out):
        self.out = out

    def say(self, line):
        print(json.dumps(line), file=self.out, flush=True)

    def pytest_runtest_logreport(self, report):
        if report.when != "call" and report.passed:
            return
        outcome = report.outcome
        if hasattr(report, "wasxfail"):
            outcome = "skipped"
        name = report.nodeid.split("::", 1)[-1]
        self.say({"test": name, "outcome": outcome, "why": reason(report)})

    def pytest_collectreport(self, report):
        if report.failed:
            self.say({"test": report.nodeid, "outcome": "failed", "why": report.longreprtext})


def reason(report):
    if report.passed:
        return ""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    return report.longreprtext


def main():
    out = sys.stdout
    # What pytest and the tests print is for nobody.
    sys.stdout = open(os.devnull, "w")
    code = pytest.main([*OPTIONS, *sys.argv[1:]], plugins=[Teller(out)])
    print(json.dumps({"end": int(code)}), file=out, flush=True)


if __name__ == "__main__":
    main()
