// npm mongodb, measured as the project's own clients are: the same arguments, the same line of JSON.
// PEER_NODE_MODULES is the folder that the package is installed in.
const { MongoClient } = require(process.env.PEER_NODE_MODULES + '/node_modules/mongodb');

async function main() {
  const [, uri, database, collection, count, mode] = process.argv.slice(2);
  const client = new MongoClient(uri);
  await client.connect();
  const stream = client.db(database).collection(collection).watch();
  let events = 0;
  let checksum = 0;
  const latencies = [];
  let wall, cpu;
  // The cursor opens with the first call.
  for await (const event of stream) {
    if (wall === undefined) {
      wall = process.hrtime.bigint();
      cpu = process.cpuUsage();
    }
    const id = event.documentKey._id.id;
    checksum += ((id[8] << 24) | (id[9] << 16) | (id[10] << 8) | id[11]) >>> 0;
    if (mode === 'latency') latencies.push(Number(process.hrtime.bigint() - BigInt(event.fullDocument.sentNs)) / 1000);
    events += 1;
    if (events === Number(count)) break;
  }
  const used = process.cpuUsage(cpu);
  const report = {
    client: 'npm mongodb',
    events,
    bytes: 0,
    checksum,
    loop_wall_ns: Number(process.hrtime.bigint() - wall),
    loop_cpu_ns: (used.user + used.system) * 1000,
  };
  if (latencies.length > 0) {
    latencies.sort((a, b) => a - b);
    const at = (share) => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))];
    report.sent_us = { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: latencies[latencies.length - 1] };
  }
  console.log(JSON.stringify(report));
  process.exit(0);
}

main();
