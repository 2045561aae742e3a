// ioredis, as published, in the hands of a Python check: a line of JSON on standard input is a call, a line on standard output its answer.
//
// `node ioredis_bridge.js plain|cluster HOST:PORT ...`. A call is `{id, once, commands: [[name, argument, ...], ...]}`, arguments in base64; `once` takes the
// client that repeats nothing. An answer is `{id, replies}` (bytes in base64 as `{bytes}`) or `{id, error}`. `{id, nodes: true}` asks whom the cluster knows.
"use strict";

const readline = require("node:readline");
const Redis = require("ioredis");

const [kind, ...addresses] = process.argv.slice(2);
const nodes = addresses.map((address) => {
  const [host, port] = address.split(":");
  return { host, port: Number(port) };
});
const TIMES = { connectTimeout: 1000, commandTimeout: 6000 };
// Repeats nothing: for what must not be done twice without being known.
const ONCE = { maxRetriesPerRequest: 0, autoResendUnfulfilledCommands: false };
// Repeats what was under way when the connection broke.
const PATIENT = { maxRetriesPerRequest: 20 };

function plain(options, first) {
  // ioredis reads the address again before it connects again: the next node's turn.
  let at = first;
  const client = new Redis({
    ...nodes[at],
    ...TIMES,
    ...options,
    retryStrategy(times) {
      at = (at + 1) % nodes.length;
      Object.assign(client.options, nodes[at]);
      return Math.min(20 * times, 500);
    },
  });
  return client;
}

function cluster(options) {
  const once = options === ONCE;
  return new Redis.Cluster(nodes, {
    slotsRefreshInterval: 1000,
    enableAutoPipelining: !once,
    // A command whose connection broke is sent again after this long; 0 is never.
    retryDelayOnFailover: once ? 0 : 100,
    redisOptions: { ...TIMES, ...options },
  });
}

// A cluster's client has a connection to each node; plain ones begin with different nodes and take turns.
const make = (options) => (kind === "cluster" ? [cluster(options)] : nodes.map((_, first) => plain(options, first)));
const clients = { once: make(ONCE), safe: make(PATIENT) };
for (const client of Object.values(clients).flat()) client.on("error", () => {});

function reply(value) {
  if (Buffer.isBuffer(value)) return { bytes: value.toString("base64") };
  return Array.isArray(value) ? value.map(reply) : value;
}

// A method of its own where ioredis has one, as applications use; `call` for the rest (its automatic pipelines can't `callBuffer`).
function one(client, [name, ...rest]) {
  const method = client[`${name}Buffer`];
  const bytes = rest.map((argument) => Buffer.from(argument, "base64"));
  return method ? method.apply(client, bytes) : client.call(name, ...bytes);
}

async function answer({ once, commands, nodes: known }) {
  const turns = once ? clients.once : clients.safe;
  const client = turns.shift();
  turns.push(client);
  if (known) return client.nodes("all").map((node) => `${node.options.host}:${node.options.port}`);
  if (kind === "cluster" || commands.length === 1) return (await Promise.all(commands.map((command) => one(client, command)))).map(reply);
  const pipeline = client.pipeline();
  for (const command of commands) one(pipeline, command);
  return (await pipeline.exec()).map(([error, value]) => {
    if (error) throw error;
    return reply(value);
  });
}

readline.createInterface({ input: process.stdin }).on("line", async (line) => {
  const call = JSON.parse(line);
  let told;
  try {
    told = { id: call.id, replies: await answer(call) };
  } catch (error) {
    told = { id: call.id, error: error.message };
  }
  console.log(JSON.stringify(told));
});
