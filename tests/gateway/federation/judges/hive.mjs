// Hive's composer, gateways and planner, asked by JSON lines on standard input, one answer a line:
// {compose: [{name, url, sdl}]} gives {supergraph} or {errors}; {load: supergraph, graph: n} gives {api};
// then {graph: n, query, variables, runtime: "stitching" | "router"} gives what a client would be answered,
// {graph: n, plan: query} a plan, and {graph: n, forget: true} lets go of it.
import { createInterface } from "node:readline";
import { createGatewayRuntime } from "@graphql-hive/gateway-runtime";
import { QueryPlanner } from "@graphql-hive/router-query-planner";
import { unifiedGraphHandler } from "@graphql-hive/router-runtime";
import { composeServices } from "@theguild/federation-composition";
import { parse } from "graphql";

const graphs = new Map();

function compose(subgraphs) {
  const services = subgraphs.map(({ name, url, sdl }) => ({ name, url, typeDefs: parse(sdl) }));
  const { supergraphSdl, errors } = composeServices(services);
  if (errors?.length) return { errors: errors.map(({ message, extensions }) => `${extensions?.code}: ${message}`) };
  return { supergraph: supergraphSdl };
}

function load(number, sdl) {
  const planner = new QueryPlanner(sdl);
  graphs.set(number, { sdl, runtimes: {}, planner });
  return { api: planner.consumerSchema };
}

function runtime(graph, kind) {
  graph.runtimes[kind] ??= createGatewayRuntime({
    supergraph: () => graph.sdl,
    maskedErrors: false,
    logging: false,
    ...(kind === "router" ? { unifiedGraphHandler } : {}),
  });
  return graph.runtimes[kind];
}

async function execute(graph, { query, variables, runtime: kind = "stitching" }) {
  const response = await runtime(graph, kind).fetch("http://gateway/graphql", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ query, variables }),
  });
  return response.json();
}

function plan(graph, query) {
  return graph.planner.plan(query, null, new Set(), 0);
}

async function forget(number) {
  for (const made of Object.values(graphs.get(number).runtimes)) await made[Symbol.asyncDispose]();
  graphs.delete(number);
  return {};
}

async function answer(question) {
  if (question.compose) return compose(question.compose);
  if (question.load) return load(question.graph, question.load);
  if (question.forget) return forget(question.graph);
  const graph = graphs.get(question.graph);
  return question.plan ? plan(graph, question.plan) : execute(graph, question);
}

for await (const line of createInterface({ input: process.stdin })) {
  let result;
  try {
    result = await answer(JSON.parse(line));
  } catch (error) {
    result = { failure: String(error?.stack ?? error) };
  }
  process.stdout.write(JSON.stringify(result) + "\n");
}
process.exit(0);
