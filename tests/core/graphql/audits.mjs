// graphql-http's audits of a server; prints those that fail, then how many passed of how many.
import { auditServer } from "graphql-http";

const results = await auditServer({ url: process.argv[2] });
const failed = results.filter((result) => result.status !== "ok");
for (const { id, name, status, reason } of failed) console.log(id, name, status, reason);
console.log(`${results.length - failed.length} of ${results.length}`);
