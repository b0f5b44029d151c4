//! `Model`: the engine behind a lock, with the interpreter released while it works.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::adapter::{self, Adapter};
use crate::batch::Batch;
use crate::checkpoint::Sizes;
use crate::engine::{Engine, Request};
use crate::failure::{Failure, fence};
use crate::settings::{self, Quant};

/// An RWKV-7 model in web-rwkv, with one recurrent state; `batch` gives more.
///
/// Calls from several threads take turns. The Python interpreter is free for other threads while the model loads,
/// runs or is cleared.
#[pyclass(frozen, module = "rwkvperf_web_rwkv")]
pub struct Model {
    /// The engine, or after a panic the reason why it cannot be used.
    engine: Mutex<Result<Engine, Failure>>,
    path: PathBuf,
    adapter: Adapter,
    quant: Quant,
    quant_layers: usize,
    chunk: usize,
    sizes: Sizes,
}

impl Model {
    /// Runs `work` on the engine, alone. A panic in it drops the engine, whose state and buffers are then undefined.
    pub fn with_engine<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&Engine) -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        py.detach(|| {
            let mut slot = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
            let result = match &*slot {
                Ok(engine) => fence(|| work(engine)),
                Err(reason) => return Err(reason.clone()),
            };
            if let Err(Failure::Panic(sentence)) = &result {
                let reason = format!("this model is unusable, load it again: {sentence}");
                discard(std::mem::replace(&mut *slot, Err(Failure::Engine(reason))));
            }
            result
        })
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        let gone = Err(Failure::Engine("this model is dropped".into()));
        let slot = self
            .engine
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        discard(std::mem::replace(slot, gone));
    }
}

/// Drops an engine. Freeing device memory can panic too, when the device is lost; that is ignored.
fn discard(engine: Result<Engine, Failure>) {
    let _ = fence(|| {
        drop(engine);
        Ok(())
    });
}

#[pymethods]
impl Model {
    #[new]
    #[pyo3(signature = (path, *, adapter, quant = "fp16", quant_layers = None, chunk = 128))]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        adapter: i64,
        quant: &str,
        quant_layers: Option<i64>,
        chunk: i64,
    ) -> PyResult<Self> {
        let quant = Quant::parse(quant)?;
        let chunk = settings::chunk(chunk)?;
        let model = py.detach(|| {
            fence(|| {
                let request = Request {
                    path: &path,
                    adapter: adapter::pick(adapter)?,
                    quant,
                    quant_layers,
                    chunk,
                };
                let engine = Engine::load(&request)?;
                Ok(Self {
                    adapter: request.adapter.adapter,
                    quant,
                    quant_layers: engine.quant_layers,
                    chunk,
                    sizes: engine.sizes,
                    engine: Mutex::new(Ok(engine)),
                    path: path.clone(),
                })
            })
        })?;
        Ok(model)
    }

    /// Number of token ids; the length of the logits.
    #[getter]
    fn vocabulary(&self) -> usize {
        self.sizes.vocabulary
    }

    /// Number of layers.
    #[getter]
    fn layers(&self) -> usize {
        self.sizes.layers
    }

    /// Number of channels, C in the papers.
    #[getter]
    fn width(&self) -> usize {
        self.sizes.width
    }

    /// The adapter the model runs on.
    #[getter]
    fn adapter(&self) -> Adapter {
        self.adapter.clone()
    }

    /// "fp16", "int8", "nf4" or "sf4".
    #[getter]
    fn quant(&self) -> &'static str {
        self.quant.name()
    }

    /// Number of layers, from the first, that are quantized; 0 for fp16.
    #[getter]
    fn quant_layers(&self) -> usize {
        self.quant_layers
    }

    /// Tokens the engine takes at a time: the chunk asked for, rounded up to a multiple of 32.
    #[getter]
    fn chunk(&self) -> usize {
        self.chunk
    }

    /// Sets the recurrent state back to its initial value, on the device, and waits until that is done.
    fn clear(&self, py: Python<'_>) -> PyResult<()> {
        Ok(self.with_engine(py, |engine| engine.single.clear())?)
    }

    /// A copy of the recurrent state in host memory: float32, flat.
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let state = self.with_engine(py, |engine| engine.single.states())?;
        Ok(state.into_pyarray(py))
    }

    /// Copies a state from `state` back to the device, and waits until that is done.
    fn load_state(&self, py: Python<'_>, state: PyReadonlyArray1<'_, f32>) -> PyResult<()> {
        let state = state.as_array().to_vec();
        Ok(self.with_engine(py, |engine| engine.single.load_states(vec![state]))?)
    }

    /// Advances the state by `tokens` and returns the logits after the last one: float32, [vocabulary], in host memory.
    fn forward<'py>(
        &self,
        py: Python<'py>,
        tokens: Vec<i64>,
    ) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let tokens = settings::tokens(&tokens, self.sizes.vocabulary)?;
        let logits = self.with_engine(py, |engine| engine.single.forward(vec![tokens]))?;
        Ok(logits.into_pyarray(py))
    }

    /// As `forward`, followed by the engine's own softmax: probabilities instead of logits.
    fn probabilities<'py>(
        &self,
        py: Python<'py>,
        tokens: Vec<i64>,
    ) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let tokens = settings::tokens(&tokens, self.sizes.vocabulary)?;
        let probabilities = self.with_engine(py, |engine| engine.single.probabilities(tokens))?;
        Ok(probabilities.into_pyarray(py))
    }

    /// `sequences` sequences of the same weights, which advance together; their states are cleared.
    fn batch(slf: Bound<'_, Self>, sequences: i64) -> PyResult<Batch> {
        let count = settings::sequences(sequences)?;
        let model = slf.get();
        let states = model.with_engine(slf.py(), |engine| engine.sequences(count))?;
        let vocabulary = model.sizes.vocabulary;
        Ok(Batch::new(slf.unbind(), states, count, vocabulary))
    }

    fn __repr__(&self) -> String {
        format!(
            "Model({:?}, adapter={}, quant={:?}, quant_layers={}, chunk={})",
            self.path.display().to_string(),
            self.adapter.label(),
            self.quant.name(),
            self.quant_layers,
            self.chunk
        )
    }
}
