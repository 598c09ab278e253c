"""Certificates of clients, and an authority that issues them to servers."""

from __future__ import annotations

import base64
import datetime as dt
import urllib.parse
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = dt.timedelta(days=1)


class Holder:
    """A client with a certificate that it has signed itself."""

    def __init__(self, *, days=1, names=(), uris=()):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, 'agent, of; "acme"')])
        now = datetime.now(UTC)
        alternative = [*map(x509.DNSName, names), *map(x509.UniformResourceIdentifier, uris)]
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=10))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        if alternative:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        self.certificate = builder.sign(key, hashes.SHA256())

    @property
    def confirmation(self):
        digest = self.certificate.fingerprint(hashes.SHA256())
        return {"x5t#S256": base64.urlsafe_b64encode(digest).rstrip(b"=").decode()}

    @property
    def base64(self):
        """The certificate in DER, as RFC 9440 has it between colons."""
        return base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()

    @property
    def pem(self):
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def header(self, source):
        """Name and value, as the proxy of this source writes them."""
        pem = self.pem
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


class Authority:
    """Issues certificates into a folder, each with its key in one file."""

    def __init__(self, folder, name="authority"):
        self.folder = folder
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        built = self._builder(self.name, self.key.public_key(), DAY).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(built.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject, public_key, ends):
        now = dt.datetime.now(dt.UTC)
        return x509.CertificateBuilder(
            self.name, subject, public_key, x509.random_serial_number(), now - DAY, now + ends
        )

    def issue(self, *hosts, ends=DAY, password=None):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hosts[0])])
        names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
        certificate = self._builder(subject, key.public_key(), ends).add_extension(names, critical=False)
        secrecy = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        file = self.folder / f"{x509.random_serial_number()}.pem"
        file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secrecy)
            + certificate.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )
        return file
