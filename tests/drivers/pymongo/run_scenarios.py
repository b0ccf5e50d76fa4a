"""Runs scenarios with PyMongo, one after another, as standard input says.

A line in, a line out, all of them JSON; README.md beside scenarios.json tells what they mean.
"""

import contextlib
import sys
import time
import traceback

import pymongo
from bson import json_util
from bson.son import SON
from pymongo import monitoring, read_preferences

from operations import Operations

# Nothing here takes so long, unless something is broken.
PATIENCE = 20


def say(**line):
    """Canonical, since types are to be compared too."""
    print(json_util.dumps(line, json_options=json_util.CANONICAL_JSON_OPTIONS), flush=True)


def heard():
    line = sys.stdin.readline()
    if not line:
        sys.exit()
    # Plain dates would lose what a driver in another language sees.
    return json_util.loads(line, json_options=json_util.JSONOptions(tz_aware=True))


class Commands(monitoring.CommandListener):
    """Counts what streams send, and what of it fails."""

    def __init__(self):
        self.streams = 0
        self.failed_get_mores = 0

    def started(self, event):
        pipeline = event.command.get("pipeline") or [{}]
        if event.command_name == "aggregate" and "$changeStream" in pipeline[0]:
            self.streams += 1

    def succeeded(self, event):
        pass

    def failed(self, event):
        if event.command_name == "getMore":
            self.failed_get_mores += 1


class Run:
    """One scenario."""

    def __init__(self, client, commands, database, scenario):
        self.client = client
        self.commands = commands
        self.database = client[database]
        self.watch = scenario["watch"]
        self.scenario = scenario
        self.operations = Operations(client, self.database, self)
        self.stream = None
        self.session = None
        self.seen = 0
        self.error = None

    def run(self):
        start = self.find_start()
        self.operations.run(self.scenario.get("missed", []))
        self.commands.streams = 0
        with contextlib.ExitStack() as stack:
            if self.watch.get("session"):
                self.session = stack.enter_context(self.client.start_session())
            self.attempt(lambda: self.open(stack, start))
            say(ready=start)
            heard()
            self.operations.run(self.scenario.get("operations", []))
            self.attempt(lambda: self.read(expected(self.scenario)))
            say(done={"error": self.error, "resumes": self.commands.streams - 1, "alive": self.alive()})

    def find_start(self):
        """Where the stream begins, as an option of watch; `before` has happened by then."""
        before = self.scenario.get("before", [])
        wanted = self.scenario.get("start")
        if wanted is None:
            self.operations.run(before)
            return {}
        if "startAtOperationTime" in wanted:
            self.operations.run(before)
            now = self.client.admin.command("ping")["operationTime"]
            return {"startAtOperationTime": time_after(now)}
        (option, index), = wanted.items()
        with self.target().watch(max_await_time_ms=100) as stream:
            self.operations.run(before)
            events = [stream.next() for _ in range(index + 1)]
        return {option: events[index]["_id"]}

    def target(self):
        return {
            "collection": self.database[self.watch.get("collection", "c")],
            "database": self.database,
            "cluster": self.client,
        }[self.watch["scope"]]

    def target_to_watch(self):
        if "readPreference" not in self.watch:
            return self.target()
        mode = read_preferences.make_read_preference(
            read_preferences.read_pref_mode_from_name(self.watch["readPreference"]), None
        )
        return self.target().with_options(read_preference=mode)

    def open(self, stack, start):
        given = {**self.watch, **start}
        options = {python: given[name] for name, python in OPTIONS.items() if name in given}
        options.setdefault("max_await_time_ms", 50)
        watch = self.target_to_watch().watch(self.watch.get("pipeline"), session=self.session, **options)
        self.stream = stack.enter_context(watch)

    def read(self, count):
        """Until this many events have been seen since the start, or the stream has ended."""
        end = time.monotonic() + PATIENCE
        while self.seen < count and self.alive():
            event = self.stream.try_next()
            if event is not None:
                self.seen += 1
                say(event=event)
            elif time.monotonic() > end:
                raise TimeoutError(f"{self.seen} of {count} events")

    def read_until_get_more_failed(self, failures):
        end = time.monotonic() + PATIENCE
        while self.commands.failed_get_mores < failures:
            event = self.stream.try_next()
            if event is not None:
                self.seen += 1
                say(event=event)
            elif time.monotonic() > end:
                raise TimeoutError("no getMore failed")

    def alive(self):
        return self.stream is not None and self.stream.alive

    def attempt(self, step):
        """An error of the stream is a result; of anything else, a failure."""
        if self.error is not None:
            return
        try:
            step()
        except pymongo.errors.OperationFailure as error:
            self.error = error.code

    # What operations need of the run.

    def fail_get_more(self, data):
        """Makes one getMore of each client fail, and lets both resume."""
        failures = self.commands.failed_get_mores + 1
        self.fail_point({**data, "appName": "driver"})
        self.attempt(lambda: self.read_until_get_more_failed(failures))
        say(catchUp="tail has the same events")
        heard()
        self.fail_point({**data, "appName": "tail"})
        say(wait="tail resumes")
        heard()

    def fail_point(self, data):
        command = SON([("configureFailPoint", "failCommand"), ("mode", {"times": 1})])
        command["data"] = {"failCommands": ["getMore"], **data}
        self.client.admin.command(command)

    def kill_cursor(self):
        """Kills the stream's cursor behind its back."""
        failures = self.commands.failed_get_mores + 1
        cursor = self.stream._cursor
        database, collection = cursor._ns.split(".", 1)
        self.client[database].command("killCursors", collection, cursors=[cursor.cursor_id])
        self.read_until_get_more_failed(failures)


def expected(scenario):
    """How many events to read; where an error is to follow, one more."""
    events = scenario["events"]
    count = sum(events.values()) if isinstance(events, dict) else len(events)
    return count + ("error" in scenario)


def time_after(timestamp):
    return type(timestamp)(timestamp.time, timestamp.inc + 1)


OPTIONS = {
    "fullDocument": "full_document",
    "fullDocumentBeforeChange": "full_document_before_change",
    "showExpandedEvents": "show_expanded_events",
    "batchSize": "batch_size",
    "maxAwaitTimeMS": "max_await_time_ms",
    "collation": "collation",
    "comment": "comment",
    "resumeAfter": "resume_after",
    "startAfter": "start_after",
    "startAtOperationTime": "start_at_operation_time",
}


def main(uri):
    commands = Commands()
    client = pymongo.MongoClient(
        uri,
        appname="driver",
        event_listeners=[commands],
        heartbeatFrequencyMS=500,
        serverSelectionTimeoutMS=PATIENCE * 1000,
    )
    with client:
        while True:
            order = heard()
            try:
                Run(client, commands, order["database"], order["scenario"]).run()
            except Exception:
                say(failed=traceback.format_exc())


if __name__ == "__main__":
    main(*sys.argv[1:])
