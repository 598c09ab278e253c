#![expect(clippy::needless_pass_by_value, reason = "PyO3 extracts paths by value")]

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use fastguard_core::audit::merge::{Merged, merge};
use fastguard_core::audit::pseudonyms::{self, Subject};
use fastguard_core::audit::registry::{self, Checked};
use fastguard_core::audit::repair::{self, Found, Outcome};
use fastguard_core::audit::witness::{self, Cosigned, Witness};
use fastguard_core::audit::{Key, Known, Settings, log, prove, prune};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use crate::config::read;
use crate::error::{faulted, misused};

fn key_of(text: &str) -> PyResult<Key> {
    Key::parse(text).ok_or_else(|| misused("not a public key as signed notes name them"))
}

/// What a file says is the caller's to judge; what the system says is not.
fn unread(error: io::Error) -> PyErr {
    if error.kind() == io::ErrorKind::InvalidData { misused(error) } else { error.into() }
}

/// Whether the files of a log are whole: (records, root, sealed, problem).
#[pyfunction]
#[pyo3(signature = (path, key = None, checkpoint = None))]
pub(crate) fn verify_log(
    py: Python<'_>,
    path: PathBuf,
    key: Option<&str>,
    checkpoint: Option<String>,
) -> PyResult<(u64, String, bool, Option<String>)> {
    let key = key.map(key_of).transpose()?;
    let verdict = py.detach(|| {
        let pruned = registry::pruned(&path)?;
        log::verify_against(&path, &Known { key, checkpoint, pruned })
    })?;
    let problem =
        verdict.problem.map(|problem| format!("file {}, byte {}: {}", problem.file, problem.offset, problem.what));
    Ok((verdict.records, verdict.root, verdict.sealed, problem))
}

/// A log of a place: name, records, root, what it is at, what is wrong.
type Row = (String, Option<u64>, Option<String>, String, Option<String>);

/// All logs of a place and its registry, each held against the other.
#[pyfunction]
#[pyo3(signature = (path, key = None, checkpoint = None))]
pub(crate) fn verify_logs(
    py: Python<'_>,
    path: PathBuf,
    key: Option<&str>,
    checkpoint: Option<String>,
) -> PyResult<Vec<Row>> {
    let known = Known { key: key.map(key_of).transpose()?, checkpoint, pruned: 0 };
    let checked = py.detach(|| registry::verify_all(&path, &known))?;
    Ok(checked.into_iter().map(row).collect())
}

fn row(checked: Checked) -> Row {
    let state = checked.state();
    let Checked { log, verdict, problem, .. } = checked;
    let (records, root) = verdict.map(|verdict| (verdict.records, verdict.root)).unzip();
    (log, records, root, state, problem)
}

/// The logs that the registry of a place knows and that are to be there: (log, whether it has ended).
#[pyfunction]
pub(crate) fn registered_logs(py: Python<'_>, path: PathBuf) -> PyResult<Vec<(String, bool)>> {
    let found = py.detach(|| registry::standings(&path))?.unwrap_or_default();
    let present = found.into_iter().filter(|(_, standing)| standing.forgotten.is_none());
    Ok(present.map(|(log, standing)| (log, standing.ended.is_some())).collect())
}

/// Removes the files of a sealed log up to number `last`; how many of its records are gone then.
#[pyfunction]
#[pyo3(signature = (text, *, folder, log, last, rule, file = None, is_json = false))]
#[expect(clippy::too_many_arguments, reason = "the configuration, and what is asked")]
pub(crate) fn prune_log(
    py: Python<'_>,
    text: &str,
    folder: PathBuf,
    log: &str,
    last: u32,
    rule: &str,
    file: Option<&str>,
    is_json: bool,
) -> PyResult<u64> {
    let config = read(text, file, is_json, &folder)?;
    let settings = Settings::from_config(&config.audit, &folder);
    py.detach(|| prune::prune(&settings, log, last, rule)).map_err(|fault| faulted(&fault))
}

