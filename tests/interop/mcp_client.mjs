// MCP's TypeScript SDK with proofs, which it does not make itself: panva's `dpop` makes them in the `fetch` that it is given.
// `node mcp_client.mjs TOOLS INPUT`, where INPUT is JSON: url, token, the private key as JWK, calls. Prints what the tool gave, as JSON.
import { pathToFileURL } from 'node:url';

const [tools, input] = [process.argv[2], JSON.parse(process.argv[3])];
const load = (path) => import(pathToFileURL(`${tools}/node_modules/${path}`));
const { generateProof } = await load('dpop/build/index.js');
const { Client, StreamableHTTPClientTransport } = await load('@modelcontextprotocol/client/dist/index.mjs');

const curve = { name: 'ECDSA', namedCurve: 'P-256' };
const { d, ...point } = input.key;
const keys = {
  privateKey: await crypto.subtle.importKey('jwk', { ...point, d }, curve, false, ['sign']),
  publicKey: await crypto.subtle.importKey('jwk', point, curve, true, ['verify']),
};

let nonce;
let refused = 0;
async function proving(url, init = {}) {
  for (;;) {
    const headers = new Headers(init.headers);
    headers.set('authorization', `DPoP ${input.token}`);
    headers.set('dpop', await generateProof(keys, `${url}`, init.method ?? 'GET', nonce, input.token));
    const answer = await fetch(url, { ...init, headers });
    const given = answer.headers.get('dpop-nonce');
    const isAskedAgain = answer.status === 401 && given !== null && given !== nonce;
    nonce = given ?? nonce;
    if (!isAskedAgain) return answer;
    refused += 1;
  }
}

const client = new Client({ name: 'interop', version: '1' });
await client.connect(new StreamableHTTPClientTransport(new URL(input.url), { fetch: proving }));
const results = [];
for (let call = 0; call < input.calls; call += 1) {
  const answer = await client.callTool({ name: 'add', arguments: { a: call, b: 2 } });
  results.push(answer.content[0].text);
}
await client.close();
console.log(JSON.stringify({ results, refused }));
