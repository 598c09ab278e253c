//! What the scope and the messages of an ASGI connection say of a request.

use std::net::IpAddr;

use fastguard_core::bounds::MAX_BODY_BYTES_BEFORE_TOKEN;
use pyo3::exceptions::PyKeyError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::request::{pairs, parsed_address};

/// A member of a scope or a message, which mostly is a dict.
pub(crate) fn member<'py>(
    mapping: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    if let Ok(dict) = mapping.cast::<PyDict>() {
        return dict.get_item(name);
    }
    let found = mapping.call_method1(intern!(mapping.py(), "get"), (name,))?;
    Ok(Some(found).filter(|found| !found.is_none()))
}

/// The same; none where it is false in Python's sense.
fn given<'py>(mapping: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Some(found) = member(mapping, name)? else { return Ok(None) };
    Ok(if found.is_truthy()? { Some(found) } else { None })
}

/// A member that every scope has.
pub(crate) fn needed<'py>(scope: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
    member(scope, name)?.ok_or_else(|| PyKeyError::new_err(name.clone().unbind()))
}

/// The peer's address; none where it is unknown, or only the server's word (decision 14).
pub(crate) fn peer(scope: &Bound<'_, PyAny>) -> PyResult<Option<IpAddr>> {
    let py = scope.py();
    let Some(client) = given(scope, intern!(py, "client"))? else { return Ok(None) };
    let (Ok(host), Ok(port)) = (client.get_item(0), client.get_item(1)) else { return Ok(None) };
    let Ok(host) = host.cast::<PyString>() else { return Ok(None) };
    let Ok(address) = parsed_address(host.to_str()?) else { return Ok(None) };
    // No connection has port 0: uvicorn writes it where it took the address from the header.
    if !port.is_truthy()? && has_header(&needed(scope, intern!(py, "headers"))?, b"x-forwarded-for")? {
        py.import(intern!(py, "mcp_fastguard.transport.scope"))?.call_method0(intern!(py, "say_rewritten"))?;
        return Ok(None);
    }
    Ok(Some(address))
}

fn has_header(headers: &Bound<'_, PyAny>, wanted: &[u8]) -> PyResult<bool> {
    let mut is_there = false;
    pairs(headers, |name, _| is_there |= name == wanted)?;
    Ok(is_there)
}

/// The client's certificate, in PEM, where the server itself has ended TLS and verified it (the `tls` extension of ASGI).
pub(crate) fn certificate(scope: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    let py = scope.py();
    let Some(extensions) = given(scope, intern!(py, "extensions"))? else { return Ok(None) };
    let Some(tls) = given(&extensions, intern!(py, "tls"))? else { return Ok(None) };
    if given(&tls, intern!(py, "client_cert_error"))?.is_some() {
        return Ok(None);
    }
    let Some(chain) = given(&tls, intern!(py, "client_cert_chain"))? else { return Ok(None) };
    match chain.try_iter()?.next() {
        Some(first) => first?.extract().map(Some),
        None => Ok(None),
    }
}

/// The body of a message that holds all of it, if it is one that may be read before the token was checked; mostly it is.
#[pyfunction]
pub(crate) fn whole_body<'py>(message: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let py = message.py();
    let kind = needed(message, intern!(py, "type"))?;
    let is_request = kind.cast::<PyString>().is_ok_and(|kind| kind == "http.request");
    let has_more = member(message, intern!(py, "more_body"))?.map_or(Ok(false), |more| more.is_truthy())?;
    if !is_request || has_more {
        return Ok(None);
    }
    let body = match member(message, intern!(py, "body"))? {
        None => PyBytes::new(py, b""),
        Some(body) => match body.cast_into_exact::<PyBytes>() {
            Ok(body) => body,
            Err(_) => return Ok(None),
        },
    };
    Ok(Some(body).filter(|body| body.as_bytes().len() <= MAX_BODY_BYTES_BEFORE_TOKEN))
}
