// graphql-sse's client as it is: prints one line of JSON for each thing that it was told.
import { createClient } from "graphql-sse";

const [url, mode] = process.argv.slice(2);
const client = createClient({
  url,
  singleConnection: mode === "single",
  headers: { authorization: "Bearer anna" },
  retryAttempts: 0,
});

const all = (query) =>
  new Promise((resolve, reject) => {
    const heard = [];
    client.subscribe(
      { query },
      {
        next: ({ data, errors }) => heard.push(errors ? errors.map((error) => error.extensions.code) : data),
        error: reject,
        complete: () => resolve(heard),
      },
    );
  });

for (const query of ["{ whoami }", "subscription { count(to: 3) }", "subscription { breaks }"])
  console.log(JSON.stringify(await all(query)));

for await (const result of client.iterate({ query: 'subscription { ticks(name: "npm") { id } }' })) {
  console.log(JSON.stringify(result.data));
  break;
}
client.dispose();
