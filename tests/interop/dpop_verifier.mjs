// panva's verifier of DPoP proofs: `node dpop_verifier.mjs TOOLS`, and on standard input JSON: issuer, jwks, token, url, and proofs.
// Prints, as JSON, for each proof null where it is accepted, else why not.
import { pathToFileURL } from 'node:url';

const tools = process.argv[2];
const oauth = await import(pathToFileURL(`${tools}/node_modules/oauth4webapi/build/index.js`));
const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const input = JSON.parse(Buffer.concat(chunks).toString());
const server = { issuer: input.issuer, jwks_uri: `${input.issuer}/jwks` };
// The keys are given, so nothing is fetched.
const options = { [oauth.jwksCache]: { jwks: input.jwks, uat: Math.floor(Date.now() / 1000) } };

async function judge(proof) {
  const headers = { authorization: `DPoP ${input.token}`, dpop: proof };
  try {
    await oauth.validateJwtAccessToken(server, new Request(input.url, { method: 'POST', headers }), input.url, options);
    return null;
  } catch (error) {
    return error.message;
  }
}

const found = [];
for (const proof of input.proofs) found.push(await judge(proof));
console.log(JSON.stringify(found));
