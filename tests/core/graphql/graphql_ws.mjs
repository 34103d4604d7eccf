// graphql-ws's client as it is: prints one line of JSON for each thing that it was told.
import { createClient } from "graphql-ws";
import WebSocket from "ws";

const client = createClient({
  url: process.argv[2],
  webSocketImpl: WebSocket,
  connectionParams: { authorization: "Bearer anna" },
  retryAttempts: 0,
});

const all = (query) =>
  new Promise((resolve) => {
    const heard = [];
    client.subscribe(
      { query },
      {
        next: (result) => heard.push(result.data),
        error: (errors) => resolve([...heard, errors.map((error) => error.extensions.code)]),
        complete: () => resolve(heard),
      },
    );
  });

for (const query of ["{ whoami }", "subscription { count(to: 3) }", "subscription { breaks }", "{ unknown }"])
  console.log(JSON.stringify(await all(query)));

for await (const result of client.iterate({ query: 'subscription { ticks(name: "npm") { id } }' })) {
  console.log(JSON.stringify(result.data));
  break;
}
await client.dispose();
