//! Room 0: receives the request. The one place that knows MCP's wire.
//!
//! A request is looked at in two steps, because the token must be checked between them (decision 9): [`Receiver::receive`]
//! reads the path and the headers, [`Received::target`] the body.

mod body;
mod fields;
mod forwarded;
mod headers;
mod target;
mod trace;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use crate::bounds::{MAX_BODY_BYTES_BEFORE_TOKEN, MAX_MESSAGE_DEPTH};
use crate::config::{CertificateSource, Config, DpopMode, Network, split_url};
use crate::denial::{Challenger, Denial};
use crate::jose::Algorithm;
use crate::json::Json;

pub use body::{DECIDING_MEMBERS, HandedOn};
pub use fields::Fields;
pub use headers::{CertificateHeader, Header, Headers, ProofHeader, Scheme};
pub use target::{Kind, Target};
pub use trace::Trace;

/// One request, as it came: raw HTTP in wire order, or a message that an SDK has parsed.
#[derive(Debug)]
pub struct ToolRequest {
    source: Source,
    credentials: Option<(Scheme, Box<str>)>,
    session: Option<Box<str>>,
    peer: Option<IpAddr>,
    /// Of the client, in PEM, as the server itself has seen it.
    certificate: Option<Box<str>>,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "most requests are the large one, and a box would cost each of them an allocation"
)]
enum Source {
    Http { method: HttpMethod, path: Box<str>, headers: Headers, body: Option<Arc<[u8]>> },
    Tool { name: Box<str>, arguments: Option<Arc<[u8]>> },
    Message { method: Box<str>, params: Arc<[u8]>, id: Option<Box<str>> },
}

/// The methods of MCP's HTTP transport.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HttpMethod {
    /// Ends a session.
    Delete,
    /// Opens a stream.
    Get,
    /// Carries a message.
    Post,
    /// Any other: refused.
    Other,
}

impl HttpMethod {
    /// Reads the method's name, which is case-sensitive (RFC 9110 §9.1).
    pub fn from_name(name: &str) -> Self {
        match name {
            "POST" => Self::Post,
            "GET" => Self::Get,
            "DELETE" => Self::Delete,
            _ => Self::Other,
        }
    }
}

impl HttpMethod {
    /// The method's name; empty for those that are refused.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Get => "GET",
            Self::Delete => "DELETE",
            Self::Other => "",
        }
    }
}

