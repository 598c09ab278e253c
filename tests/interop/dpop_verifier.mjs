// panva's verifier of DPoP proofs: `node dpop_verifier.mjs TOOLS`. Each line of standard input is JSON: issuer, jwks, token, url, and proofs.
// Prints for each line one, as JSON: for each proof null where it is accepted, else why not.
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const tools = process.argv[2];
const oauth = await import(pathToFileURL(`${tools}/node_modules/oauth4webapi/build/index.js`));

async function judge(proof, { token, url, server, options }) {
  const headers = { authorization: `DPoP ${token}`, dpop: proof };
  try {
    await oauth.validateJwtAccessToken(server, new Request(url, { method: 'POST', headers }), url, options);
    return null;
  } catch (error) {
    return error.message;
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { issuer, jwks, token, url, proofs } = JSON.parse(line);
  const server = { issuer, jwks_uri: `${issuer}/jwks` };
  // The keys are given, so nothing is fetched.
  const options = { [oauth.jwksCache]: { jwks, uat: Math.floor(Date.now() / 1000) } };
  const found = [];
  for (const proof of proofs) found.push(await judge(proof, { token, url, server, options }));
  console.log(JSON.stringify(found));
}
