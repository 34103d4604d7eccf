// Hive's gateway of JavaScript over HTTP: node hive_server.mjs supergraph.graphql [port] ["router": with the router's planner]
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createGatewayRuntime } from "@graphql-hive/gateway-runtime";
import { unifiedGraphHandler } from "@graphql-hive/router-runtime";

const [file, port = "4000", planner] = process.argv.slice(2);
const gateway = createGatewayRuntime({
  supergraph: () => readFileSync(file, "utf8"),
  logging: false,
  ...(planner === "router" ? { unifiedGraphHandler } : {}),
});
createServer(gateway).listen(Number(port), "127.0.0.1", () => console.log("ready"));
