//! Whoever changes the deployment: every kind of operation, over two databases.

use std::collections::BTreeMap;

use bson::spec::BinarySubtype;
use bson::{Binary, Document, doc};

use super::chance::Chance;
use super::servers::Servers;
use crate::world::World;

/// Writers.
#[derive(Default)]
pub(super) struct Writers {
    /// The newest document's number.
    pub(super) newest: i32,
    /// Documents whose insertion was acknowledged.
    pub(super) acknowledged: usize,
    transactions: i64,
    /// The latest documents that are large.
    large: Vec<i32>,
    /// What was asked for, by kind.
    pub(super) operations: BTreeMap<&'static str, u64>,
}

impl Writers {
    /// One operation, if there is anybody to take it. Whether it succeeds is seen in the log: a write may be lost with
    /// its primary.
    pub(super) fn write(&mut self, world: &mut World, chance: &mut Chance, servers: &Servers) {
        if world.deployment.primary().is_none() {
            return;
        }
        let (db, coll) = chance.one_of(&[
            ("shop", "seen"),
            ("shop", "other"),
            ("store", "seen"),
            ("shop", "seen"),
        ]);
        let kind = match chance.below(14) {
            0 => {
                self.insert(world, db, coll, 1, 20);
                "insert"
            }
            1 | 2 => {
                let count = 2 + chance.below(8);
                self.insert(world, db, coll, count, chance.below(200));
                "insert-many"
            }
            3 if servers.largest.is_some() || chance.one_in(4) => {
                let pad = servers.largest.map_or(100_000, |largest| largest * 6 / 10);
                self.insert(world, db, coll, 1, pad);
                self.large.push(self.newest);
                "insert-large"
            }
            3..=5 => self.update(world, chance, db, coll),
            6 => {
                self.delete(world, chance, db, coll);
                "delete"
            }
            7 => {
                self.find_and_modify(world, chance, db, coll);
                "find-and-modify"
            }
            8 => {
                self.retry(world, db, coll);
                "retried-insert"
            }
            9 | 10 => {
                self.insert(world, db, coll, 3, 30);
                "insert-many"
            }
            11 | 12 => self.transact(world, chance),
            13 if servers.sharded && chance.one_in(3) => self.move_data(world, chance, db, coll),
            _ => self.change_schema(world, chance, servers, db, coll),
        };
        *self.operations.entry(kind).or_default() += 1;
    }

    /// A document of a kind that every filter has an opinion on.
    fn document(&mut self, pad: usize) -> Document {
        self.newest += 1;
        doc! { "_id": self.newest, "even": self.newest % 2 == 0, "n": 0, "list": [1, 2, 3], "pad": "x".repeat(pad) }
    }

    fn known(&self, chance: &mut Chance) -> i32 {
        if let Some(large) = self.large.last()
            && chance.below(3) == 1
        {
            return *large;
        }
        let newest = usize::try_from(self.newest).unwrap_or(0);
        // Those of late, for they are more likely to be there.
        self.newest - i32::try_from(chance.below(newest.clamp(1, 30))).unwrap_or(0)
    }

    fn insert(&mut self, world: &mut World, db: &str, coll: &str, count: usize, pad: usize) {
        let documents: Vec<Document> = (0..count).map(|_| self.document(pad)).collect();
        let reply = command(world, db, doc! { "insert": coll, "documents": documents });
        self.acknowledged += usize::try_from(reply.get_i32("n").unwrap_or(0)).unwrap_or(0);
    }

