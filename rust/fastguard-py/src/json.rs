//! Python values to JSON text and back.

use std::cell::RefCell;
use std::sync::Arc;

use fastguard_core::bounds::MAX_MESSAGE_DEPTH;
use fastguard_core::json::Json;
use fastguard_core::request::HandedOn;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyNone, PyString, PyTuple};

/// The JSON text of a value made of dicts with string keys, lists, tuples, strings, numbers, booleans and None.
pub(crate) fn to_text(value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let mut text = Vec::with_capacity(128);
    write(value, &mut text, MAX_MESSAGE_DEPTH)?;
    Ok(text)
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The same, shared: made in a buffer of the thread's, so that one allocation is enough.
pub(crate) fn to_shared_text(value: &Bound<'_, PyAny>) -> PyResult<Arc<[u8]>> {
    BUFFER.with(|buffer| {
        // A number's own `__int__` may come here again while the buffer is in use.
        let Ok(mut buffer) = buffer.try_borrow_mut() else { return to_text(value).map(Arc::from) };
        buffer.clear();
        // What one large call has taken is not kept for all later ones.
        buffer.shrink_to(64 * 1024);
        write(value, &mut buffer, MAX_MESSAGE_DEPTH)?;
        Ok(Arc::from(&buffer[..]))
    })
}

fn write(value: &Bound<'_, PyAny>, text: &mut Vec<u8>, depth: usize) -> PyResult<()> {
    if let Ok(string) = value.cast::<PyString>() {
        write_string(string.to_str()?, text);
        return Ok(());
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        let depth = deeper(depth)?;
        text.push(b'{');
        for (index, (name, member)) in dict.iter().enumerate() {
            if index > 0 {
                text.push(b',');
            }
            let name = name.cast::<PyString>().map_err(|_| PyTypeError::new_err("a member's name is not a string"))?;
            write_string(name.to_str()?, text);
            text.push(b':');
            write(&member, text, depth)?;
        }
        text.push(b'}');
        return Ok(());
    }
    if let Ok(list) = value.cast::<PyList>() {
        return write_all(list.iter(), text, depth);
    }
    if let Ok(tuple) = value.cast::<PyTuple>() {
        return write_all(tuple.iter(), text, depth);
    }
    write_scalar(value, text)
}

fn write_all<'py>(elements: impl Iterator<Item = Bound<'py, PyAny>>, text: &mut Vec<u8>, depth: usize) -> PyResult<()> {
    let depth = deeper(depth)?;
    text.push(b'[');
    for (index, element) in elements.enumerate() {
        if index > 0 {
            text.push(b',');
        }
        write(&element, text, depth)?;
    }
    text.push(b']');
    Ok(())
}

fn deeper(depth: usize) -> PyResult<usize> {
    depth.checked_sub(1).ok_or_else(|| PyValueError::new_err("the arguments nest too deeply"))
}

fn write_scalar(value: &Bound<'_, PyAny>, text: &mut Vec<u8>) -> PyResult<()> {
    if value.is_instance_of::<PyNone>() {
        text.extend_from_slice(b"null");
    } else if let Ok(flag) = value.cast::<PyBool>() {
        text.extend_from_slice(if flag.is_true() { b"true" } else { b"false" });
    } else if value.is_instance_of::<PyInt>() {
        // An enumeration member is an int with a name; its own `str` would not be a number.
        text.extend_from_slice(value.call_method0("__int__")?.str()?.to_str()?.as_bytes());
    } else if let Ok(number) = value.cast::<PyFloat>() {
        if !number.value().is_finite() {
            return Err(PyValueError::new_err("a number is not finite"));
        }
        text.extend_from_slice(number.repr()?.to_str()?.as_bytes());
    } else {
        return Err(PyTypeError::new_err("a value is not of JSON's types"));
    }
    Ok(())
}

fn write_string(string: &str, text: &mut Vec<u8>) {
    text.push(b'"');
    if string.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        text.extend_from_slice(string.as_bytes());
    } else {
        for byte in string.bytes() {
            match byte {
                b'"' | b'\\' => text.extend_from_slice(&[b'\\', byte]),
                0..0x20 => text.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
                _ => text.push(byte),
            }
        }
    }
    text.push(b'"');
}

