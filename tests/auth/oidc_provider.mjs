// An OpenID provider on 127.0.0.1, as others run theirs: `oidc-provider`, with its own pages for logging in.
//
//   node oidc_provider.mjs '{"port": 4000, "clients": […], "conformIdTokenClaims": true}'
//
// Whoever logs in as `anna` is anna@example.com, verified; as `anna:unverified`, somebody else who only says so; as
// `anna@new.example`, that. `nobody` has no address. `apple` is how Apple wants clients to authenticate (see below).

import { createPublicKey } from 'node:crypto';

import { jwtVerify } from 'jose';
import Provider from 'oidc-provider';

const given = JSON.parse(process.argv[2]);
const issuer = `http://127.0.0.1:${given.port}`;

function account(id) {
  const [name, how] = id.split(':');
  const email = name.includes('@') ? name : `${name}@example.com`;
  const claims = { sub: id, name: `${name} of ${given.port}`, locale: 'de-AT' };
  if (name !== 'nobody') Object.assign(claims, { email, email_verified: how !== 'unverified' });
  return { accountId: id, claims: async () => claims };
}

const provider = new Provider(issuer, {
  clients: given.clients,
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name', 'locale'] },
  conformIdTokenClaims: given.conformIdTokenClaims ?? true,
  features: { devInteractions: { enabled: true } },
  findAccount: async (_, id) => account(id),
  pkce: { required: () => true },
  // Browsers tell cookies apart by host, not by port.
  cookies: {
    keys: ['of this test'],
    names: { session: `s${given.port}`, interaction: `i${given.port}`, resume: `r${given.port}` },
  },
  ttl: { AccessToken: 60, AuthorizationCode: 60, IdToken: 300, Interaction: 300, Session: 3600, Grant: 3600 },
});

// Apple's client secret is a JWT that the client signs with its private key; the provider has the public one.
if (given.apple) {
  const key = createPublicKey(given.apple.publicKey);
  provider.Client.prototype.compareClientSecret = async function compare(actual) {
    const { protectedHeader } = await jwtVerify(actual, key, {
      algorithms: ['ES256'], audience: issuer, issuer: given.apple.teamId, subject: this.clientId, maxTokenAge: '10m',
    });
    return protectedHeader.kid === given.apple.keyId;
  };
}

provider.on('server_error', (_, error) => console.error(error));
provider.listen(given.port, '127.0.0.1', () => console.log('listening'));
