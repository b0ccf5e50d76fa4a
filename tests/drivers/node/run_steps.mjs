// Takes steps with one change stream of the npm driver, as standard input says.
//
// A line in, a line out, all of them JSON; README.md beside commands.json tells what they mean. The driver is found in
// the folder that NODE_DRIVER_FOLDER names.

import { createRequire } from "node:module";
import path from "node:path";
import { createInterface } from "node:readline";

const require = createRequire(path.join(process.env.NODE_DRIVER_FOLDER, "here.js"));
const { BSON, MongoClient, MongoServerError } = require("mongodb");

const PATIENCE = 20_000;

// Each method is a step.
class Steps {
  constructor(client) {
    this.client = client;
  }

  async take(step) {
    const [[name, given]] = Object.entries(step);
    try {
      return await this[name](given);
    } catch (error) {
      if (error instanceof MongoServerError) {
        return { error: error.code };
      }
      if (/ChangeStream is closed/.test(error.message)) {
        return { end: true };
      }
      throw error;
    }
  }

  // Opens the stream, which the driver does when it is read from, and tries to read from it once.
  async open({ scope, pipeline = [], session, readConcern, ...options }) {
    const database = this.client.db("shop");
    const targets = { collection: () => database.collection("orders"), database: () => database };
    const target = (targets[scope] ?? (() => this.client))();
    if (session) {
      options.session = this.client.startSession();
      if (session === "used") {
        await this.client.db("admin").command({ ping: 1 }, { session: options.session });
      }
    }
    if (readConcern) {
      options.readConcern = { level: readConcern };
    }
    this.stream = target.watch(pipeline, options);
    return this.tryNext();
  }

  async tryNext() {
    const event = await this.stream.tryNext();
    return event === null ? { nothing: true } : { event };
  }

  async next() {
    return { event: await this.stream.next() };
  }

  async close() {
    await this.stream.close();
    return { closed: true };
  }
}

const client = new MongoClient(process.argv[2], { appName: "theirs", serverSelectionTimeoutMS: PATIENCE });
const steps = new Steps(client);
for await (const line of createInterface({ input: process.stdin })) {
  const answer = await steps.take(BSON.EJSON.parse(line, { relaxed: true }));
  process.stdout.write(`${BSON.EJSON.stringify(answer, { relaxed: false })}\n`);
}
await client.close();
