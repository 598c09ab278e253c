//! The Python extension module.


#[pyo3::pymodule(gil_used = false)]
mod _fastguard {}
