//! `rwkvperf_web_rwkv._native`: web-rwkv for Python.
//!
//! `settings`, `checkpoint` and `failure` are plain Rust; `engine` and `sequences` drive web-rwkv; `adapter`, `model` and
//! `batch` are the Python classes.

mod adapter;
mod batch;
mod checkpoint;
mod engine;
mod failure;
mod model;
mod sequences;
mod settings;

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;

use crate::adapter::Adapter;
use crate::failure::{Failure, fence, silence_panics};

create_exception!(
    rwkvperf_web_rwkv,
    WebRwkvError,
    PyException,
    "The model file, the adapter or the engine failed; the message is one sentence."
);

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Value(sentence) => PyValueError::new_err(sentence),
            Failure::Engine(sentence) | Failure::Panic(sentence) => WebRwkvError::new_err(sentence),
        }
    }
}

/// The adapters of this machine, the same list for the life of the process.
///
/// Vulkan's come first, then Metal's, Direct3D 12's and Gl's; within each, discrete GPUs, integrated, virtual,
/// others, CPUs.
#[pyfunction]
fn adapters(py: Python<'_>) -> PyResult<Vec<Adapter>> {
    let all = py.detach(|| fence(|| Ok(adapter::all())))?;
    Ok(all
        .iter()
        .map(|candidate| candidate.adapter.clone())
        .collect())
}

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::WebRwkvError;
    #[pymodule_export]
    use super::adapter::Adapter;
    #[pymodule_export]
    use super::adapters;
    #[pymodule_export]
    use super::batch::Batch;
    #[pymodule_export]
    use super::model::Model;

    /// The most sequences a batch can have.
    #[pymodule_export]
    const LARGEST_BATCH: usize = super::settings::LARGEST_BATCH;

    /// The largest chunk a model takes, in tokens.
    #[pymodule_export]
    const LARGEST_CHUNK: usize = super::settings::LARGEST_CHUNK;

    /// This distribution's version.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    /// The version of the web-rwkv crate inside.
    #[pymodule_export]
    const WEB_RWKV_VERSION: &str = env!("WEB_RWKV_VERSION");

    #[pymodule_init]
    fn init(_module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        super::silence_panics();
        Ok(())
    }
}