/// Removes a whole log, and has the registry say so.
#[pyfunction]
#[pyo3(signature = (text, *, folder, log, reason, file = None, is_json = false))]
pub(crate) fn forget_log(
    py: Python<'_>,
    text: &str,
    folder: PathBuf,
    log: &str,
    reason: &str,
    file: Option<&str>,
    is_json: bool,
) -> PyResult<()> {
    let config = read(text, file, is_json, &folder)?;
    let settings = Settings::from_config(&config.audit, &folder);
    py.detach(|| prune::forget(&settings, log, reason)).map_err(|fault| faulted(&fault))
}

/// Whom the pseudonyms of a place stand for: what Python's commands ask.
#[pyclass(frozen, module = "mcp_fastguard")]
pub(crate) struct Pseudonyms {
    settings: Settings,
}

#[pymethods]
impl Pseudonyms {
    #[new]
    #[pyo3(signature = (text, *, folder, file = None, is_json = false))]
    fn new(text: &str, folder: PathBuf, file: Option<&str>, is_json: bool) -> PyResult<Self> {
        let config = read(text, file, is_json, &folder)?;
        Ok(Self { settings: Settings::from_config(&config.audit, &folder) })
    }

    /// The pseudonym of a subject, while its key is there.
    fn of(&self, py: Python<'_>, issuer: String, subject: String) -> PyResult<Option<String>> {
        let named = Subject { issuer, subject };
        py.detach(|| pseudonyms::pseudonym_of(&self.settings, &named)).map_err(|fault| faulted(&fault))
    }

    /// Whom a pseudonym stands for: (issuer, subject).
    fn resolve(&self, py: Python<'_>, pseudonym: &str) -> PyResult<Option<(String, String)>> {
        let found = py.detach(|| pseudonyms::resolve(&self.settings, pseudonym)).map_err(|fault| faulted(&fault))?;
        Ok(found.map(|Subject { issuer, subject }| (issuer, subject)))
    }

    /// Destroys the key of a subject; false where there is none.
    fn erase(&self, py: Python<'_>, issuer: String, subject: String) -> PyResult<bool> {
        let named = Subject { issuer, subject };
        py.detach(|| pseudonyms::erase(&self.settings, &named)).map_err(|fault| faulted(&fault))
    }
}

/// The records of several logs, ordered by time: an iterator of lines.
#[pyclass(frozen, module = "mcp_fastguard")]
pub(crate) struct MergedLogs {
    records: Mutex<Merged>,
}

#[pymethods]
impl MergedLogs {
    #[new]
    fn new(logs: Vec<PathBuf>) -> Self {
        Self { records: Mutex::new(merge(logs)) }
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self) -> PyResult<Option<Vec<u8>>> {
        Ok(self.records.lock().unwrap_or_else(PoisonError::into_inner).next().transpose()?)
    }
}

/// What became of the logs that had no seal: (log, whether it was left as it is, in words). Those of living processes are left out.
pub(crate) fn told(found: &[Found]) -> Vec<(String, bool, String)> {
    let found = found.iter().filter(|found| found.outcome != Outcome::Held);
    found.map(|found| (found.log.clone(), found.outcome.is_left(), found.outcome.to_string())).collect()
}

/// Ends the logs of killed processes, in the place that `[audit]` of a configuration names.
#[pyfunction]
#[pyo3(signature = (text, *, folder, file = None, is_json = false))]
pub(crate) fn repair_logs(
    py: Python<'_>,
    text: &str,
    folder: PathBuf,
    file: Option<&str>,
    is_json: bool,
) -> PyResult<Vec<(String, bool, String)>> {
    let config = read(text, file, is_json, &folder)?;
    let settings = Settings::from_config(&config.audit, &folder);
    let found = py.detach(|| repair::repair(&settings)).map_err(|fault| faulted(&fault))?;
    Ok(told(&found))
}

