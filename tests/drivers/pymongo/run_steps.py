"""Takes steps with one change stream of PyMongo, as standard input says.

A line in, a line out, all of them JSON; README.md beside commands.json tells what they mean.
"""

import sys

import pymongo
from bson import json_util
from pymongo import read_preferences
from pymongo.read_concern import ReadConcern

from run_scenarios import OPTIONS

PATIENCE = 20_000


def say(line):
    print(json_util.dumps(line, json_options=json_util.CANONICAL_JSON_OPTIONS), flush=True)


class Steps:
    """Each method is a step."""

    def __init__(self, client):
        self.client = client
        self.stream = None

    def take(self, step):
        (name, arguments), = step.items()
        try:
            return getattr(self, name)(arguments)
        except pymongo.errors.OperationFailure as error:
            return {"error": error.code}
        except StopIteration:
            return {"end": True}

    def open(self, watch):
        """Opens the stream and tries to read from it once."""
        target = {
            "collection": self.client["shop"]["orders"],
            "database": self.client["shop"],
            "cluster": self.client,
        }[watch["scope"]]
        own = {}
        if "readPreference" in watch:
            mode = read_preferences.read_pref_mode_from_name(watch["readPreference"])
            own["read_preference"] = read_preferences.make_read_preference(mode, None)
        if "readConcern" in watch:
            own["read_concern"] = ReadConcern(watch["readConcern"])
        if own:
            target = target.with_options(**own)
        options = {python: watch[name] for name, python in OPTIONS.items() if name in watch}
        if watch.get("session"):
            options["session"] = self.client.start_session()
            if watch["session"] == "used":
                self.client.admin.command("ping", session=options["session"])
        self.stream = target.watch(watch.get("pipeline"), **options)
        return self.tryNext({})

    def tryNext(self, _):
        event = self.stream.try_next()
        return {"nothing": True} if event is None else {"event": event}

    def next(self, _):
        return {"event": self.stream.next()}

    def close(self, _):
        self.stream.close()
        return {"closed": True}


def main(uri):
    with pymongo.MongoClient(uri, appname="theirs", serverSelectionTimeoutMS=PATIENCE) as client:
        steps = Steps(client)
        for line in sys.stdin:
            say(steps.take(json_util.loads(line)))


if __name__ == "__main__":
    main(*sys.argv[1:])
