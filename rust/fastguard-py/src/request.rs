use std::net::{AddrParseError, IpAddr};

use fastguard_core::request::{DECIDING_MEMBERS, Headers, HttpMethod, ToolRequest as Core};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use crate::error::{caught, misused};
use crate::{json, scope};

#[pyclass(frozen, module = "mcp_fastguard")]
pub(crate) struct ToolRequest {
    pub(crate) core: Core,
}

#[pymethods]
impl ToolRequest {
    #[staticmethod]
    #[pyo3(signature = (*, method, path, headers, body = None, peer = None, query = None, certificate = None))]
    fn http(
        method: &str,
        path: &str,
        headers: &Bound<'_, PyAny>,
        body: Option<&Bound<'_, PyBytes>>,
        peer: Option<&str>,
        query: Option<&[u8]>,
        certificate: Option<&str>,
    ) -> PyResult<Self> {
        received(method, path, headers, body, (address(peer)?, query, certificate))
    }

    /// What came under `path` of an ASGI connection; without a body that of its head alone.
    #[staticmethod]
    #[pyo3(signature = (path, scope, body))]
    fn of_scope(path: &str, scope: &Bound<'_, PyAny>, body: Option<&Bound<'_, PyBytes>>) -> PyResult<Self> {
        let py = scope.py();
        let method = scope::needed(scope, intern!(py, "method"))?;
        let headers = scope::needed(scope, intern!(py, "headers"))?;
        let query = scope::member(scope, intern!(py, "query_string"))?;
        let query = query.as_ref().and_then(|query| query.cast::<PyBytes>().ok()).map(PyBytesMethods::as_bytes);
        let (peer, certificate) = (scope::peer(scope)?, scope::certificate(scope)?);
        let method = method.cast::<PyString>()?.to_str()?;
        received(method, path, &headers, body, (peer, query, certificate.as_deref()))
    }

    #[staticmethod]
    #[pyo3(signature = (*, tool, arguments = None, token = None, session = None, peer = None))]
    fn direct(
        tool: &str,
        arguments: Option<&Bound<'_, PyDict>>,
        token: Option<&str>,
        session: Option<&str>,
        peer: Option<&str>,
    ) -> PyResult<Self> {
        let arguments = arguments.map(|arguments| json::to_shared_text(arguments)).transpose()?;
        let core = caught(|| Core::tool(tool, arguments, token.map(Box::from), session.map(Box::from)))?;
        Ok(Self { core: if peer.is_some() { core.from_peer(address(peer)?) } else { core } })
    }

    #[staticmethod]
    #[pyo3(signature = (*, method, params = None, id = None, token = None, session = None))]
    fn message(
        method: &str,
        params: Option<&Bound<'_, PyDict>>,
        id: Option<&Bound<'_, PyAny>>,
        token: Option<&str>,
        session: Option<&str>,
    ) -> PyResult<Self> {
        let params = params.map_or_else(|| Ok(b"{}".to_vec()), |params| json::to_text(params))?;
        let id = id.map(json::to_text).transpose()?.map(|text| String::from_utf8_lossy(&text).into_owned().into());
        let (token, session) = (token.map(Box::from), session.map(Box::from));
        let core = caught(|| Core::message(method, params.into(), id, token, session))?;
        Ok(Self { core })
    }

    #[pyo3(signature = (method, params = None))]
    pub(crate) fn is_message(&self, method: &str, params: Option<&Bound<'_, PyDict>>) -> PyResult<bool> {
        let params = params.map(Params::of).unwrap_or_default();
        caught(|| self.core.is_message_of(method, |name| params.member(name)))
    }

    fn asked(&self) -> Option<(String, Option<String>)> {
        let target = self.core.asked()?;
        Some((target.method_name().to_owned(), target.shared_name().map(|name| name.to_string())))
    }

    /// The address of the connection's other end; none where it is unknown.
    #[getter]
    fn peer(&self) -> Option<String> {
        self.core.peer().map(|peer| peer.to_string())
    }

    #[getter]
    fn speaks_of_certificates(&self) -> bool {
        self.core.speaks_of_certificates()
    }

    /// Whether the app must not see the headers as they came.
    #[getter]
    fn has_proofs(&self) -> bool {
        self.core.speaks_of_certificates() || self.core.is_under_dpop()
    }

