// What happens to the data in a scenario, by the driver's own methods.

export class Operations {
  constructor(client, database, run) {
    this.client = client;
    this.database = database;
    this.runOf = run;
    this.session = undefined;
  }

  async run(operations) {
    for (const operation of operations) {
      const [[name, given]] = Object.entries(operation);
      await this[name](given);
    }
  }

  collection({ coll = "c", database = "" }) {
    return this.client.db(this.database.databaseName + database).collection(coll);
  }

  get options() {
    return { session: this.session };
  }

  insertOne({ document, ...where }) {
    return this.collection(where).insertOne(document, this.options);
  }

  insertMany({ documents, ...where }) {
    return this.collection(where).insertMany(documents, this.options);
  }

  // Documents with the ids from..to, each with a text of this length.
  insertNumbered({ ids: [first, end], size = 0, ...where }) {
    const documents = [];
    for (let n = Number(first); n < Number(end); n += 1) {
      documents.push({ _id: n, text: "x".repeat(Number(size)) });
    }
    return this.insertMany({ documents, ...where });
  }

  updateOne({ filter, update, upsert = false, ...where }) {
    return this.collection(where).updateOne(filter, update, { upsert, ...this.options });
  }

  updateMany({ filter, update, ...where }) {
    return this.collection(where).updateMany(filter, update, this.options);
  }

  replaceOne({ filter, replacement, upsert = false, ...where }) {
    return this.collection(where).replaceOne(filter, replacement, { upsert, ...this.options });
  }

  findOneAndUpdate({ filter, update, ...where }) {
    return this.collection(where).findOneAndUpdate(filter, update, this.options);
  }

  deleteOne({ filter, ...where }) {
    return this.collection(where).deleteOne(filter, this.options);
  }

  deleteMany({ filter, ...where }) {
    return this.collection(where).deleteMany(filter, this.options);
  }

  // One write of each kind in one call.
  bulkWrite(where) {
    const filter = { _id: "bulk" };
    const writes = [
      { insertOne: { document: { _id: "bulk", n: 1 } } },
      { updateOne: { filter, update: { $inc: { n: 1 } } } },
      { replaceOne: { filter, replacement: { n: "replaced" } } },
      { deleteOne: { filter } },
    ];
    return this.collection(where).bulkWrite(writes, this.options);
  }

  createCollection({ name = "c", options = {} }) {
    return this.database.createCollection(name, options);
  }

  drop(where) {
    return this.collection(where).drop();
  }

  rename({ to, dropTarget = false, ...where }) {
    return this.collection(where).rename(to, { dropTarget });
  }

  dropDatabase() {
    return this.database.dropDatabase();
  }

  createIndex({ keys, options = {}, ...where }) {
    return this.collection(where).createIndex(keys, options);
  }

  dropIndex({ name, ...where }) {
    return this.collection(where).dropIndex(name);
  }

  async shardCollection({ key, ...where }) {
    const collection = this.collection(where);
    await this.client.db("admin").command({ enableSharding: collection.dbName });
    await this.client.db("admin").command({ shardCollection: collection.namespace, key });
  }

  command({ command }) {
    return this.database.command(command);
  }

  async transaction({ operations, abort = false }) {
    this.session = this.client.startSession();
    try {
      this.session.startTransaction();
      await this.run(operations);
      await (abort ? this.session.abortTransaction() : this.session.commitTransaction());
    } finally {
      await this.session.endSession();
      this.session = undefined;
    }
  }

  // What happens to the streams and the deployment.

  read({ events }) {
    return this.runOf.read(Number(events));
  }

  failGetMore({ data }) {
    return this.runOf.failGetMore(data);
  }

  killCursor() {
    return this.runOf.killCursor();
  }

  stepDown() {
    return this.client.db("admin").command({ replSetStepDown: 1, force: true });
  }
}
