"""Mutated proofs, judged by us and by panva's `oauth4webapi`: where the two differ, the reason stands here.

Of a million (2026-11, oauth4webapi 3.8.8) we accepted none that it refuses, and refused 120,702 that it accepts, for the reasons below.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from mcp_fastguard.binding import DPoPVerifier
from mcp_fastguard.errors import Denied
from mcp_fastguard.token import KeySet, TokenVerifier
from mutant_support import Mutants
from node_support import TOOLS, node_binary
from support import RESOURCE

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent
ALGORITHMS = ["ES256", "EdDSA", "RS256"]

#: What it accepts and we do not, by our code and, where that names many things, our words. What we accept and it does not: nothing.
REASONS = {
    "body_missing": "a `content_digest`, which it does not know, and no body here that could be held against it",
    "proof_key_refused: the key in the proof is refused: not for verifying signatures": (
        "RFC 7517 section 4.2: a key for something else; it looks at neither `use` nor `key_ops`"
    ),
    "proof_malformed: no DPoP proof: `content_digest` is no string": "it does not know the claim",
    "proof_malformed: no DPoP proof: `iat`, `exp` or `nbf` is no time": "before the epoch or past what a clock can show",
    "proof_malformed: no DPoP proof: `iss`, `sub` or `aud` is of the wrong type": "it looks at `iss` and `aud`, not at `sub`",
    "proof_malformed: no DPoP proof: `jti` is empty or longer than 256 bytes": "it has no bounds, and remembers no proofs",
    "proof_malformed: no DPoP proof: `nonce` is no string": "it does not look at nonces",
    "proof_malformed: no DPoP proof: `typ` is not `dpop+jwt`": "it takes upper case and `application/`; RFC 9449 names one value",
    "proof_malformed: no DPoP proof: a header parameter is not a string, or too long": "a `kid` that is no string",
    "proof_malformed: no DPoP proof: the header has `crit`, `b64`, `zip` or `enc`": "it refuses `crit` alone",
    "proof_malformed: no DPoP proof: the header is not base64url": "it decodes base64 and white space too (RFC 7515 section 2)",
    "proof_malformed: no DPoP proof: the header is not one JSON object without repeated members": (
        "RFC 7515 section 4: it takes the last of members that are there twice"
    ),
    "proof_malformed: no DPoP proof: the payload is not one JSON object without repeated members": "the same of claims",
    "proof_malformed: no DPoP proof: the signature is not base64url, or too long": "as for the header",
    "proof_replayed": "a `jti` that came before; it remembers none",
    "proof_url_mismatch": "it reads `htu` as browsers do, we by RFC 3986: no backslashes, lost slashes, white space or users",
}

#: As many proofs come of one token.
EACH = 2_000


@contextmanager
def judges(node):
    """A verifier of the other kind, in a process that stays: takes mutants and proofs, gives what it says of each."""
    command = [node, HERE / "dpop_verifier.mjs", TOOLS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ask(mutants, proofs):
            given = {"issuer": mutants.issuer.issuer, "jwks": mutants.issuer.jwks, "token": mutants.token}
            process.stdin.write(json.dumps({**given, "url": RESOURCE, "proofs": proofs}) + "\n")
            process.stdin.flush()
            return lambda: json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()
        assert process.wait(60) == 0


def ours(mutants, proofs):
    """What we say of each proof; None where it is accepted."""
    keys = KeySet.from_jwks(mutants.issuer.jwks)
    verifier = TokenVerifier(issuer=mutants.issuer.issuer, audience=RESOURCE, keys=keys, algorithms=["ES256"])
    token = verifier.verify(mutants.token)
    dpop = DPoPVerifier(algorithms=ALGORITHMS, replay_entries=64 * EACH)
    for proof in proofs:
        try:
            dpop.confirm(token, proof, method="POST", url=RESOURCE, access_token=mutants.token)
        except Denied as denied:
            says_what = denied.code in {"proof_malformed", "proof_key_refused"}
            yield f"{denied.code}: {denied.detail}" if says_what else denied.code
        else:
            yield None


def run_of(node, total, seed):
    """How many proofs both accept and both refuse, and in which ways the two differ, with an example each."""
    same, differing, examples = Counter(), Counter(), {}
    with judges(node) as ask:
        for start in range(0, total, EACH):
            mutants = Mutants(seed + start)
            proofs = [mutants.one() for _ in range(min(EACH, total - start))]
            answer = ask(mutants, proofs)
            for proof, mine, theirs in zip(proofs, ours(mutants, proofs), answer(), strict=True):
                if (mine is None) == (theirs is None):
                    same["accepted" if mine is None else "refused"] += 1
                else:
                    differing[mine, theirs] += 1
                    examples.setdefault((mine, theirs), proof)
    return same, differing, examples


def without_reason(differing, examples):
    return [(*pair, count, examples[pair]) for pair, count in differing.items() if pair[0] not in REASONS]


@pytest.fixture(scope="module")
def node():
    """The pinned Node."""
    return node_binary()


def test_no_proof_is_judged_otherwise_than_by_oauth4webapi_without_a_reason(node):
    same, differing, examples = run_of(node, 4_000, 20_261_128)

    assert without_reason(differing, examples) == []
    assert same["accepted"] > 500
    assert same["refused"] > 500


@pytest.mark.soak
def test_no_proof_of_a_million_is_judged_otherwise_than_by_oauth4webapi_without_a_reason(node):
    total, processes = int(os.environ.get("FASTGUARD_MUTANTS", "1000000")), os.cpu_count() or 1
    share, seed = -(-total // processes), int(time.time())
    print(f"seed {seed}, {processes} processes")  # noqa: T201 - by which the run can be repeated
    same, differing, examples = Counter(), Counter(), {}
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for found in pool.starmap(run_of, [(node, share, seed + number * share) for number in range(processes)]):
            same, differing = same + found[0], differing + found[1]
            examples = found[2] | examples
    for (mine, theirs), count in differing.most_common():
        print(f"{count:8,} {mine or 'accepted'} / {theirs or 'accepted'}")  # noqa: T201 - what the run is for

    assert without_reason(differing, examples) == []
    assert same.total() + differing.total() >= total
    assert same["accepted"] > total / 6
