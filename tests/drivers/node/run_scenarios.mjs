// Runs scenarios with the npm driver, one after another, as standard input says.
//
// A line in, a line out, all of them JSON; README.md beside scenarios.json tells what they mean. The driver is found
// in the folder that NODE_DRIVER_FOLDER names.

import { createRequire } from "node:module";
import path from "node:path";
import { createInterface } from "node:readline";

import { Operations } from "./operations.mjs";

const require = createRequire(path.join(process.env.NODE_DRIVER_FOLDER, "here.js"));
const { BSON, MongoClient, MongoServerError, Timestamp } = require("mongodb");

// Nothing here takes so long, unless something is broken.
const PATIENCE = 20_000;
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

function say(line) {
  process.stdout.write(`${BSON.EJSON.stringify(line, { relaxed: false })}\n`);
}

async function heard() {
  const { value, done } = await lines.next();
  return done ? undefined : value;
}

// Counts what streams send, and what of it fails.
class Commands {
  streams = 0;
  failedGetMores = 0;

  constructor(client) {
    client.on("commandStarted", ({ command }) => {
      this.streams += Number(Boolean(command.pipeline?.[0]?.$changeStream));
    });
    client.on("commandFailed", ({ commandName }) => {
      this.failedGetMores += Number(commandName === "getMore");
    });
  }
}

// One scenario.
class Run {
  constructor(client, commands, database, { plain, typed }) {
    this.client = client;
    this.commands = commands;
    this.database = client.db(database);
    // The driver takes plain numbers as options; documents keep the types that they name.
    this.watch = { ...plain.watch, pipeline: typed.watch.pipeline };
    this.plain = plain;
    this.typed = typed;
    this.operations = new Operations(client, this.database, this);
    this.first = null;
    this.seen = 0;
    this.error = null;
  }

  async run() {
    const start = await this.findStart();
    await this.operations.run(this.typed.missed ?? []);
    this.commands.streams = 0;
    const session = this.watch.session ? this.client.startSession() : undefined;
    try {
      // The driver opens streams lazily: the first attempt to read does it.
      await this.attempt(() => this.open(start, session));
      say({ ready: start });
      await heard();
      this.take(this.first);
      await this.operations.run(this.typed.operations ?? []);
      await this.attempt(() => this.read(expected(this.plain)));
      say({ done: { error: this.error, resumes: this.commands.streams - 1, alive: this.alive() } });
    } finally {
      await this.stream?.close();
      await session?.endSession();
    }
  }

  // Where the stream begins, as an option of watch; `before` has happened by then.
  async findStart() {
    const wanted = this.plain.start;
    const before = this.typed.before ?? [];
    if (wanted?.resumeAfter === undefined && wanted?.startAfter === undefined) {
      await this.operations.run(before);
      return wanted ? { startAtOperationTime: await this.timeAfterNow() } : {};
    }
    const [[option, index]] = Object.entries(wanted);
    const stream = this.target().watch([], { maxAwaitTimeMS: 100 });
    await stream.tryNext();
    await this.operations.run(before);
    let event;
    for (let n = 0; n <= index; n += 1) {
      event = await stream.next();
    }
    await stream.close();
    return { [option]: event._id };
  }

  async timeAfterNow() {
    const { operationTime } = await this.client.db("admin").command({ ping: 1 });
    return new Timestamp({ t: operationTime.t, i: operationTime.i + 1 });
  }

  target() {
    const { scope, collection = "c" } = this.watch;
    const targets = { collection: () => this.database.collection(collection), database: () => this.database };
    return (targets[scope] ?? (() => this.client))();
  }

  async open(start, session) {
    const { scope, collection, pipeline = [], session: _, ...options } = this.watch;
    // Numbers keep the types that they were sent with; but then the driver does not know the code of an error again,
    // and resumes from fewer.
    const promoteValues = this.plain.resumes !== undefined;
    const asSent = { promoteValues, promoteLongs: false, promoteBuffers: false, bsonRegExp: true };
    this.stream = this.target().watch(pipeline, { maxAwaitTimeMS: 50, ...options, ...start, ...asSent, session });
    this.first = await this.stream.tryNext();
  }

  take(event) {
    if (event !== null) {
      this.seen += 1;
      say({ event });
    }
    return event !== null;
  }

  // Until this many events have been seen since the start, or the stream has ended.
  read(count) {
    return this.readWhile(() => this.seen < count && this.alive(), () => `${this.seen} of ${count} events`);
  }

  async readWhile(goesOn, tell) {
    const end = Date.now() + PATIENCE;
    while (goesOn()) {
      if (!this.take(await this.stream.tryNext()) && Date.now() > end) {
        throw new Error(tell());
      }
    }
  }

  readUntilGetMoreFailed(failures) {
    return this.readWhile(() => this.commands.failedGetMores < failures, () => "no getMore failed");
  }

  alive() {
    const cursor = this.stream?.cursor;
    return Boolean(cursor) && !this.stream.closed && (!cursor.isDead || cursor.bufferedCount() > 0);
  }

  // An error of the stream is a result; of anything else, a failure.
  async attempt(step) {
    if (this.error !== null) {
      return;
    }
    try {
      await step();
    } catch (error) {
      if (!(error instanceof MongoServerError)) {
        throw error;
      }
      this.error = error.code;
    }
  }

  // What operations need of the run.

  // Makes one getMore of each client fail, and lets both resume.
  async failGetMore(data) {
    const failures = this.commands.failedGetMores + 1;
    await this.failPoint({ ...data, appName: "driver" });
    await this.attempt(() => this.readUntilGetMoreFailed(failures));
    say({ catchUp: "tail has the same events" });
    await heard();
    await this.failPoint({ ...data, appName: "tail" });
    say({ wait: "tail resumes" });
    await heard();
  }

  failPoint(data) {
    return this.client.db("admin").command({
      configureFailPoint: "failCommand",
      mode: { times: 1 },
      data: { failCommands: ["getMore"], ...data },
    });
  }

  // Kills the stream's cursor behind its back.
  async killCursor() {
    const failures = this.commands.failedGetMores + 1;
    const { id, namespace } = this.stream.cursor;
    await this.client.db(namespace.db).command({ killCursors: namespace.collection, cursors: [id] });
    await this.readUntilGetMoreFailed(failures);
  }
}

// How many events to read; where an error is to follow, one more.
function expected({ events, error }) {
  const count = Array.isArray(events) ? events.length : Object.values(events).reduce((sum, n) => sum + n, 0);
  return count + Number(error !== undefined);
}

async function main(uri) {
  const client = new MongoClient(uri, {
    appName: "driver",
    monitorCommands: true,
    heartbeatFrequencyMS: 500,
    serverSelectionTimeoutMS: PATIENCE,
  });
  const commands = new Commands(client);
  for (let line = await heard(); line !== undefined; line = await heard()) {
    const plain = JSON.parse(line);
    const typed = BSON.EJSON.parse(line, { relaxed: false });
    const scenario = { plain: plain.scenario, typed: typed.scenario };
    try {
      await new Run(client, commands, plain.database, scenario).run();
    } catch (error) {
      say({ failed: String(error.stack) });
    }
  }
  await client.close();
}

await main(process.argv[2]);