/// A value as [`to_text`] takes it, to be compared without a text of it being made.
pub(crate) struct Value<'a, 'py>(pub(crate) &'a Bound<'py, PyAny>);

impl HandedOn for Value<'_, '_> {
    fn is_empty(&self) -> bool {
        self.0.is_none() || self.0.cast::<PyDict>().is_ok_and(PyDictMethods::is_empty)
    }

    fn is_same(&self, sent: &Json<'_>) -> bool {
        // What has no JSON text is nothing that was sent.
        is_same(sent, self.0).unwrap_or(false)
    }
}

/// Goes no deeper than the text went that was parsed.
fn is_same(sent: &Json<'_>, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    match sent {
        Json::Null => Ok(value.is_none()),
        Json::Bool(sent) => Ok(value.cast::<PyBool>().is_ok_and(|value| value.is_true() == *sent)),
        Json::Number(_) => is_same_number(sent, value),
        Json::String(sent) => match value.cast::<PyString>() {
            Ok(value) => Ok(value.to_str()? == sent),
            Err(_) => Ok(false),
        },
        Json::Array(sent) => {
            if let Ok(list) = value.cast::<PyList>() {
                return Ok(list.len() == sent.len() && are_same(sent, list.iter())?);
            }
            let Ok(tuple) = value.cast::<PyTuple>() else { return Ok(false) };
            Ok(tuple.len() == sent.len() && are_same(sent, tuple.iter())?)
        }
        Json::Object(sent) => {
            let Ok(dict) = value.cast::<PyDict>() else { return Ok(false) };
            if dict.len() != sent.len() {
                return Ok(false);
            }
            for ((name, sent), (there, value)) in sent.iter().zip(dict) {
                // Mostly the order is the same too, and no member need be looked for.
                let is_there =
                    there.cast::<PyString>().is_ok_and(|there| there.to_str().is_ok_and(|there| there == name));
                let value = if is_there { Some(value) } else { dict.get_item(&**name)? };
                if !value.map_or(Ok(false), |value| is_same(sent, &value))? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}

fn are_same<'py>(sent: &[Json<'_>], values: impl Iterator<Item = Bound<'py, PyAny>>) -> PyResult<bool> {
    for (sent, value) in sent.iter().zip(values) {
        if !is_same(sent, &value)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Numbers are compared as their texts are read: 1 is not 1.0.
fn is_same_number(sent: &Json<'_>, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let is_number = value.is_instance_of::<PyInt>() || value.is_instance_of::<PyFloat>();
    if !is_number || value.is_instance_of::<PyBool>() {
        return Ok(false);
    }
    let mut text = Vec::with_capacity(24);
    write_scalar(value, &mut text)?;
    Ok(Json::parse(&text, 0).is_ok_and(|value| sent.is_same(&value)))
}

/// The Python value of a parsed text.
pub(crate) fn to_python<'py>(py: Python<'py>, value: &Json<'_>) -> PyResult<Bound<'py, PyAny>> {
    match value {
        Json::Null => Ok(py.None().into_bound(py)),
        Json::Bool(flag) => Ok(PyBool::new(py, *flag).to_owned().into_any()),
        Json::Number(number) => {
            if let Some(integer) = number.as_i64() {
                Ok(integer.into_pyobject(py)?.into_any())
            } else if let Some(integer) = number.as_u64() {
                Ok(integer.into_pyobject(py)?.into_any())
            } else {
                Ok(PyFloat::new(py, number.as_f64().unwrap_or(f64::NAN)).into_any())
            }
        }
        Json::String(text) => Ok(PyString::new(py, text).into_any()),
        Json::Array(elements) => {
            let elements: Vec<_> = elements.iter().map(|element| to_python(py, element)).collect::<PyResult<_>>()?;
            Ok(PyList::new(py, elements)?.into_any())
        }
        Json::Object(members) => {
            let dict = PyDict::new(py);
            for (name, member) in members {
                dict.set_item(&**name, to_python(py, member)?)?;
            }
            Ok(dict.into_any())
        }
    }
}
