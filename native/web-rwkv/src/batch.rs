//! `Batch`: several sequences of a `Model`, which take turns with the model's own.

use std::sync::{Mutex, PoisonError};

use numpy::{IntoPyArray, PyArray2, PyArrayMethods, PyReadonlyArray2};
use pyo3::prelude::*;

use crate::failure::{Failure, fence};
use crate::model::Model;
use crate::sequences::Sequences;
use crate::settings;

/// Sequences of a model's weights, with a recurrent state each, which advance together; made by `Model.batch`.
#[pyclass(frozen, module = "rwkvperf_web_rwkv")]
pub struct Batch {
    /// The states, or the reason why there are none.
    states: Mutex<Result<Sequences, Failure>>,
    sequences: usize,
    vocabulary: usize,
    model: Py<Model>,
}

impl Batch {
    pub fn new(model: Py<Model>, states: Sequences, sequences: usize, vocabulary: usize) -> Self {
        Self {
            states: Mutex::new(Ok(states)),
            sequences,
            vocabulary,
            model,
        }
    }

    /// Runs `work` on the states while nothing else runs on the model; a panic in it makes the model unusable.
    fn with_states<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&Sequences) -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        self.model.get().with_engine(py, |_| {
            let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
            work(states.as_ref().map_err(Clone::clone)?)
        })
    }

    /// An array with one row for each sequence.
    fn rows(&self, py: Python<'_>, numbers: Vec<f32>) -> PyResult<Py<PyArray2<f32>>> {
        let width = numbers.len() / self.sequences;
        let rows = numbers.into_pyarray(py).reshape([self.sequences, width])?;
        Ok(rows.unbind())
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let states = self
            .states
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        release(states);
    }
}

/// Frees the states. That can panic when the device is lost, which is ignored.
fn release(states: &mut Result<Sequences, Failure>) {
    let freed = Err(Failure::Engine(
        "this batch is freed: make another one".into(),
    ));
    if let Ok(states) = std::mem::replace(states, freed) {
        let _ = fence(|| {
            states.free();
            Ok(())
        });
    }
}

#[pymethods]
impl Batch {
    /// Number of sequences.
    #[getter]
    fn sequences(&self) -> usize {
        self.sequences
    }

    /// Sets all states back to their initial value, on the device, and waits until that is done.
    fn clear(&self, py: Python<'_>) -> PyResult<()> {
        Ok(self.with_states(py, Sequences::clear)?)
    }

    /// Sets one sequence's state back to its initial value; the others stay as they are.
    fn clear_sequence(&self, py: Python<'_>, sequence: i64) -> PyResult<()> {
        let sequence = settings::sequence(sequence, self.sequences)?;
        Ok(self.with_states(py, |states| states.clear_sequence(sequence))?)
    }

    /// A copy of the states in host memory: float32, a row for each sequence as `Model.state` gives it.
    fn state(&self, py: Python<'_>) -> PyResult<Py<PyArray2<f32>>> {
        let states = self.with_states(py, Sequences::states)?;
        self.rows(py, states)
    }

    /// Copies states from `state` back to the device, and waits until that is done.
    fn load_state(&self, py: Python<'_>, state: PyReadonlyArray2<'_, f32>) -> PyResult<()> {
        let state = state.as_array();
        let rows: Vec<_> = state.outer_iter().map(|row| row.to_vec()).collect();
        Ok(self.with_states(py, |states| states.load_states(rows))?)
    }

    /// Advances each sequence by its tokens and returns the logits after the last of them: float32,
    /// [sequences, vocabulary], in host memory; NaN for a sequence without tokens.
    fn forward(&self, py: Python<'_>, tokens: Vec<Vec<i64>>) -> PyResult<Py<PyArray2<f32>>> {
        let tokens = settings::token_lists(&tokens, self.sequences, self.vocabulary)?;
        let logits = self.with_states(py, |states| states.forward(tokens))?;
        self.rows(py, logits)
    }

    /// Gives the states' memory back to the device; every later call is refused.
    fn free(&self, py: Python<'_>) {
        py.detach(|| release(&mut self.states.lock().unwrap_or_else(PoisonError::into_inner)));
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let model = self.model.bind(py).repr()?;
        Ok(format!(
            "<Batch of {} sequences of {model}>",
            self.sequences
        ))
    }
}
