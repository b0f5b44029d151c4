//! One RWKV-7 model on one adapter: web-rwkv without Python.

use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::path::Path;

use half::f16;
use memmap2::Mmap;
use safetensors::SafeTensors;
use tokio::runtime::{Builder, Runtime as Threads};
use web_rwkv::context::{Context, ContextBuilder};
use web_rwkv::runtime::infer::{Rnn, RnnInput, RnnInputBatch, RnnOption};
use web_rwkv::runtime::loader::Loader;
use web_rwkv::runtime::model::{AsAny, Bundle, ContextAutoLimits, ModelBuilder, ModelInfo, State};
use web_rwkv::runtime::softmax::softmax_one;
use web_rwkv::runtime::{RuntimeError, TokioRuntime, v7};
use web_rwkv::tensor::{TensorCpu, TensorError, TensorInit};

use crate::adapter::Candidate;
use crate::checkpoint::{self, Sizes};
use crate::failure::{Failure, chain, payload_text};
use crate::settings::{self, Quant};

/// What to load and how.
pub struct Request<'path> {
    pub path: &'path Path,
    pub adapter: Candidate,
    pub quant: Quant,
    pub quant_layers: Option<i64>,
    /// Tokens per step; a multiple of the engine's smallest.
    pub chunk: usize,
}

/// A loaded model with its recurrent state. Every method returns only after the device has finished.
pub struct Engine {
    pub sizes: Sizes,
    pub quant_layers: usize,
    chunk: usize,
    state: v7::State,
    runtime: TokioRuntime<Rnn>,
    // After `runtime`: fields are dropped in this order, and the threads must outlive what runs on them.
    threads: Threads,
}

impl Engine {
    pub fn load(request: &Request<'_>) -> Result<Self, Failure> {
        let path = request.path.display();
        let of_file = |reason: String| Failure::Engine(format!("{path}: {reason}"));

        let bytes = map(request.path).map_err(of_file)?;
        let tensors = SafeTensors::deserialize(&bytes)
            .map_err(|error| of_file(format!("not a whole safetensors file: {}", chain(&error))))?;
        let sizes = checkpoint::check(&tensors).map_err(of_file)?;
        let quant_layers =
            settings::quantized_layers(request.quant, request.quant_layers, sizes.layers)?;
        let info = Loader::info(&tensors).map_err(|error| of_file(chain(&error)))?;

        let threads = threads()?;
        let context = threads.block_on(open(&request.adapter, &info))?;
        let quants: HashMap<_, _> = (0..quant_layers)
            .map(|layer| (layer, request.quant.engine()))
            .collect();
        let builder = ModelBuilder::new(&context, tensors).quant(quants);
        let model = threads
            .block_on(builder.build_v7())
            .map_err(|error| of_file(chain(&error)))?;
        let bundle = v7::Bundle::<f16>::new(model, 1);
        let state = state_of(&bundle)?;
        let runtime = threads.block_on(TokioRuntime::new(bundle));
        Ok(Self {
            sizes,
            quant_layers,
            chunk: request.chunk,
            state,
            runtime,
            threads,
        })
    }

    /// Fills the state with zeros on the device, which are its initial values (`v7::State::init`).
    pub fn clear(&self) -> Result<(), Failure> {
        let context = &self.state.context;
        let mut encoder = context.device.create_command_encoder(&Default::default());
        for layer in &self.state.data {
            encoder.clear_buffer(&layer.buffer, 0, None);
        }
        self.submit_and_wait(Some(encoder.finish()))
    }

    /// Submits commands, and earlier writes to the device's buffers, and waits until all are done.
    fn submit_and_wait(&self, commands: Option<wgpu::CommandBuffer>) -> Result<(), Failure> {
        let context = &self.state.context;
        context.queue.submit(commands);
        context
            .device
            .poll(wgpu::PollType::wait_indefinitely())
            .map_err(|error| Failure::Engine(chain(&error)))?;
        Ok(())
    }

    /// A copy of the state: `[layers, head size + 2, width]`, the last one fastest.
    pub fn state(&self) -> Result<Vec<f32>, Failure> {
        let state = self.threads.block_on(self.state.back(0));
        Ok(state.map_err(of_tensor)?.to_vec())
    }

    /// Puts a copy that `state` gave back onto the device.
    pub fn load_state(&self, state: Vec<f32>) -> Result<(), Failure> {
        let shape = self.state.init_shape();
        if state.len() != shape.len() {
            return Err(Failure::Value(format!(
                "state has {} numbers, but this model's has {}",
                state.len(),
                shape.len()
            )));
        }
        let state = TensorCpu::from_data(shape, state).map_err(of_tensor)?;
        self.state.load(state, 0).map_err(of_tensor)?;
        self.submit_and_wait(None)
    }

