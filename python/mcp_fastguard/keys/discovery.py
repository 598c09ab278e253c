"""Where an issuer's metadata are, and what they say of its keys (RFC 8414, OpenID Connect Discovery 1.0)."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

__all__ = ["MetadataError", "metadata_places", "uri_of"]


class MetadataError(Exception):
    """Metadata that cannot be used."""


def metadata_places(issuer: str) -> tuple[str, str]:
    """The URLs to ask, in order: RFC 8414 section 3.1 inserts before the path, OpenID Connect section 4 appends to it.

    Raises:
        MetadataError: no metadata can belong to this issuer.
    """
    parts = urlsplit(issuer)
    # RFC 8414 section 2: the identifier has no query and no fragment; a bare `?` or `#` would cut off what is appended.
    if not parts.netloc or "?" in issuer or "#" in issuer:
        raise MetadataError("an issuer with a query or fragment, or without a host, has no metadata")
    # Both texts: a slash that ends the path is removed first.
    path = parts.path.removesuffix("/")
    origin = f"{parts.scheme}://{parts.netloc}"
    return (
        f"{origin}/.well-known/oauth-authorization-server{path}",
        f"{origin}{path}/.well-known/openid-configuration",
    )


def uri_of(content: bytes, issuer: str, member: str = "jwks_uri") -> str:
    """The `jwks_uri`, or another URI, of metadata that name this very issuer.

    Raises:
        MetadataError: they are another's, name none, or are not strict JSON.
    """
    try:
        metadata = json.loads(content.decode(), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise MetadataError("the metadata are not JSON, or repeat a member") from error
    if not isinstance(metadata, dict):
        raise MetadataError("the metadata are no JSON object")
    # RFC 8414 section 3.3: compared as texts, without normalisation; otherwise the metadata MUST NOT be used.
    if metadata.get("issuer") != issuer:
        raise MetadataError("the metadata name another issuer")
    uri = metadata.get(member)
    if not isinstance(uri, str):
        raise MetadataError(f"the metadata name no `{member}`")
    return uri


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is repeated")
    return members
