//! URIs of `http` and `https` in the one form in which two that name the same thing are equal (RFC 3986 §6.2.2, §6.2.3).

use std::fmt::Write as _;
use std::net::Ipv6Addr;

use crate::bounds::MAX_URI_BYTES;

/// Scheme, authority and path, normalised. Query and fragment are left out, as RFC 9449 §4.3 has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Uri {
    is_https: bool,
    host: Box<str>,
    port: u16,
    path: Box<str>,
}

impl Uri {
    /// Reads an absolute URI. `None` where it is none, names a user, or has a character that RFC 3986 does not allow.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_URI_BYTES || !text.bytes().all(is_allowed) {
            return None;
        }
        let (scheme, rest) = text.split_once("://")?;
        let is_https = scheme.eq_ignore_ascii_case("https");
        if !is_https && !scheme.eq_ignore_ascii_case("http") {
            return None;
        }
        let (authority, tail) = rest.split_at_checked(rest.find(['/', '?', '#']).unwrap_or(rest.len()))?;
        let (host, port) = split_port(authority)?;
        let port = match port {
            // An empty port is the scheme's own (RFC 3986 §6.2.3).
            None | Some("") => default_port(is_https),
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
        };
        let path = tail.split(['?', '#']).next().unwrap_or_default();
        Some(Self { is_https, host: normal_host(host)?, port, path: normal_path(path)? })
    }

    /// `https` or `http`.
    pub const fn scheme(&self) -> &'static str {
        if self.is_https { "https" } else { "http" }
    }

    /// The host, with the port where it is not the scheme's own.
    pub fn authority(&self) -> String {
        if self.port == default_port(self.is_https) {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The path, which begins with `/`.
    pub fn path(&self) -> &str {
        &self.path
    }
}

const fn default_port(is_https: bool) -> u16 {
    if is_https { 443 } else { 80 }
}

/// The characters of a URI: unreserved, reserved and `%` (RFC 3986 §2).
const fn is_allowed(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b'%' | b':' | b'/' | b'?' | b'#' | b'[' | b']' | b'@')
        || is_sub_delimiter(byte)
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

const fn is_sub_delimiter(byte: u8) -> bool {
    matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

/// Host and port of an authority without a user.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if authority.starts_with('[') {
        let (host, rest) = authority.split_at_checked(authority.find(']')? + 1)?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => Some((authority, None)),
    }
}

/// A name in lower case, or an address. No name of the DNS needs an escape, so none is read.
fn normal_host(host: &str) -> Option<Box<str>> {
    if let Some(address) = host.strip_prefix('[') {
        let address: Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]").into());
    }
    let is_name = !host.is_empty() && host.bytes().all(is_unreserved);
    is_name.then(|| host.to_ascii_lowercase().into())
}

fn normal_path(path: &str) -> Option<Box<str>> {
    if path.is_empty() {
        return Some("/".into());
    }
    let decoded = normal_escapes(path)?;
    let mut segments: Vec<&str> = Vec::new();
    let mut parts = decoded.split('/').skip(1).peekable();
    while let Some(segment) = parts.next() {
        let is_last = parts.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    segments.pop();
                }
                // RFC 3986 §5.2.4: what ends in a dot segment names a folder.
                if is_last {
                    segments.push("");
                }
            }
            _ => segments.push(segment),
        }
    }
    Some(format!("/{}", segments.join("/")).into())
}

/// Escapes of unreserved characters are undone, others written in upper case (RFC 3986 §6.2.2.1, §6.2.2.2).
fn normal_escapes(path: &str) -> Option<String> {
    let mut normal = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            if !(is_unreserved(byte) || is_sub_delimiter(byte) || matches!(byte, b':' | b'@' | b'/')) {
                return None;
            }
            normal.push(char::from(byte));
            continue;
        }
        let (high, low) = (hex_digit(bytes.next()?)?, hex_digit(bytes.next()?)?);
        let value = high * 16 + low;
        if is_unreserved(value) {
            normal.push(char::from(value));
        } else {
            let _ = write!(normal, "%{value:02X}");
        }
    }
    Some(normal)
}

const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn are_same(one: &str, other: &str) -> bool {
        Uri::parse(one).unwrap() == Uri::parse(other).unwrap()
    }

    #[test]
    fn spellings_of_one_uri_are_the_same() {
        for (one, other) in [
            ("https://h/mcp", "HTTPS://H/mcp"),
            ("https://h/mcp", "https://h:443/mcp"),
            ("https://h/mcp", "https://h:/mcp"),
            ("https://h/mcp", "https://h:0443/mcp"),
            ("http://h/mcp", "http://h:80/mcp"),
            ("https://h/mcp", "https://h/mcp?a=/../b"),
            ("https://h/mcp", "https://h/mcp#x"),
            ("https://h", "https://h/"),
            ("https://h?q", "https://h/"),
            ("https://h/mcp", "https://h/%6dcp"),
            ("https://h/a%2fb", "https://h/a%2Fb"),
            ("https://h/mcp", "https://h/./x/../mcp"),
            ("https://h/mcp", "https://h/../mcp"),
            ("https://h/a/", "https://h/a/b/.."),
            ("https://h/mcp", "https://h/%2e/mcp"),
            ("http://[::1]:8000/mcp", "http://[0:0::0:1]:8000/mcp"),
            ("https://h/~a", "https://h/%7Ea"),
        ] {
            assert!(are_same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn uris_of_other_things_differ() {
        for (one, other) in [
            ("https://h/mcp", "http://h/mcp"),
            ("https://h/mcp", "https://h:8443/mcp"),
            ("https://h/mcp", "https://i/mcp"),
            ("https://h/mcp", "https://h./mcp"),
            ("https://h/mcp", "https://h/MCP"),
            ("https://h/mcp", "https://h/mcp/"),
            ("https://h/mcp", "https://h//mcp"),
            ("https://h/a/b", "https://h/a%2Fb"),
            ("https://h/mcp", "https://h/mcp%00"),
            ("https://h/", "https://h/mcp"),
        ] {
            assert!(!are_same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn what_is_no_uri_of_the_web_is_none() {
        for text in [
            "",
            "mcp",
            "/mcp",
            "//h/mcp",
            "ftp://h/mcp",
            "https:/h/mcp",
            "https://",
            "https:///mcp",
            "https://u@h/mcp",
            "https://h:x/",
            "https://h:+443/",
            "https://h:65536/",
            "https://h:1:2/",
            "https://[::1/",
            "https://[::1]x/",
            "https://[h]/",
            "https://h%2e/",
            "https://h/%",
            "https://h/%6",
            "https://h/%zz",
            "https://h/a b",
            "https://h/a\nb",
            "https://h/\u{0}",
            "https://h/\u{e9}",
            "https://h/a\\b",
            "https://h/[a]",
            " https://h/",
            "https://h/ ",
        ] {
            assert_eq!(Uri::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn uri_at_the_bound_passes_and_beyond_is_none() {
        let longest = format!("https://h/{}", "a".repeat(MAX_URI_BYTES - 10));
        assert!(Uri::parse(&longest).is_some());
        assert!(Uri::parse(&(longest + "a")).is_none());
    }
}