    #[getter]
    fn is_under_dpop(&self) -> bool {
        self.core.is_under_dpop()
    }
}

/// The members of a message's `params` that decide, as an SDK has parsed them: a client's `_meta` is mostly longer than all of them.
#[derive(Default)]
struct Params<'py>([Option<Bound<'py, PyAny>>; DECIDING_MEMBERS.len()]);

impl<'py> Params<'py> {
    fn of(params: &Bound<'py, PyDict>) -> Self {
        let mut found = Self::default();
        for (name, value) in params {
            // Looked up by turns, the names would have to be made into strings of Python first.
            let Some(name) = name.cast::<PyString>().ok().and_then(|name| name.to_str().ok()) else { continue };
            for (slot, _) in found.0.iter_mut().zip(DECIDING_MEMBERS).filter(|(_, deciding)| *deciding == name) {
                *slot = Some(value.clone());
            }
        }
        found
    }

    fn member(&self, name: &str) -> Option<json::Value<'_, 'py>> {
        let found = self.0.iter().zip(DECIDING_MEMBERS).find(|(_, deciding)| *deciding == name);
        found.and_then(|(value, _)| value.as_ref()).map(json::Value)
    }
}

/// A request as it came: `beside` are the peer's address, the query, and the client's certificate in PEM.
fn received(
    method: &str,
    path: &str,
    headers: &Bound<'_, PyAny>,
    body: Option<&Bound<'_, PyBytes>>,
    beside: (Option<IpAddr>, Option<&[u8]>, Option<&str>),
) -> PyResult<ToolRequest> {
    let (peer, query, certificate) = beside;
    let mut found = read(headers)?;
    if let Some(query) = query.filter(|query| !query.is_empty() && found.are_signed()) {
        found.keep_query(&String::from_utf8_lossy(query));
    }
    let body = body.map(|body| body.as_bytes().into());
    let core = caught(|| {
        let core = Core::http(HttpMethod::from_name(method), path, found, body, peer);
        if let Some(pem) = certificate { core.with_certificate(pem) } else { core }
    })?;
    Ok(ToolRequest { core })
}

fn read(given: &Bound<'_, PyAny>) -> PyResult<Headers> {
    let mut headers = Headers::default();
    if !given.is_instance_of::<PyList>() {
        // They may be looked through twice.
        let list = given.try_iter()?.collect::<PyResult<Vec<_>>>()?;
        return read(PyList::new(given.py(), list)?.as_any());
    }
    pairs(given, |name, value| headers.push(name, value))?;
    if headers.are_signed() {
        pairs(given, |name, value| headers.keep(name, value))?;
    }
    Ok(headers)
}

/// Shows name and value of each header, raw.
pub(crate) fn pairs(headers: &Bound<'_, PyAny>, mut take: impl FnMut(&[u8], &[u8])) -> PyResult<()> {
    let Ok(list) = headers.cast::<PyList>() else {
        return headers.try_iter()?.try_for_each(|pair| each(&pair?, &mut take));
    };
    list.iter().try_for_each(|pair| each(&pair, &mut take))
}

fn each(pair: &Bound<'_, PyAny>, take: &mut impl FnMut(&[u8], &[u8])) -> PyResult<()> {
    let (name, value) = if let Ok(pair) = pair.cast::<PyTuple>() {
        if pair.len() != 2 {
            return Err(PyTypeError::new_err("a header is not a pair of bytes"));
        }
        (pair.get_item(0)?, pair.get_item(1)?)
    } else {
        // ASGI has servers give any iterable of two.
        let [name, value]: [Bound<'_, PyAny>; 2] = pair.extract()?;
        (name, value)
    };
    take(name.cast::<PyBytes>()?.as_bytes(), value.cast::<PyBytes>()?.as_bytes());
    Ok(())
}

pub(crate) fn address(peer: Option<&str>) -> PyResult<Option<IpAddr>> {
    let parse = |text: &str| parsed_address(text).map_err(|_| misused("`peer` is not an IP address"));
    peer.map(parse).transpose()
}

pub(crate) fn parsed_address(text: &str) -> Result<IpAddr, AddrParseError> {
    // A link-local address may carry the interface it was seen on (RFC 4007 §11).
    text.split('%').next().unwrap_or(text).parse()
}
