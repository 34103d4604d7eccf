// Loads a payment process with `transfer` or, where `bulk` is more than 1, `transfers`, each transfer with an id of its
// own. Reads {url, token, wallets, bulk, connections, seconds or amount (of requests)} from standard input; prints
// {perSecond, p50Ms, p99Ms, requests, failed}: transfers a second, latencies of requests, and how many were not wholly done.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { performance } from "node:perf_hooks";

const autocannon = createRequire(new URL("../../../tests/package.json", import.meta.url))("autocannon");
const { url, token, wallets, bulk, connections, seconds, amount } = JSON.parse(readFileSync(0, "utf8"));

const RESULT = "{ ... on Transfer { id } ... on Problem { code message } }";
const ONE = `mutation ($input: TransferInput!) { transfer(input: $input) ${RESULT} }`;
const MANY = `mutation ($input: [TransferInput!]!) { transfers(input: $input) ${RESULT} }`;
const run = Date.now().toString(36) + process.pid.toString(36);
let made = 0;

function transfer() {
  const payer = Math.floor(Math.random() * wallets.length);
  const payee = (payer + 1 + Math.floor(Math.random() * (wallets.length - 1))) % wallets.length;
  const id = `${run}-${(made++).toString().padStart(9, "0")}`;
  return { id, sourceWalletId: wallets[payer], destinationWalletId: wallets[payee], amount: "1", currency: "EUR" };
}

function body() {
  const input = bulk > 1 ? Array.from({ length: bulk }, transfer) : transfer();
  return JSON.stringify({ query: bulk > 1 ? MANY : ONE, variables: { input } });
}

// Its own duration ends with a tick of a second, and what is under way then is not counted.
let began = 0;
let ended = 0;
const loading = autocannon({
  url,
  connections,
  ...(amount ? { amount } : { duration: seconds }),
  timeout: 60,
  method: "POST",
  headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
  requests: [{ setupRequest: (request) => ({ ...request, body: body() }) }],
  verifyBody: (answer) => answer.includes('"data"') && !answer.includes('"code"') && !answer.includes('"errors"'),
});
loading.on("start", () => (began = performance.now()));
loading.on("response", () => (ended = performance.now()));
const result = await loading;
console.log(
  JSON.stringify({
    perSecond: (result["2xx"] * bulk * 1000) / (ended - began),
    p50Ms: result.latency.p50,
    p99Ms: result.latency.p99,
    requests: result["2xx"],
    failed: result.non2xx + result.errors + result.mismatches,
  }),
);
