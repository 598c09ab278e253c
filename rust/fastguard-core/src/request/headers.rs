//! The few headers that decide something, kept apart from all others.

use super::fields::Fields;
use super::trace::Trace;
use crate::bounds::{MAX_HEADERS, MAX_TOKEN_BYTES};
use crate::config::CertificateSource;
use crate::denial::Denial;

/// A header that decides something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Header {
    /// RFC 9110 §11.6.2
    Authorization,
    /// RFC 9440
    ClientCert,
    /// RFC 9440
    ClientCertChain,
    /// RFC 9110 §8.4
    ContentEncoding,
    /// RFC 9449 §4.1
    Dpop,
    /// RFC 7239
    Forwarded,
    /// MCP: the method of the message.
    McpMethod,
    /// MCP: the name of the target.
    McpName,
    /// MCP: the version of the protocol.
    ProtocolVersion,
    /// MCP before 2026-07-28.
    SessionId,
    /// RFC 9421 §4.1
    SignatureInput,
    /// By custom of nginx: the client's certificate.
    SslClientCert,
    /// W3C Trace Context. It decides nothing, and is recorded.
    Traceparent,
    /// Of Envoy: the client's certificate.
    XForwardedClientCert,
    /// By custom: the addresses that a request passed.
    XForwardedFor,
}

impl Header {
    const ALL: [Self; 15] = [
        Self::Authorization,
        Self::ClientCert,
        Self::ClientCertChain,
        Self::ContentEncoding,
        Self::Dpop,
        Self::Forwarded,
        Self::McpMethod,
        Self::McpName,
        Self::ProtocolVersion,
        Self::SessionId,
        Self::SignatureInput,
        Self::SslClientCert,
        Self::Traceparent,
        Self::XForwardedClientCert,
        Self::XForwardedFor,
    ];

    /// Those in which proxies hand on what they know of the client's certificate.
    pub const CERTIFICATES: [Self; 4] =
        [Self::ClientCert, Self::ClientCertChain, Self::SslClientCert, Self::XForwardedClientCert];

    /// The name in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Authorization => "authorization",
            Self::ClientCert => "client-cert",
            Self::ClientCertChain => "client-cert-chain",
            Self::ContentEncoding => "content-encoding",
            Self::Dpop => "dpop",
            Self::Forwarded => "forwarded",
            Self::McpMethod => "mcp-method",
            Self::McpName => "mcp-name",
            Self::ProtocolVersion => "mcp-protocol-version",
            Self::SessionId => "mcp-session-id",
            Self::SignatureInput => "signature-input",
            Self::SslClientCert => "ssl-client-cert",
            Self::Traceparent => "traceparent",
            Self::XForwardedClientCert => "x-forwarded-client-cert",
            Self::XForwardedFor => "x-forwarded-for",
        }
    }

    /// Whether only a declared proxy is believed about it.
    const fn is_of_proxies(self) -> bool {
        matches!(
            self,
            Self::ClientCert
                | Self::ClientCertChain
                | Self::Forwarded
                | Self::SslClientCert
                | Self::XForwardedClientCert
                | Self::XForwardedFor
        )
    }

    fn from_name(name: &[u8]) -> Option<Self> {
        // The length decides first: most headers of a request end here after one comparison.
        let candidate = match name.len() {
            4 => Self::Dpop,
            8 => Self::McpName,
            9 => Self::Forwarded,
            10 => Self::McpMethod,
            13 => Self::Authorization,
            14 => Self::SessionId,
            11 if matches!(name.first(), Some(b't' | b'T')) => Self::Traceparent,
            11 => Self::ClientCert,
            15 if matches!(name.get(1), Some(b's' | b'S')) => Self::SslClientCert,
            15 if matches!(name.get(1), Some(b'i' | b'I')) => Self::SignatureInput,
            15 => Self::XForwardedFor,
            23 => Self::XForwardedClientCert,
            16 => Self::ContentEncoding,
            17 => Self::ClientCertChain,
            20 => Self::ProtocolVersion,
            _ => return None,
        };
        name.eq_ignore_ascii_case(candidate.name().as_bytes()).then_some(candidate)
    }
}

