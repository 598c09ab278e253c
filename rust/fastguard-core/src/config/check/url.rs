//! As much of URLs (RFC 3986) as the configuration needs.

/// An absolute URL, in parts.
pub(in crate::config) struct Url<'a> {
    pub(super) scheme: &'a str,
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    /// User, query or fragment.
    pub(super) has_extras: bool,
}

impl<'a> Url<'a> {
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        if !matches!(scheme, "https" | "http") || !text.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
            return None;
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at_checked(end)?;
        let path_end = tail.find(['?', '#']).unwrap_or(tail.len());
        let (path, extra) = tail.split_at_checked(path_end)?;
        let (user, host_and_port) = authority.rsplit_once('@').map_or((false, authority), |(_, host)| (true, host));
        let host = host_of(host_and_port)?;
        let path = if path.is_empty() { "/" } else { path };
        Some(Self { scheme, host, path, has_extras: user || !extra.is_empty() })
    }

    /// Whether the host is this machine by its own name or number.
    pub(super) fn is_loopback(&self) -> bool {
        let number = self.host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        self.host == "localhost" || number.is_ok_and(|address| address.to_canonical().is_loopback())
    }
}

fn host_of(text: &str) -> Option<&str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let close = rest.find(']')? + 2;
            text.split_at_checked(close)?
        }
        None => text.split_at_checked(text.find(':').unwrap_or(text.len()))?,
    };
    let port = port.strip_prefix(':');
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok());
    (is_port && !host.is_empty() && (port.is_some() || text == host)).then_some(host)
}

/// The origin and the path of an absolute URL; `/` where it has none. The configuration has checked the URL.
pub(crate) fn split_url(url: &str) -> (&str, &str) {
    let host = url.find("://").map_or(0, |scheme| scheme + 3);
    let path = url.get(host..).and_then(|rest| rest.find('/')).map(|path| host + path);
    path.and_then(|path| url.split_at_checked(path)).unwrap_or((url, "/"))
}

/// Whether nobody can read the path in two ways.
pub(super) fn is_plain_path(path: &str) -> bool {
    let has_dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
    !has_dots && !path.contains("//") && !path.contains(['%', '*', '\\', '?', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_fall_into_their_parts() {
        let url = Url::parse("https://mcp.example.com:8443/mcp").unwrap();
        assert_eq!((url.scheme, url.host, url.path, url.has_extras), ("https", "mcp.example.com", "/mcp", false));
        assert_eq!(Url::parse("https://h").unwrap().path, "/");
        assert!(Url::parse("https://u@h/").unwrap().has_extras);
        assert!(Url::parse("https://h/?q").unwrap().has_extras);
        assert!(Url::parse("http://[::1]:80/").unwrap().is_loopback());
        assert!(Url::parse("http://127.9.9.9").unwrap().is_loopback());
        assert!(!Url::parse("http://127.0.0.1.example.com").unwrap().is_loopback());
        for text in ["", "mcp.example.com", "ftp://h", "https://", "https://h:x", "https://h o", "https://h:99999"] {
            assert!(Url::parse(text).is_none(), "{text}");
        }
    }
}
