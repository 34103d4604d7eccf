// Composes subgraphs: reads [{"name", "sdl"}] from standard input, prints the errors, one a line, and exits with 1 if any.
import { readFileSync } from "node:fs";
import { composeServices } from "@theguild/federation-composition";
import { parse } from "graphql";

const services = JSON.parse(readFileSync(0, "utf8")).map(({ name, sdl }) => ({
  name,
  url: `http://${name}`,
  typeDefs: parse(sdl),
}));
const { errors = [] } = composeServices(services);
for (const { message } of errors) console.log(message);
process.exit(errors.length ? 1 : 0);
