"""PyMongo, measured as the project's own clients are: the same arguments, the same line of JSON."""

import json
import sys
import time

import pymongo


def main():
    form, uri, database, collection, count, mode = sys.argv[1:]
    count = int(count)
    client = pymongo.MongoClient(uri)
    stream = client[database][collection].watch()
    events, checksum, latencies = 0, 0, []
    wall, cpu = time.monotonic_ns(), time.process_time_ns()
    for event in stream:
        checksum += int.from_bytes(event["documentKey"]["_id"].binary[-4:], "big")
        if mode == "latency":
            latencies.append((time.monotonic_ns() - event["fullDocument"]["sentNs"]) / 1000)
        events += 1
        if events == count:
            break
    report = {
        "client": "pymongo",
        "events": events,
        "bytes": 0,
        "checksum": checksum,
        "loop_wall_ns": time.monotonic_ns() - wall,
        "loop_cpu_ns": time.process_time_ns() - cpu,
    }
    if latencies:
        latencies.sort()
        at = lambda share: latencies[min(len(latencies) - 1, int(len(latencies) * share))]
        report["sent_us"] = {"p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": latencies[-1]}
    print(json.dumps(report), flush=True)
    # The connection's server goes on sending: nothing is left to be said to it.
    sys.stdout.close()
    import os

    os._exit(0)


main()
