// medici, the double-entry ledger for Node, on the MongoDB that ours is measured on. Reads {url, database, players, hot,
// guarded, callers, seconds} from standard input; prints {per_second, p50_ms, p99_ms}.
//
// An entry is a debit and a credit, written in a transaction. `guarded` is its README's recipe against overdrafts: the
// balance is read in the same transaction, and the payer's account is locked for writing.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { performance } from "node:perf_hooks";

const require = createRequire(new URL("../../../tests/package.json", import.meta.url));
const { Book, initModels, mongoTransaction } = require("medici");
const mongoose = require("mongoose");

const OPENING = 1_000_000_000;
const { url, database, players, hot, guarded, callers, seconds } = JSON.parse(readFileSync(0, "utf8"));
const DURABLE = { readConcern: { level: "snapshot" }, writeConcern: { w: "majority", j: true } };

await mongoose.connect(url, { dbName: database, w: "majority", journal: true, maxPoolSize: 64 });
await initModels();
const book = new Book("bench", { precision: 0 });
const any = () => Math.floor(Math.random() * players);
const account = (player) => `Players:p${player}`;

function transfer() {
  const payer = any();
  const payee = hot ? "House:main" : account((payer + 1 + Math.floor(Math.random() * (players - 1))) % players);
  return mongoTransaction(async (session) => {
    const from = account(payer);
    await book.entry("transfer").debit(from, 1).credit(payee, 1).commit({ session });
    if (guarded) {
      const { balance } = await book.balance({ account: from }, { session });
      if (balance + OPENING < 0) throw new Error("not enough");
      await book.writelockAccounts([from], { session });
    }
  }, DURABLE);
}

async function load(forSeconds) {
  const took = [];
  const began = performance.now();
  const caller = async () => {
    for (let asked; (asked = performance.now()) < began + forSeconds * 1000; ) {
      await transfer();
      took.push(performance.now() - asked);
    }
  };
  await Promise.all(Array.from({ length: callers }, caller));
  const elapsed_s = (performance.now() - began) / 1000;
  took.sort((a, b) => a - b);
  const at = (share) => took[Math.floor(took.length * share)];
  return { per_second: took.length / elapsed_s, p50_ms: at(0.5), p99_ms: at(0.99) };
}

await load(seconds / 4); // warms up
console.log(JSON.stringify(await load(seconds)));
await mongoose.disconnect();
