"""Certificates of clients."""

from __future__ import annotations

import base64
import urllib.parse
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Holder:
    """A client with a certificate that it has signed itself."""

    def __init__(self, *, days=1):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, 'agent, of; "acme"')])
        now = datetime.now(UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=10))
            .not_valid_after(now + timedelta(days=days))
            .sign(key, hashes.SHA256())
        )

    @property
    def confirmation(self):
        digest = self.certificate.fingerprint(hashes.SHA256())
        return {"x5t#S256": base64.urlsafe_b64encode(digest).rstrip(b"=").decode()}

    @property
    def base64(self):
        """The certificate in DER, as RFC 9440 has it between colons."""
        return base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()

    def header(self, source):
        """Name and value, as the proxy of this source writes them."""
        pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        if source == "nginx":
            return "ssl-client-cert", urllib.parse.quote(pem, safe="")
        if source == "envoy":
            hex_digest = self.certificate.fingerprint(hashes.SHA256()).hex()
            subject = 'CN=\\"agent, of; acme\\"'
            value = (
                f'By=spiffe://a/b;Hash={hex_digest};Cert="{urllib.parse.quote(pem, safe="")}";Subject="{subject}";URI='
            )
            return "x-forwarded-client-cert", value
        return "client-cert", f":{self.base64}:"