/// The public key of the witness whose memory is in `folder`, which is made where there is none.
#[pyfunction]
pub(crate) fn witness_key(name: &str, folder: PathBuf) -> PyResult<String> {
    Witness::open(name, &folder).map(|witness| witness.key().to_string()).map_err(|fault| faulted(&fault))
}

/// Has a witness sign the last checkpoint of a log: (note, records, records at the last one that it has signed).
#[pyfunction]
pub(crate) fn cosign(
    py: Python<'_>,
    log: PathBuf,
    key: &str,
    name: &str,
    folder: PathBuf,
) -> PyResult<(String, u64, Option<u64>)> {
    let key = key_of(key)?;
    let witness = Witness::open(name, &folder).map_err(|fault| faulted(&fault))?;
    let Cosigned { note, size, since } = py.detach(|| witness.cosign(&log, &key)).map_err(unread)?;
    Ok((note, size, since))
}

/// When a witness has signed a note, in seconds since 1970.
#[pyfunction]
pub(crate) fn cosigned_at(note: &str, witness: &str) -> PyResult<u64> {
    let witness = Key::parse_witness(witness).ok_or_else(|| misused("not the public key of a witness"))?;
    witness::cosigned_at(note, &witness).map_err(misused)
}

#[pyfunction]
pub(crate) fn prove_record(py: Python<'_>, path: PathBuf, seq: u64) -> PyResult<String> {
    py.detach(|| prove::prove(&path, seq)).map_err(unread)
}

#[pyfunction]
pub(crate) fn check_proof(proof: &str, key: &str) -> PyResult<(String, u64, u64, Vec<u8>)> {
    let proved = prove::check_proof(proof, &key_of(key)?).map_err(misused)?;
    Ok((proved.checkpoint.origin, proved.checkpoint.size, proved.seq, proved.record))
}

#[pyfunction]
pub(crate) fn prove_growth(py: Python<'_>, path: PathBuf, checkpoint: &str) -> PyResult<(u64, u64, Vec<Vec<u8>>)> {
    let growth = py.detach(|| prove::prove_growth(&path, checkpoint)).map_err(unread)?;
    Ok((growth.from, growth.to, growth.path.iter().map(|hash| hash.to_vec()).collect()))
}

/// Counts and sizes of a result; never its data.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) items: Option<u64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) is_error: bool,
    pub(crate) rows: Option<u64>,
    /// The server asks for something, and the client will call again (MCP 2026-07-28, multi round-trip requests).
    pub(crate) needs_input: bool,
}

impl Counts {
    /// Of a result as the wire's dict or an object of an SDK has it.
    pub(crate) fn of(result: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = result.py();
        let is_true = |name| member(result, name)?.map_or(Ok(false), |value| value.is_truthy());
        let is_error = is_true(intern!(py, "isError"))? || is_true(intern!(py, "is_error"))?;
        let none = Self { is_error, ..Self::default() };
        let Some(blocks) = content(result)? else {
            let is_asking =
                |name| Ok::<_, PyErr>(member(result, name)?.is_some_and(|value| is_text(&value, "input_required")));
            let needs_input = is_asking(intern!(py, "resultType"))? || is_asking(intern!(py, "result_type"))?;
            return Ok(Self { needs_input, ..none });
        };
        let mut bytes = 0;
        let count = blocks.len()?;
        // FastMCP's results that ask for something are without content, and have the SDK's beside it.
        if count == 0 && result.getattr_opt(intern!(py, "input_required"))?.is_some_and(|asked| !asked.is_none()) {
            return Ok(Self { needs_input: true, ..none });
        }
        for block in blocks.try_iter()? {
            bytes += size(&block?)?;
        }
        let rows = if is_error { None } else { rows(result)? };
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        Ok(Self { items: Some(number(count)), bytes: Some(number(bytes)), rows: rows.map(number), ..none })
    }
}

