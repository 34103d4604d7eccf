// Composes subgraphs with the open composer: reads lines of [{"name", "url", "sdl"}], answers each with a line of
// {"supergraphSdl"}, or of {"errors": [{"code", "message"}]}. What it throws has the code THROWN.
import { createInterface } from "node:readline";
import { composeServices } from "@theguild/federation-composition";
import { parse } from "graphql";


function answer(line) {
  try {
    const services = JSON.parse(line).map(({ name, url, sdl }) => ({ name, url, typeDefs: parse(sdl) }));
    const { supergraphSdl, errors } = composeServices(services);
    if (!errors) return { supergraphSdl };
    return { errors: errors.map(({ message, extensions }) => ({ message, code: extensions?.code ?? "NONE" })) };
  } catch (error) {
    return { errors: [{ message: String(error), code: "THROWN" }] };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(answer(line))}\n`);
}
