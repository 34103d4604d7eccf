// Apollo Client as it is: prints one line of JSON for each thing that it was told.
import { ApolloClient, ApolloLink, gql, HttpLink, InMemoryCache } from "@apollo/client";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { createClient } from "graphql-ws";
import { OperationTypeNode } from "graphql";
import WebSocket from "ws";

const url = process.argv[2];
const authorization = "Bearer anna";
const socket = createClient({
  url: url.replace("http", "ws"),
  webSocketImpl: WebSocket,
  connectionParams: { authorization },
  retryAttempts: 0,
});
const client = new ApolloClient({
  cache: new InMemoryCache(),
  link: ApolloLink.split(
    ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION,
    new GraphQLWsLink(socket),
    new HttpLink({ uri: url, headers: { authorization } }),
  ),
});
const say = (said) => console.log(JSON.stringify(said));

const asked = gql`
  query Asked($called: String!, $more: Boolean!) {
    whoami
    wallet(called: $called) { id balance again @include(if: $more) { openedAt } }
  }
`;
say((await client.query({ query: asked, variables: { called: "w1", more: true } })).data);

const pay = gql`
  mutation Pay($amount: BigInt!) { pay(amount: $amount) { ... on Wallet { id balance } ... on Problem { code } } }
`;
const { data } = await client.mutate({ mutation: pay, variables: { amount: "7" } });
say(data);
// The wallet that the mutation answered with is the one in the cache.
say(client.readQuery({ query: asked, variables: { called: "w1", more: true } }).wallet.balance);

const fails = gql`query Fails { whoami fails(how: "forbidden") }`;
const partial = await client.query({ query: fails, errorPolicy: "all" });
say([partial.data, partial.error.errors.map((error) => [error.path, error.extensions.code])]);
const refused = await client.query({ query: gql`{ unknown }`, errorPolicy: "all" });
say(refused.error.errors.map((error) => error.extensions.code));

const all = (query) =>
  new Promise((resolve, reject) => {
    const heard = [];
    client.subscribe({ query }).subscribe({
      next: (result) => heard.push(result.error ? result.error.errors.map((e) => e.extensions.code) : result.data),
      error: reject,
      complete: () => resolve(heard),
    });
  });
say(await all(gql`subscription { count(to: 3) }`));
await new Promise((resolve) => {
  const ticks = client.subscribe({ query: gql`subscription { ticks(name: "npm") { id balance } }` }).subscribe({
    next: (result) => {
      say(result.data);
      ticks.unsubscribe();
      resolve();
    },
  });
});
client.stop();
await socket.dispose();