/// How the token is presented.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// RFC 6750
    Bearer,
    /// RFC 9449
    Dpop,
}

/// What stands in the `DPoP` header (RFC 9449 §4.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProofHeader<'a> {
    /// There is none.
    Missing,
    /// One, as it came.
    One(&'a str),
    /// More than one, or one that is no text.
    Unreadable {
        /// Whether it came more than once.
        is_repeated: bool,
    },
}

/// What a declared proxy says of its client's certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CertificateHeader<'a> {
    /// Nothing, or the peer is not believed.
    Missing,
    /// The value of the source's header.
    One(CertificateSource, &'a str),
    /// It came more than once, or is no text.
    Unreadable,
}

/// The headers that decide something, each with its first value and whether it came again.
#[derive(Debug, Default)]
pub struct Headers {
    text: Vec<u8>,
    values: [Option<(u32, u32)>; Header::ALL.len()],
    repeated: u16,
    count: u32,
    /// All lines, where the request is signed.
    fields: Option<Box<Fields>>,
}

impl Headers {
    /// Takes note of one header. Names are compared without regard to case; others than [`Header`]'s are only counted.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.count = self.count.saturating_add(1);
        let Some(header) = Header::from_name(name) else { return };
        let (Some(slot), bit) = (self.values.get_mut(header as usize), 1_u16 << header as u16) else { return };
        if slot.is_some() {
            self.repeated |= bit;
            return;
        }
        // A token's bound is the largest of all; what is longer is cut here and refused by its length later.
        let kept = value.get(..MAX_TOKEN_BYTES + 64).unwrap_or(value);
        let (Ok(start), Ok(length)) = (u32::try_from(self.text.len()), u32::try_from(kept.len())) else { return };
        self.text.extend_from_slice(kept);
        *slot = Some((start, length));
    }

    /// Whether a signature came with the request. Then every line must be handed to [`Headers::keep`] too, in wire order,
    /// and the query to [`Headers::keep_query`].
    pub fn are_signed(&self) -> bool {
        self.bytes(Header::SignatureInput).is_some()
    }

    /// Keeps one line of a signed request, whatever its name: the signature may cover it.
    pub fn keep(&mut self, name: &[u8], value: &[u8]) {
        self.fields.get_or_insert_default().push(name, value);
    }

    /// Keeps the query of a signed request's target, without its `?`.
    pub fn keep_query(&mut self, query: &str) {
        self.fields.get_or_insert_default().query = Some(query.into());
    }

    /// The lines of a signed request; none of others.
    pub(super) fn fields(&self) -> Option<&Fields> {
        self.fields.as_deref()
    }

    /// Whether one of them says something of the client's certificate.
    pub fn speak_of_certificates(&self) -> bool {
        Header::CERTIFICATES.into_iter().any(|header| self.bytes(header).is_some())
    }

    /// Whether the token comes under the scheme `DPoP`, as far as the header can be read at all.
    pub fn are_under_dpop(&self) -> bool {
        self.bytes(Header::Authorization)
            .and_then(|value| value.get(..5))
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"dpop "))
    }

    /// How many headers there were.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Refuses what two parsers could read in two ways (decision 9).
    pub(super) fn check(&self) -> Result<(), Denial> {
        if self.count as usize > MAX_HEADERS {
            return Err(Denial::HeadersTooMany);
        }
        if self.repeated == 0 {
            return Ok(());
        }
        for header in Header::ALL {
            // What proxies add is read only when a declared one sent it. The room of bindings refuses a second proof, with the
            // challenge that RFC 9449 §7.1 wants, and a second certificate; signatures may come in several lines (RFC 9421 §4.1).
            // A trace that comes twice is none.
            if header.is_of_proxies() || matches!(header, Header::Dpop | Header::SignatureInput | Header::Traceparent) {
                continue;
            }
            if self.is_repeated(header) {
                return Err(Denial::HeaderDuplicated { header: header.name() });
            }
        }
        Ok(())
    }

    pub(super) const fn is_repeated(&self, header: Header) -> bool {
        self.repeated & (1 << header as u16) != 0
    }

    fn bytes(&self, header: Header) -> Option<&[u8]> {
        let (start, length) = (*self.values.get(header as usize)?)?;
        self.text.get(start as usize..start as usize + length as usize)
    }

    /// The value of a header, which must be visible ASCII with inner spaces (RFC 9110 §5.5).
    pub(super) fn text(&self, header: Header) -> Result<Option<&str>, Denial> {
        let Some(bytes) = self.bytes(header) else { return Ok(None) };
        let edge_space = bytes.first() == Some(&b' ') || bytes.last() == Some(&b' ');
        let visible = bytes.iter().all(|byte| (0x20..0x7f).contains(byte));
        match std::str::from_utf8(bytes) {
            Ok(text) if visible && !edge_space => Ok(Some(text)),
            _ => Err(Denial::HeaderInvalid { header: header.name() }),
        }
    }

    /// The proof of possession. Whether it must be there, and what it says, the room of bindings decides.
    pub(super) fn proof(&self) -> ProofHeader<'_> {
        if self.is_repeated(Header::Dpop) {
            return ProofHeader::Unreadable { is_repeated: true };
        }
        match self.text(Header::Dpop) {
            Ok(None) => ProofHeader::Missing,
            Ok(Some(proof)) => ProofHeader::One(proof),
            Err(_) => ProofHeader::Unreadable { is_repeated: false },
        }
    }

    /// The client's certificate, where the source hands one on. Whether the peer is believed, the caller knows.
    pub(super) fn certificate(&self, source: CertificateSource) -> CertificateHeader<'_> {
        let header = match source {
            CertificateSource::Off | CertificateSource::Tls => return CertificateHeader::Missing,
            CertificateSource::ClientCert => Header::ClientCert,
            CertificateSource::Envoy => Header::XForwardedClientCert,
            CertificateSource::Nginx => Header::SslClientCert,
        };
        if self.is_repeated(header) {
            return CertificateHeader::Unreadable;
        }
        match self.text(header) {
            // nginx sends an empty value for a client without a certificate.
            Ok(None | Some("")) => CertificateHeader::Missing,
            Ok(Some(value)) => CertificateHeader::One(source, value),
            Err(_) => CertificateHeader::Unreadable,
        }
    }

    /// The trace that the request belongs to, where it names one that can be read.
    pub(super) fn trace(&self) -> Option<Trace> {
        let text = self.text(Header::Traceparent).ok().flatten().filter(|_| !self.is_repeated(Header::Traceparent))?;
        Trace::parse(text)
    }

    /// The scheme and the token68 of `Authorization` (RFC 9110 §11.4): one space between, nothing after.
    pub(super) fn credentials(&self) -> Result<Option<(Scheme, &str)>, Denial> {
        let Some(value) = self.bytes(Header::Authorization) else { return Ok(None) };
        let value = std::str::from_utf8(value).map_err(|_| Denial::SchemeUnsupported)?;
        let (scheme, token) = value.split_once(' ').ok_or(Denial::SchemeUnsupported)?;
        let scheme = if scheme.eq_ignore_ascii_case("bearer") {
            Scheme::Bearer
        } else if scheme.eq_ignore_ascii_case("dpop") {
            Scheme::Dpop
        } else {
            return Err(Denial::SchemeUnsupported);
        };
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Denial::TokenTooLarge);
        }
        // Every byte is looked at, whatever the last one was, so that the compiler can look at many at once.
        if token.is_empty() || !token.bytes().fold(true, |all, byte| all & is_token68(byte)) {
            return Err(Denial::SchemeUnsupported);
        }
        Ok(Some((scheme, token)))
    }
}

