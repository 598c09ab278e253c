// panva's clients: `node dpop_client.mjs TOOLS INPUT`, where INPUT is JSON: client ("oauth4webapi" or "dpop"), issuer, resource,
// scope, algorithm of the proofs, calls, and the headers and body of a call. Prints the status and body of each call as JSON.
import { pathToFileURL } from 'node:url';

const [tools, input] = [process.argv[2], JSON.parse(process.argv[3])];
const load = (name) => import(pathToFileURL(`${tools}/node_modules/${name}/build/index.js`));
const oauth = await load('oauth4webapi');
const insecure = { [oauth.allowInsecureRequests]: true };

const issuer = new URL(input.issuer);
const server = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, insecure));
const client = { client_id: 'agent' };
const keys = await oauth.generateKeyPair(input.algorithm);
const handle = oauth.DPoP(client, keys);
const parameters = new URLSearchParams({ scope: input.scope, resource: input.resource });

async function withNonce(work) {
  try {
    return await work();
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error;
    return await work();
  }
}

const token = await withNonce(async () => {
  const secret = oauth.ClientSecretBasic('agent-secret');
  const answer = await oauth.clientCredentialsGrantRequest(server, client, secret, parameters, { ...insecure, DPoP: handle });
  return oauth.processClientCredentialsResponse(server, client, answer);
});

async function byOauth4webapi() {
  const url = new URL(input.resource);
  const request = () => oauth.protectedResourceRequest(
    token.access_token, 'POST', url, new Headers(input.headers), input.body, { ...insecure, DPoP: handle },
  );
  try {
    const answer = await withNonce(request);
    return { status: answer.status, body: await answer.text() };
  } catch (error) {
    if (!(error instanceof oauth.WWWAuthenticateChallengeError)) throw error;
    return { status: error.status, body: await error.response.text() };
  }
}

let nonce;
async function byDpop() {
  const { generateProof } = await load('dpop');
  for (const isLast of [false, true]) {
    const proof = await generateProof(keys, input.resource, 'POST', nonce, token.access_token);
    const headers = { ...input.headers, authorization: `DPoP ${token.access_token}`, dpop: proof };
    const answer = await fetch(input.resource, { method: 'POST', headers, body: input.body });
    nonce = answer.headers.get('dpop-nonce') ?? nonce;
    const body = await answer.text();
    const wantsNonce = (answer.headers.get('www-authenticate') ?? '').includes('use_dpop_nonce');
    if (!wantsNonce || isLast) return { status: answer.status, body };
  }
}

const results = [];
for (let call = 0; call < input.calls; call += 1) {
  results.push(await (input.client === 'dpop' ? byDpop() : byOauth4webapi()));
}
console.log(JSON.stringify({ type: token.token_type, results }));