/// What the bytes of a request's arguments are, for the record.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// Nothing.
    None,
    /// The JSON text of the arguments.
    Arguments(&'a Arc<[u8]>),
    /// The JSON text of `params`, which hold the arguments.
    Params(&'a Arc<[u8]>),
    /// The JSON text of the whole message.
    Message(&'a Arc<[u8]>),
}

impl ToolRequest {
    /// The address of the connection's other end; none where it is unknown.
    pub const fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// The trace that the request belongs to, by its header.
    pub(crate) fn trace(&self) -> Option<Trace> {
        match &self.source {
            Source::Http { headers, .. } => headers.trace(),
            _ => None,
        }
    }

    /// A raw HTTP request. `body: None` means unseen, and fails closed where the body decides.
    pub fn http(
        method: HttpMethod,
        path: impl Into<Box<str>>,
        headers: Headers,
        body: Option<Arc<[u8]>>,
        peer: Option<IpAddr>,
    ) -> Self {
        let source = Source::Http { method, path: path.into(), headers, body };
        Self { source, credentials: None, session: None, peer, certificate: None }
    }

    /// A call of a tool that the caller of the guard has parsed already; `arguments` is the JSON text of an object.
    pub fn tool(
        name: impl Into<Box<str>>,
        arguments: Option<Arc<[u8]>>,
        token: Option<Box<str>>,
        session: Option<Box<str>>,
    ) -> Self {
        let source = Source::Tool { name: name.into(), arguments };
        Self { source, credentials: token.map(|token| (Scheme::Bearer, token)), session, peer: None, certificate: None }
    }

    /// Any message that an SDK has parsed; `params` is the JSON text of an object, `id` that of the request's id.
    pub fn message(
        method: impl Into<Box<str>>,
        params: Arc<[u8]>,
        id: Option<Box<str>>,
        token: Option<Box<str>>,
        session: Option<Box<str>>,
    ) -> Self {
        let source = Source::Message { method: method.into(), params, id };
        Self { source, credentials: token.map(|token| (Scheme::Bearer, token)), session, peer: None, certificate: None }
    }

    /// This request with the client's certificate, in PEM, as the server that ended TLS has seen it.
    #[must_use]
    pub fn with_certificate(mut self, pem: impl Into<Box<str>>) -> Self {
        self.certificate = Some(pem.into());
        self
    }

    /// This request with the address that it came from.
    #[must_use]
    pub fn from_peer(mut self, peer: Option<IpAddr>) -> Self {
        self.peer = peer;
        self
    }

    /// Whether a message that an SDK hands on is the one that this request carried: same method, same target, same arguments.
    /// `params` is the JSON text of an object.
    pub fn is_message(&self, method: &str, params: &[u8]) -> bool {
        Json::parse(params, MAX_MESSAGE_DEPTH)
            .is_ok_and(|params| self.is_message_of(method, |name| params.member(name)))
    }

    /// The same for `params` of which each of [`DECIDING_MEMBERS`] can be asked for.
    pub fn is_message_of<V: HandedOn>(&self, method: &str, member: impl Fn(&'static str) -> Option<V>) -> bool {
        let Source::Http { body: Some(body), .. } = &self.source else { return false };
        body::is_same_message(body, method, member)
    }

    /// Method and target, read for whoever is told of a refusal; nothing where they cannot be read, and of a body that is read
    /// only after the token was checked: whoever sends it would set the price.
    pub fn asked(&self) -> Option<Target> {
        match &self.source {
            Source::Http { body: Some(body), .. } if body.len() > MAX_BODY_BYTES_BEFORE_TOKEN => None,
            _ => self.target().ok(),
        }
    }

    fn target(&self) -> Result<Target, Denial> {
        match &self.source {
            Source::Http { method: HttpMethod::Post, headers, body, .. } => body::target(headers, body.as_deref()),
            Source::Http { method: HttpMethod::Get, .. } => Ok(Target::method(Cow::Borrowed(target::HTTP_GET))),
            Source::Http { method: HttpMethod::Delete, .. } => Ok(Target::method(Cow::Borrowed(target::HTTP_DELETE))),
            Source::Http { method: HttpMethod::Other, .. } => Err(Denial::HttpMethodRefused),
            Source::Tool { name, arguments } => Target::tool(name, arguments.is_some()),
            Source::Message { method, params, id } => body::target_of_params(method, params, id.clone()),
        }
    }

    /// Whether a header speaks of a client's certificate, be it true or not.
    pub fn speaks_of_certificates(&self) -> bool {
        matches!(&self.source, Source::Http { headers, .. } if headers.speak_of_certificates())
    }

    /// The path that was asked for; a message that an SDK has parsed has none.
    pub(crate) fn path(&self) -> Option<&str> {
        match &self.source {
            Source::Http { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Whether the token came under the scheme `DPoP`.
    pub fn is_under_dpop(&self) -> bool {
        matches!(&self.source, Source::Http { headers, .. } if headers.are_under_dpop())
    }

    /// The bytes that hold the arguments, for the record and for comparison with what an SDK parsed.
    pub fn payload(&self) -> Payload<'_> {
        match &self.source {
            Source::Http { body: Some(body), .. } => Payload::Message(body),
            Source::Http { body: None, .. } | Source::Tool { arguments: None, .. } => Payload::None,
            Source::Tool { arguments: Some(arguments), .. } => Payload::Arguments(arguments),
            Source::Message { params, .. } => Payload::Params(params),
        }
    }
}

/// Reads requests for one guarded path.
#[derive(Debug)]
pub struct Receiver {
    path: Box<str>,
    metadata_url: Box<str>,
    challenger: Challenger,
    proxies: Vec<Network>,
    certificates: CertificateSource,
    /// Set where nothing but messages is taken.
    takes_posts_only: bool,
}

impl Receiver {
    /// Compiles `[resource]` and `[proxies]`.
    pub fn new(config: &Config) -> Self {
        let (origin, path) = split_url(&config.resource.url);
        // RFC 9728 §3.1: the well-known part goes between host and path; a path of `/` is left out.
        let inserted = if path == "/" { "" } else { path };
        let metadata_url: Box<str> = format!("{origin}/.well-known/oauth-protected-resource{inserted}").into();
        let takes_proofs = config.dpop.mode != DpopMode::Off;
        let names: Vec<_> = config.dpop.accepted_algorithms().iter().map(Algorithm::name).collect();
        let challenger = Challenger {
            metadata_url: Some(metadata_url.clone()),
            first_scopes: config.resource.scopes.join(" ").into(),
            proof_algorithms: takes_proofs.then(|| names.join(" ").into()),
            takes_bearer: config.dpop.mode != DpopMode::Required,
        };
        let (proxies, certificates) = (config.proxies.addresses.clone(), config.certificates.source);
        Self { path: path.into(), metadata_url, challenger, proxies, certificates, takes_posts_only: false }
    }

    /// Compiles the same for the administrators' endpoint. Nobody finds out by a challenge where to get a token for it.
    pub fn of_admin(config: &Config) -> Self {
        let receiver = Self::new(config);
        let challenger = Challenger { metadata_url: None, first_scopes: Box::default(), ..receiver.challenger };
        Self { challenger, takes_posts_only: true, ..receiver }
    }

    /// The path that is guarded.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where the resource's metadata stand (RFC 9728).
    pub fn metadata_url(&self) -> &str {
        &self.metadata_url
    }

    /// The challenge of a refusal, where one is due.
    pub fn challenge(&self, denial: &Denial) -> Option<String> {
        self.challenger.challenge(denial)
    }

    /// Checks path and headers. The body stays unread.
    pub fn receive<'a>(&self, request: &'a ToolRequest) -> Result<Received<'a>, Denial> {
        let Source::Http { method, path, headers, .. } = &request.source else {
            let credentials = request.credentials.as_ref().map(|(scheme, token)| (*scheme, &**token));
            let (session, certificate) = (request.session.as_deref(), CertificateHeader::Missing);
            return Ok(Received { request, credentials, session, peer: request.peer, certificate });
        };
        if **path != *self.path {
            return Err(Denial::PathUnknown);
        }
        if *method == HttpMethod::Other || (self.takes_posts_only && *method != HttpMethod::Post) {
            return Err(Denial::HttpMethodRefused);
        }
        headers.check()?;
        let credentials = headers.credentials()?;
        let session = headers.text(Header::SessionId)?;
        let peer = forwarded::client_address(request.peer, headers, &self.proxies)?;
        let certificate = match request.peer {
            _ if self.certificates == CertificateSource::Tls => match request.certificate.as_deref() {
                Some(pem) => CertificateHeader::One(CertificateSource::Tls, pem),
                None => CertificateHeader::Missing,
            },
            Some(direct) if self.is_proxy(direct) => headers.certificate(self.certificates),
            _ => CertificateHeader::Missing,
        };
        Ok(Received { request, credentials, session, peer, certificate })
    }

    /// Whether what a peer says of its client's certificate may reach the app: a declared proxy's word, or nobody asks.
    pub fn passes_certificates_of(&self, peer: Option<IpAddr>) -> bool {
        self.certificates == CertificateSource::Off || peer.is_some_and(|peer| self.is_proxy(peer))
    }

    /// Whether an address is a declared proxy's, whose word is taken.
    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(peer))
    }

    /// The address that the request came from as far as it can be told before `receive` has passed.
    pub fn address(&self, request: &ToolRequest) -> Option<IpAddr> {
        match &request.source {
            Source::Http { headers, .. } => {
                forwarded::client_address(request.peer, headers, &self.proxies).unwrap_or(request.peer)
            }
            _ => request.peer,
        }
    }
}

/// Proof that path and headers are in order.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    request: &'a ToolRequest,
    credentials: Option<(Scheme, &'a str)>,
    session: Option<&'a str>,
    peer: Option<IpAddr>,
    certificate: CertificateHeader<'a>,
}

impl<'a> Received<'a> {
    /// The scheme and the token of the one `Authorization` header.
    pub const fn credentials(&self) -> Option<(Scheme, &'a str)> {
        self.credentials
    }

    /// The `DPoP` header; a message that an SDK has parsed has none.
    pub fn proof(&self) -> ProofHeader<'a> {
        match &self.request.source {
            Source::Http { headers, .. } => headers.proof(),
            _ => ProofHeader::Missing,
        }
    }

    /// Every field line of a request that came with a signature.
    pub fn fields(&self) -> Option<&'a Fields> {
        match &self.request.source {
            Source::Http { headers, .. } => headers.fields(),
            _ => None,
        }
    }

    /// The body's bytes, where they were seen.
    pub fn body(&self) -> Option<&'a [u8]> {
        match &self.request.source {
            Source::Http { body, .. } => body.as_deref(),
            _ => None,
        }
    }

    /// The client's certificate, as a declared proxy hands it on.
    pub const fn certificate(&self) -> CertificateHeader<'a> {
        self.certificate
    }

    /// The request's method; empty for a message that an SDK has parsed.
    pub const fn http_method(&self) -> &'static str {
        match &self.request.source {
            Source::Http { method, .. } => method.name(),
            _ => "",
        }
    }

    /// `Mcp-Session-Id`, chosen by the client: never an identity.
    pub const fn session(&self) -> Option<&'a str> {
        self.session
    }

    /// The address of the client, a declared proxy's word taken.
    pub const fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// Reads what the message is about, from the body where there is one.
    pub fn target(&self) -> Result<Target, Denial> {
        self.request.target()
    }
}
