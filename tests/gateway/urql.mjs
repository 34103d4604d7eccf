// urql as it is, with its subscriptions over HTTP: prints one line of JSON for each thing that it was told.
import { cacheExchange, createClient, fetchExchange, gql } from "@urql/core";

const methods = [];
const client = createClient({
  url: process.argv[2],
  fetch: (...request) => {
    methods.push(request[1].method);
    return fetch(...request);
  },
  fetchOptions: { headers: { authorization: "Bearer anna" } },
  fetchSubscriptions: true,
  exchanges: [cacheExchange, fetchExchange],
});
const say = (said) => console.log(JSON.stringify(said));
const codes = (result) => result.error.graphQLErrors.map((error) => error.extensions.code);

const asked = gql`
  query Asked($called: String!, $more: Boolean!) {
    whoami
    wallet(called: $called) { id balance again @include(if: $more) { openedAt } }
  }
`;
const first = await client.query(asked, { called: "w1", more: true }, { preferGetMethod: false });
say(first.data);
const again = { preferGetMethod: true, requestPolicy: "network-only" };
say([JSON.stringify((await client.query(asked, { called: "w1", more: true }, again)).data) === JSON.stringify(first.data), methods]);

const pay = gql`
  mutation Pay($amount: BigInt!) { pay(amount: $amount) { ... on Wallet { id balance } ... on Problem { code } } }
`;
say((await client.mutation(pay, { amount: "7" })).data);
const partial = await client.query(gql`query Fails { whoami fails(how: "forbidden") }`, {});
say([partial.data, codes(partial)]);
say(codes(await client.query(gql`{ unknown }`, {})));

const three = (query) =>
  new Promise((resolve) => {
    const heard = [];
    client.subscription(query, {}).subscribe((result) => {
      heard.push(result.error ? codes(result) : result.data);
      if (heard.length === 3) resolve(heard);
    });
  });
say(await three(gql`subscription { count(to: 3) }`));
say((await three(gql`subscription { ticks(name: "npm") { id balance } }`))[2]);
// To unsubscribe rejects a promise of urql's that nobody waits for, which Node takes for an error.
process.exit();