    /// Advances the state by `tokens` and returns the logits after the last of them.
    pub fn forward(&self, tokens: Vec<u32>) -> Result<Vec<f32>, Failure> {
        self.threads.block_on(async {
            let mut logits = self.advance(tokens).await?.to_vec();
            // The head's rows are padded to a multiple of 8.
            logits.truncate(self.sizes.vocabulary);
            Ok(logits)
        })
    }

    /// As `forward`, followed by the engine's own softmax, which sends the logits to the device and back once more.
    pub fn probabilities(&self, tokens: Vec<u32>) -> Result<Vec<f32>, Failure> {
        self.threads.block_on(async {
            let logits = self.advance(tokens).await?;
            let shares = softmax_one(&self.state.context, logits)
                .await
                .map_err(|error| Failure::Engine(chain(&error)))?;
            let mut shares = shares.to_vec();
            shares.truncate(self.sizes.vocabulary);
            Ok(shares)
        })
    }

    async fn advance(&self, tokens: Vec<u32>) -> Result<TensorCpu<f32>, Failure> {
        let batch = RnnInputBatch::new(tokens, RnnOption::Last);
        let mut input = RnnInput::new(vec![batch], self.chunk);
        while input.num_token() > 0 {
            let (rest, output) = self.runtime.infer(input).await.map_err(of_runtime)?;
            let logits = &output[0].0;
            if !logits.is_empty() {
                return Ok(logits.clone());
            }
            input = rest;
        }
        Err(Failure::Engine(
            "the engine took every token and returned no logits".into(),
        ))
    }
}

/// Runs a future that needs no threads of its own.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    Builder::new_current_thread()
        .build()
        .expect("a runtime without drivers asks the system for nothing")
        .block_on(future)
}

/// The file, memory-mapped: a model larger than memory can be loaded.
fn map(path: &Path) -> Result<Mmap, String> {
    let file = File::open(path).map_err(|error| chain(&error))?;
    // SAFETY: the mapping is read only while `load` runs. A process that truncates the file meanwhile kills this one
    // (SIGBUS), as with every engine that maps its model.
    unsafe { Mmap::map(&file) }.map_err(|error| chain(&error))
}

/// One thread per core, as in web-rwkv's own examples (TOKIO_WORKER_THREADS changes it). Two suffice once warm, but a
/// cold first prefill, which creates its pipelines, took a tenth longer with two on an H200 with 16 cores.
fn threads() -> Result<Threads, Failure> {
    Builder::new_multi_thread()
        .thread_name("web-rwkv")
        .build()
        .map_err(|error| Failure::Engine(format!("no threads for web-rwkv: {}", chain(&error))))
}

/// Opens the adapter with the features and limits that this model needs; the error says what the adapter lacks.
async fn open(candidate: &Candidate, info: &ModelInfo) -> Result<Context, Failure> {
    let builder = ContextBuilder::new(candidate.handle.clone()).auto_limits(info);
    let label = candidate.adapter.label();
    let absent = builder.features - candidate.handle.features();
    if !absent.is_empty() {
        let names: Vec<_> = absent.iter_names().map(|(name, _)| name).collect();
        return Err(Failure::Engine(format!(
            "{label} lacks what web-rwkv's shaders need: {}",
            names.join(", ")
        )));
    }
    let mut short = Vec::new();
    let allowed = candidate.handle.limits();
    builder
        .limits
        .check_limits_with_fail_fn(&allowed, false, |name, needed, has| {
            short.push(format!("{name} {needed} (it has {has})"));
        });
    if !short.is_empty() {
        let short = short.join(", ");
        return Err(Failure::Engine(format!(
            "{label} is too small for this model, which needs {short}"
        )));
    }
    builder
        .build()
        .await
        .map_err(|error| Failure::Engine(format!("{label}: {}", chain(&error))))
}

/// The bundle's state; its buffers are shared with the bundle.
fn state_of(bundle: &v7::Bundle<f16>) -> Result<v7::State, Failure> {
    bundle
        .state()
        .as_any()
        .downcast_ref::<v7::State>()
        .cloned()
        .ok_or_else(|| Failure::Engine("the engine's RWKV-7 state is of another version".into()))
}

fn of_tensor(error: TensorError) -> Failure {
    Failure::Engine(chain(&error))
}

/// A closed channel or a failed task means that one of the engine's threads panicked.
fn of_runtime(error: RuntimeError) -> Failure {
    match error {
        // The task may have failed during an earlier call (the engine encodes ahead), so its message is fetched.
        RuntimeError::JoinError(error) => match error.try_into_panic() {
            Ok(payload) => Failure::panic(payload_text(&*payload)),
            Err(error) => Failure::panic(&chain(&error)),
        },
        RuntimeError::RecvError(_) => Failure::panic("one of its threads stopped"),
        RuntimeError::InputExhausted | RuntimeError::TensorError(_) => {
            Failure::Engine(chain(&error))
        }
    }
}