    fn update(&mut self, world: &mut World, chance: &mut Chance, db: &str, coll: &str) -> &'static str {
        let id = self.known(chance);
        let (kind, update) = match chance.below(6) {
            0 => (
                "update",
                doc! { "q": { "_id": id }, "u": { "$set": { "seen": self.newest }, "$inc": { "n": 1 } } },
            ),
            1 => (
                "update",
                doc! { "q": { "_id": id }, "u": { "$push": { "list": 4 }, "$unset": { "pad": "" } } },
            ),
            2 => {
                let document = doc! { "_id": id, "even": id % 2 == 0, "replaced": self.newest };
                ("replace", doc! { "q": { "_id": id }, "u": document })
            }
            3 => (
                "update-by-pipeline",
                doc! { "q": { "_id": id }, "u": [{ "$set": { "piped": self.newest } }] },
            ),
            4 => {
                let query = doc! { "_id": { "$gt": id - 5 } };
                let update = doc! { "q": query, "u": { "$set": { "many": self.newest } }, "multi": true };
                ("update-many", update)
            }
            _ => {
                self.newest += 1;
                let set = doc! { "$set": { "even": self.newest % 2 == 0 } };
                (
                    "upsert",
                    doc! { "q": { "_id": self.newest }, "u": set, "upsert": true },
                )
            }
        };
        command(world, db, doc! { "update": coll, "updates": [update] });
        kind
    }

    fn delete(&self, world: &mut World, chance: &mut Chance, db: &str, coll: &str) {
        let id = self.known(chance);
        let delete = match chance.below(3) {
            0 => doc! { "q": { "_id": { "$gt": id - 4, "$lt": id } }, "limit": 0 },
            _ => doc! { "q": { "_id": id }, "limit": 1 },
        };
        command(world, db, doc! { "delete": coll, "deletes": [delete] });
    }

    fn find_and_modify(&self, world: &mut World, chance: &mut Chance, db: &str, coll: &str) {
        let mut modify = doc! { "findAndModify": coll, "query": { "_id": self.known(chance) } };
        if chance.below(3) == 0 {
            modify.insert("remove", true);
        } else {
            modify.insert("update", doc! { "$set": { "modified": self.newest } });
        }
        command(world, db, modify);
    }

    /// A retryable write that is sent twice, and happens once.
    fn retry(&mut self, world: &mut World, db: &str, coll: &str) {
        self.transactions += 1;
        let insert = doc! {
            "insert": coll, "documents": [self.document(10)], "lsid": { "id": session() },
            "txnNumber": self.transactions,
        };
        for _ in 0..2 {
            command(world, db, insert.clone());
        }
        self.acknowledged += 1;
    }

    fn transact(&mut self, world: &mut World, chance: &mut Chance) -> &'static str {
        self.transactions += 1;
        let number = self.transactions;
        let inside = move |mut command: Document, first: bool| {
            command.extend(doc! { "lsid": { "id": session() }, "txnNumber": number, "autocommit": false });
            if first {
                command.insert("startTransaction", true);
            }
            command
        };
        let mut inserted = 0;
        for index in 0..2 + chance.below(3) {
            let known = self.known(chance);
            let (db, coll) = chance.one_of(&[("shop", "seen"), ("shop", "other"), ("store", "seen")]);
            let operation = match chance.below(3) {
                0 => {
                    let change = doc! { "q": { "_id": known }, "u": { "$inc": { "n": 1 } } };
                    doc! { "update": coll, "updates": [change] }
                }
                _ => {
                    inserted += 1;
                    doc! { "insert": coll, "documents": [self.document(10)] }
                }
            };
            world.try_command(db, inside(operation, index == 0));
        }
        let end = if chance.below(3) == 0 {
            doc! { "abortTransaction": 1 }
        } else {
            doc! { "commitTransaction": 1, "writeConcern": { "w": 1 } }
        };
        let commits = end.contains_key("commitTransaction");
        let reply = world.try_command("admin", inside(end, false));
        if commits && reply.as_ref().is_some_and(is_ok) {
            self.acknowledged += inserted;
        }
        if commits {
            "transaction-committed"
        } else {
            "transaction-aborted"
        }
    }

    /// What only a cluster does.
    fn move_data(&self, world: &mut World, chance: &mut Chance, db: &str, coll: &str) -> &'static str {
        let on = format!("{db}.{coll}");
        let (kind, change) = match chance.below(3) {
            0 => {
                let key = doc! { "_id": "hashed" };
                ("shard-collection", doc! { "shardCollection": on, "key": key })
            }
            _ => {
                let to = chance.one_of(&["sh0", "sh1"]);
                let find = doc! { "_id": self.known(chance) };
                ("move-chunk", doc! { "moveChunk": on, "find": find, "to": to })
            }
        };
        command(world, "admin", change);
        kind
    }

    fn change_schema(
        &self,
        world: &mut World,
        chance: &mut Chance,
        servers: &Servers,
        db: &str,
        coll: &str,
    ) -> &'static str {
        let (kind, on, change) = match chance.below(10) {
            0 => {
                create(world, db, "spare", false);
                return "create";
            }
            1 => ("coll-mod", db, doc! { "collMod": coll, "validationLevel": "off" }),
            2 if servers.profile.images => {
                let images = doc! { "enabled": chance.below(3) > 0 };
                let change = doc! { "collMod": coll, "changeStreamPreAndPostImages": images };
                ("coll-mod-images", db, change)
            }
            2..=4 => {
                let index = doc! { "key": { "n": 1 }, "name": "n_1" };
                (
                    "create-indexes",
                    db,
                    doc! { "createIndexes": coll, "indexes": [index] },
                )
            }
            5 => ("drop-indexes", db, doc! { "dropIndexes": coll, "index": "n_1" }),
            6 => {
                let to = chance.one_of(&["shop.other", "shop.spare", "store.spare"]);
                let rename =
                    doc! { "renameCollection": format!("{db}.{coll}"), "to": to, "dropTarget": true };
                ("rename", "admin", rename)
            }
            7 | 8 => ("drop", db, doc! { "drop": coll }),
            _ => ("drop-database", db, doc! { "dropDatabase": 1 }),
        };
        command(world, on, change);
        kind
    }
}

/// Creates a collection, with pre- and post-images or without.
pub(super) fn create(world: &mut World, db: &str, coll: &str, images: bool) {
    let mut create = doc! { "create": coll };
    if images {
        create.insert("changeStreamPreAndPostImages", doc! { "enabled": true });
    }
    command(world, db, create);
}

/// Nobody waits for a majority: it may be long in coming.
fn command(world: &mut World, db: &str, mut command: Document) -> Document {
    command.insert("writeConcern", doc! { "w": 1 });
    world.try_command(db, command).unwrap_or_default()
}

fn is_ok(reply: &Document) -> bool {
    reply.get_f64("ok").is_ok_and(|ok| ok == 1.0)
}

fn session() -> Binary {
    Binary {
        subtype: BinarySubtype::Uuid,
        bytes: vec![7; 16],
    }
}
