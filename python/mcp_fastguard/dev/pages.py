"""The pages that people see: HTML without a script, in which all that others have said is text."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.responses import HTMLResponse

from mcp_fastguard.dev.redirects import form_source

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["consent_page", "refusal_page"]

#: Longest name of a client that is shown.
MAX_NAME: Final = 80

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8885; --accent: #1f6feb; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; padding: 2rem 1rem; background: light-dark(#f4f5f7, #16181d); }
main { max-width: 30rem; margin: 0 auto; padding: 1.5rem 2rem 2rem; border: 1px solid var(--line); border-radius: 12px;
  background: light-dark(#fff, #1f2229); }
h1 { font-size: 1.35rem; line-height: 1.3; margin: .5rem 0 1rem; overflow-wrap: anywhere; }
p, dd, li { overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem; margin: 0 0 1.25rem; font-size: .9rem; }
dt { opacity: .65; } dd { margin: 0; } code { font-family: ui-monospace, monospace; font-size: .92em; }
fieldset { border: 1px solid var(--line); border-radius: 8px; margin: 0 0 1rem; padding: .5rem 1rem .75rem; }
legend { padding: 0 .4rem; font-size: .9rem; } label { display: flex; gap: .6rem; align-items: center; padding: .2rem 0; }
input, select, button { font: inherit; } select { flex: 1; padding: .3rem; }
.buttons { display: flex; gap: .75rem; margin-top: 1.25rem; }
button { flex: 1; padding: .6rem; border-radius: 8px; border: 1px solid var(--line); background: none; color: inherit; }
button.allow { background: var(--accent); border-color: var(--accent); color: #fff; }
.badge { font-size: .8rem; opacity: .75; } .notice { color: light-dark(#b42318, #ff8a7a); }
"""

#: The style is allowed by its hash, so that no other can be brought in (CSP level 3, section 8.4).
_STYLE_SOURCE: Final = f"'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"


def consent_page(  # noqa: PLR0913 - what the person is shown
    *,
    action: str,
    hidden: dict[str, str],
    client_name: str,
    redirect_uri: str,
    resource: str,
    scopes: Sequence[str],
    users: Sequence[str],
    notice: str = "",
) -> HTMLResponse:
    """Asks a person whether a client may act for one of the users, and with which scopes.

    Args:
        action: path that the form is sent to.
        hidden: fields that come back as they are.
        client_name: what the client calls itself.
        redirect_uri: where the answer goes; the form may lead there and nowhere else.
        resource: the URL of the MCP server.
        scopes: what was asked for, all ticked.
        users: who one may be.
        notice: what was wrong with the last try.
    """
    fields = "".join(f'<input type="hidden" name="{escape(k)}" value="{escape(v)}">' for k, v in hidden.items())
    boxes = "".join(
        f'<label><input type="checkbox" name="scope" value="{escape(scope)}" checked><code>{escape(scope)}</code></label>'
        for scope in scopes
    )
    options = "".join(f'<option value="{escape(user)}">{escape(user)}</option>' for user in users)
    # In quotation marks, which end what others have said.
    name = f"“{escape(_shown(client_name))}”" if _shown(client_name) else "A client without a name"
    told = f'<p class="notice" role="alert">{escape(notice)}</p>' if notice else ""
    body = f"""<p class="badge">Development login: nobody is asked for a password</p>
<h1>{name} wants to use your MCP server</h1>
<dl><dt>MCP server</dt><dd><code>{escape(resource)}</code></dd>
<dt>Answer goes to</dt><dd><strong>{escape(_host(redirect_uri))}</strong><br><code>{escape(redirect_uri)}</code></dd></dl>
{told}<form method="post" action="{escape(action)}">{fields}
<fieldset><legend>It may</legend>{boxes}</fieldset>
<fieldset><legend>Log in as</legend><label><select name="subject" aria-label="Log in as">{options}</select></label></fieldset>
<div class="buttons"><button name="decision" value="deny">Deny</button>
<button class="allow" name="decision" value="allow">Allow</button></div></form>"""
    return _page(f"{name} asks for access", body, form_action=f"'self' {form_source(redirect_uri)}")


def refusal_page(title: str, explanation: str, *, status: int = 400) -> HTMLResponse:
    """Tells a person what is wrong, where nobody may be redirected (RFC 6749 section 4.1.2.1)."""
    body = f'<p class="badge">Development login</p><h1>{escape(title)}</h1><p>{escape(explanation)}</p>'
    return _page(escape(title), body, form_action="'none'", status=status)


def _page(title: str, body: str, *, form_action: str, status: int = 200) -> HTMLResponse:
    policy = (
        f"default-src 'none'; style-src {_STYLE_SOURCE}; form-action {form_action}; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        # Not `no-referrer`, under which a browser hides the origin of the form from us.
        "Referrer-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><main>{body}</main></body></html>"
    )
    return HTMLResponse(html, status_code=status, headers=headers)


def _shown(name: str) -> str:
    """A client's name without what would turn or hide the text round it (control and format characters), and not too long."""
    visible = "".join(letter if letter.isprintable() else " " for letter in name)
    visible = " ".join(visible.split())
    return visible if len(visible) <= MAX_NAME else visible[: MAX_NAME - 1] + "…"


def _host(uri: str) -> str:
    """Who gets the answer: a host, or the scheme that an application has taken."""
    parsed = urlsplit(uri)
    if parsed.scheme in {"http", "https"}:
        return parsed.netloc
    return f"the application for {parsed.scheme}:"
