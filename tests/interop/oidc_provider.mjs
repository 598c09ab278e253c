// npm's oidc-provider on loopback: `node oidc_provider.mjs TOOLS PORT OPTIONS`, where OPTIONS is JSON:
// algorithm: of the access tokens; nonce: whether proofs need one; certificates: whether tokens are bound to certificates;
// opaque: whether tokens are references, about which the client `mcp` may ask.
// POST /control/rotate replaces all keys.
import { createServer } from 'node:http';
import { generateKeyPairSync, randomBytes, X509Certificate } from 'node:crypto';
import { pathToFileURL } from 'node:url';

const [tools, port, options] = [process.argv[2], Number(process.argv[3]), JSON.parse(process.argv[4])];
const { default: Provider } = await import(pathToFileURL(`${tools}/node_modules/oidc-provider/lib/index.js`));
const issuer = `http://127.0.0.1:${port}`;
const curves = { ES256: ['ec', { namedCurve: 'P-256' }], EdDSA: ['ed25519', {}], RS256: ['rsa', { modulusLength: 2048 }] };

let generation = 0;
function key(algorithm) {
  const { privateKey } = generateKeyPairSync(...curves[algorithm]);
  return { ...privateKey.export({ format: 'jwk' }), kid: `${algorithm}-${generation}`, use: 'sig', alg: algorithm };
}

function provider() {
  generation += 1;
  // RS256 is what its metadata promise by default.
  const keys = [...new Set([options.algorithm, 'RS256'])].map(key);
  const client = {
    client_id: 'agent',
    client_secret: 'agent-secret',
    grant_types: ['client_credentials'],
    response_types: [],
    redirect_uris: [],
    tls_client_certificate_bound_access_tokens: Boolean(options.certificates),
  };
  const resourceServer = {
    client_id: 'mcp',
    client_secret: 'mcp-secret',
    grant_types: [],
    response_types: [],
    redirect_uris: [],
  };
  return new Provider(issuer, {
    clients: [client, resourceServer],
    jwks: { keys },
    scopes: ['sums:read', 'other:read'],
    enabledJWA: { dPoPSigningAlgValues: ['ES256', 'Ed25519', 'EdDSA', 'RS256'] },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: Boolean(options.opaque), allowedPolicy: (ctx, asking) => asking.clientId === 'mcp' },
      revocation: { enabled: true },
      dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => options.nonce },
      mTLS: {
        enabled: Boolean(options.certificates),
        certificateBoundAccessTokens: true,
        getCertificate: (ctx) => ctx.get('x-test-certificate') && new X509Certificate(Buffer.from(ctx.get('x-test-certificate'), 'base64')),
      },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (ctx, resource) => ({
          scope: 'sums:read other:read',
          audience: resource,
          accessTokenTTL: 300,
          ...(options.opaque
            ? { accessTokenFormat: 'opaque' }
            : { accessTokenFormat: 'jwt', jwt: { sign: { alg: options.algorithm } } }),
        }),
      },
    },
  });
}

let answer = provider().callback();
createServer((request, response) => {
  if (request.url === '/control/rotate') {
    answer = provider().callback();
    response.end();
    return;
  }
  answer(request, response);
}).listen(port, '127.0.0.1', () => console.log('ready'));