/// The same for Python: (items, bytes, whether it is an error, rows, whether the server asks for something).
#[pyfunction]
pub(crate) fn result_counts(result: &Bound<'_, PyAny>) -> PyResult<ResultCounts> {
    let found = Counts::of(result)?;
    Ok((found.items, found.bytes, found.is_error, found.rows, found.needs_input))
}

type ResultCounts = (Option<u64>, Option<u64>, bool, Option<u64>, bool);

/// The state of a result that asks for something, the wire's dict or an SDK's object; empty where it has none.
pub(crate) fn state_given(result: &Bound<'_, PyAny>) -> PyResult<String> {
    let py = result.py();
    // FastMCP wraps the SDK's result.
    let asked = result.getattr_opt(intern!(py, "input_required"))?.unwrap_or_else(|| result.clone());
    let name =
        if asked.is_instance_of::<PyDict>() { intern!(py, "requestState") } else { intern!(py, "request_state") };
    text(member(&asked, name)?).map(Option::unwrap_or_default)
}

/// The state that a client came back with; empty where it brings answers alone, None where it was asked for nothing.
pub(crate) fn state_brought(params: &Bound<'_, PyDict>) -> PyResult<Option<String>> {
    let py = params.py();
    if let Some(state) = text(params.get_item(intern!(py, "requestState"))?)? {
        return Ok(Some(state));
    }
    let answers = params.get_item(intern!(py, "inputResponses"))?;
    Ok(answers.filter(|answers| !answers.is_none()).map(|_| String::new()))
}

fn text(value: Option<Bound<'_, PyAny>>) -> PyResult<Option<String>> {
    match value.as_ref().map(|value| value.cast::<PyString>()) {
        Some(Ok(text)) => Ok(Some(text.to_str()?.to_owned())),
        Some(Err(_)) | None => Ok(None),
    }
}

/// A member of a dict, or an attribute of any other object.
fn member<'py>(value: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
    match value.cast::<PyDict>() {
        Ok(dict) => dict.get_item(name),
        Err(_) => value.getattr_opt(name),
    }
}

/// The content blocks. An empty list is content too: the structured content beside it may have rows.
fn content<'py>(result: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = result.py();
    for name in [intern!(py, "content"), intern!(py, "contents"), intern!(py, "messages")] {
        if let Some(found) = member(result, name)?.filter(is_sequence) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The first of these members that is not empty.
fn first<'py>(value: &Bound<'py, PyAny>, names: &[&Bound<'py, PyString>]) -> PyResult<Option<Bound<'py, PyAny>>> {
    for name in names {
        if let Some(found) = member(value, name)?
            && found.is_truthy()?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn is_sequence(value: &Bound<'_, PyAny>) -> bool {
    value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>()
}

fn is_text(value: &Bound<'_, PyAny>, text: &str) -> bool {
    value.cast::<PyString>().is_ok_and(|value| value == text)
}

/// How many bytes a content block has as text, or as base64.
fn size(block: &Bound<'_, PyAny>) -> PyResult<usize> {
    let py = block.py();
    for name in [intern!(py, "text"), intern!(py, "data"), intern!(py, "blob")] {
        if let Some(value) = member(block, name)?
            && let Ok(text) = value.cast::<PyString>()
        {
            return Ok(text.to_string_lossy().len());
        }
    }
    Ok(0)
}

/// How many rows there are, where the structured content is such: `rows`, or the list that SDKs put under `result`.
fn rows(result: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    let py = result.py();
    let structured = first(result, &[intern!(py, "structuredContent"), intern!(py, "structured_content")])?;
    let Some(structured) = structured else { return Ok(None) };
    let Ok(structured) = structured.cast::<PyDict>() else { return Ok(None) };
    for name in [intern!(py, "rows"), intern!(py, "result")] {
        if let Some(list) = structured.get_item(name)?
            && let Ok(list) = list.cast::<PyList>()
        {
            return Ok(Some(list.len()));
        }
    }
    Ok(None)
}
