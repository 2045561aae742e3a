// ioredis' Cluster, as published, told by lines on standard input what to do; answers each with a line of JSON.
// Driven by check_cluster_clients.py.
"use strict";

const readline = require("node:readline");
const Redis = require("ioredis");

const nodes = process.argv.slice(2).map((address) => {
  const [host, port] = address.split(":");
  return { host, port: Number(port) };
});
const PASSING = /^(NOQUORUM|TIMEOUT|BUSY|SHUTDOWN)|closed|ECONNREFUSED|ECONNRESET|Connection|ClusterAllFailed|max retries/i;
const cluster = new Redis.Cluster(nodes, { slotsRefreshInterval: 1000, redisOptions: { maxRetriesPerRequest: 3 } });
cluster.on("error", () => {});

const total = { asserted: 0, failed: 0, repeated: 0 };

function check(holds, what) {
  total.asserted += 1;
  if (!holds) {
    total.failed += 1;
    console.error(`ioredis: ${what}`);
  }
}

// Repeats what may be repeated while a member is being found dead.
async function attempt(call) {
  const until = Date.now() + 15000;
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (!PASSING.test(error.message) || Date.now() > until) {
        check(false, error.message);
        return undefined;
      }
      total.repeated += 1;
    }
  }
}

async function alone(count) {
  const before = { ...total };
  for (let i = 0; i < count / 2; i += 1) {
    check((await attempt(() => cluster.set(`io:${i}`, `ü${i}`, "EX", 600))) === "OK", "SET");
    check((await attempt(() => cluster.get(`io:${i}`))) === `ü${i}`, "GET");
  }
  return { failed: total.failed - before.failed, asserted: total.asserted - before.asserted };
}

let going = false;
let done = Promise.resolve();

async function load() {
  const sessions = new Map();
  for (let i = 0; going; i += 1) {
    const key = `io:session:${i % 200}`;
    const value = `visit ${i}`;
    check((await attempt(() => cluster.set(key, value, "EX", 3600))) === "OK", "a session is written");
    sessions.set(key, value);
    const keys = [...sessions.keys()];
    const known = keys[Math.floor(Math.random() * keys.length)];
    check((await attempt(() => cluster.get(known))) === sessions.get(known), `${known} is what was last written`);
  }
  for (const [key, value] of sessions) {
    check((await attempt(() => cluster.get(key))) === value, `${key} at the end`);
  }
}

async function obey(line) {
  const [command, argument] = line.split(" ");
  if (command === "alone") return alone(Number(argument));
  if (command === "nodes") return { nodes: cluster.nodes("all").map((node) => `${node.options.host}:${node.options.port}`) };
  if (command === "start") {
    going = true;
    done = load();
    return {};
  }
  going = false;
  await done;
  return total;
}

readline.createInterface({ input: process.stdin }).on("line", async (line) => console.log(JSON.stringify(await obey(line))));
