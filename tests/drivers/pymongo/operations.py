"""What happens to the data in a scenario, by the driver's own methods."""

import pymongo
from bson.son import SON


class Operations:
    """Each method is an operation of scenarios.json and takes its arguments."""

    def __init__(self, client, database, run):
        self.client = client
        self.database = database
        self.run_of = run
        self.session = None

    def run(self, operations):
        for operation in operations:
            (name, arguments), = operation.items()
            getattr(self, name)(**arguments)

    def collection(self, coll="c", database=""):
        return self.client[self.database.name + database][coll]

    def insertOne(self, document, **where):
        self.collection(**where).insert_one(document, session=self.session)

    def insertMany(self, documents, **where):
        self.collection(**where).insert_many(documents, session=self.session)

    def insertNumbered(self, ids, size=0, **where):
        """Documents with the ids from..to, each with a text of this length."""
        first, end = ids
        self.insertMany([{"_id": n, "text": "x" * size} for n in range(first, end)], **where)

    def updateOne(self, filter, update, upsert=False, **where):
        self.collection(**where).update_one(filter, update, upsert=upsert, session=self.session)

    def growText(self, id, size, **where):
        """An update that sets a long text."""
        self.updateOne({"_id": id}, {"$set": {"text": "y" * size}}, **where)

    def updateMany(self, filter, update, **where):
        self.collection(**where).update_many(filter, update, session=self.session)

    def replaceOne(self, filter, replacement, upsert=False, **where):
        self.collection(**where).replace_one(filter, replacement, upsert=upsert, session=self.session)

    def findOneAndUpdate(self, filter, update, **where):
        self.collection(**where).find_one_and_update(filter, update, session=self.session)

    def deleteOne(self, filter, **where):
        self.collection(**where).delete_one(filter, session=self.session)

    def deleteMany(self, filter, **where):
        self.collection(**where).delete_many(filter, session=self.session)

    def bulkWrite(self, **where):
        """One write of each kind in one call."""
        writes = [
            pymongo.InsertOne({"_id": "bulk", "n": 1}),
            pymongo.UpdateOne({"_id": "bulk"}, {"$inc": {"n": 1}}),
            pymongo.ReplaceOne({"_id": "bulk"}, {"n": "replaced"}),
            pymongo.DeleteOne({"_id": "bulk"}),
        ]
        self.collection(**where).bulk_write(writes, session=self.session)

    def createCollection(self, name="c", options=None):
        self.database.create_collection(name, check_exists=False, **(options or {}))

    def drop(self, **where):
        self.collection(**where).drop()

    def rename(self, to, dropTarget=False, **where):
        self.collection(**where).rename(to, dropTarget=dropTarget)

    def dropDatabase(self):
        self.client.drop_database(self.database)

    def createIndex(self, keys, options=None, **where):
        self.collection(**where).create_index(list(keys.items()), **(options or {}))

    def dropIndex(self, name, **where):
        self.collection(**where).drop_index(name)

    def command(self, command):
        self.database.command(SON(command))

    def shardCollection(self, key, **where):
        collection = self.collection(**where)
        self.client.admin.command("enableSharding", collection.database.name)
        self.client.admin.command("shardCollection", collection.full_name, key=key)

    def transaction(self, operations, abort=False):
        with self.client.start_session() as self.session:
            self.session.start_transaction()
            self.run(operations)
            if abort:
                self.session.abort_transaction()
            else:
                self.session.commit_transaction()
        self.session = None

    # What happens to the streams and the deployment.

    def read(self, events):
        """Goes on once the stream has delivered this many events since its start."""
        self.run_of.read(events)

    def failGetMore(self, data):
        self.run_of.fail_get_more(data)

    def killCursor(self):
        self.run_of.kill_cursor()

    def stepDown(self):
        self.client.admin.command(SON([("replSetStepDown", 1), ("force", True)]))