/// Whether a byte may be part of a token68 (RFC 9110 §11.2).
const fn is_token68(byte: u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in list {
            headers.push(name.as_bytes(), value.as_bytes());
        }
        headers
    }

    #[test]
    fn every_header_is_found_by_its_name() {
        for header in Header::ALL {
            assert_eq!(Header::from_name(header.name().to_uppercase().as_bytes()), Some(header));
        }
    }

    #[test]
    fn scheme_is_read_in_any_case() {
        assert_eq!(headers(&[("Authorization", "bEARER a.b.c")]).credentials(), Ok(Some((Scheme::Bearer, "a.b.c"))));
        assert_eq!(headers(&[("authorization", "dpop a.b.c")]).credentials(), Ok(Some((Scheme::Dpop, "a.b.c"))));
    }

    #[test]
    fn authorization_that_is_not_one_token_after_one_space_is_refused() {
        for value in [
            "Bearer",
            "Bearer ",
            "Bearer  a",
            "Bearer a b",
            "Bearer a,b",
            "Basic YTpi",
            "Bearer\ta",
            " Bearer a",
            "Bearer a ",
        ] {
            assert_eq!(headers(&[("authorization", value)]).credentials(), Err(Denial::SchemeUnsupported), "{value:?}");
        }
    }

    #[test]
    fn token_at_the_bound_passes_and_beyond_is_refused() {
        let longest = format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES));
        assert!(headers(&[("authorization", &longest)]).credentials().is_ok());
        let longer = format!("{longest}a");
        assert_eq!(headers(&[("authorization", &longer)]).credentials(), Err(Denial::TokenTooLarge));
        let much_longer = format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES * 8));
        assert_eq!(headers(&[("authorization", &much_longer)]).credentials(), Err(Denial::TokenTooLarge));
    }

    #[test]
    fn repeated_routing_header_is_refused() {
        for name in ["authorization", "mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id"] {
            let twice = headers(&[(name, "a"), (&name.to_uppercase(), "a")]);
            assert!(matches!(twice.check(), Err(Denial::HeaderDuplicated { header }) if header == name), "{name}");
        }
        assert_eq!(headers(&[("accept", "a"), ("accept", "b")]).check(), Ok(()));
    }

    #[test]
    fn proof_is_told_apart_from_none_and_from_many() {
        assert_eq!(headers(&[]).proof(), ProofHeader::Missing);
        assert_eq!(headers(&[("DPoP", "a.b.c")]).proof(), ProofHeader::One("a.b.c"));
        let twice = headers(&[("dpop", "a.b.c"), ("DPoP", "a.b.c")]);
        assert_eq!((twice.check(), twice.proof()), (Ok(()), ProofHeader::Unreadable { is_repeated: true }));
        assert_eq!(headers(&[("dpop", "a\u{e9}")]).proof(), ProofHeader::Unreadable { is_repeated: false });
    }

    #[test]
    fn too_many_headers_are_refused() {
        let mut many = Headers::default();
        for _ in 0..MAX_HEADERS {
            many.push(b"x-a", b"1");
        }
        assert_eq!(many.check(), Ok(()));
        many.push(b"x-a", b"1");
        assert_eq!(many.check(), Err(Denial::HeadersTooMany));
    }

    #[test]
    fn control_characters_and_edge_spaces_in_routing_headers_are_refused() {
        for value in ["a\nb", "a\u{e9}", " a", "a ", "a\0"] {
            let list = headers(&[("mcp-name", value)]);
            assert_eq!(list.text(Header::McpName), Err(Denial::HeaderInvalid { header: "mcp-name" }), "{value:?}");
        }
    }
}
