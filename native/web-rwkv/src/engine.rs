//! One RWKV-7 model on one adapter: web-rwkv without Python.

use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use safetensors::SafeTensors;
use tokio::runtime::{Builder, Runtime as Threads};
use web_rwkv::context::{Context, ContextBuilder};
use web_rwkv::runtime::loader::Loader;
use web_rwkv::runtime::model::{ContextAutoLimits, ModelBuilder, ModelInfo};
use web_rwkv::runtime::v7;

use crate::adapter::Candidate;
use crate::checkpoint::{self, Sizes};
use crate::failure::{Failure, chain};
use crate::sequences::Sequences;
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

/// A loaded model with one sequence, whose state no other touches.
pub struct Engine {
    pub sizes: Sizes,
    pub quant_layers: usize,
    pub single: Sequences,
    chunk: usize,
    model: v7::Model,
    // Last: fields are dropped in this order, and the threads must outlive what runs on them.
    threads: Arc<Threads>,
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

        let threads = Arc::new(threads()?);
        let context = threads.block_on(open(&request.adapter, &info))?;
        let quants: HashMap<_, _> = (0..quant_layers)
            .map(|layer| (layer, request.quant.engine()))
            .collect();
        let builder = ModelBuilder::new(&context, tensors).quant(quants);
        let model = threads
            .block_on(builder.build_v7())
            .map_err(|error| of_file(chain(&error)))?;
        let single = Sequences::new(&model, 1, request.chunk, &threads)?;
        Ok(Self {
            sizes,
            quant_layers,
            single,
            chunk: request.chunk,
            model,
            threads,
        })
    }

    /// Other sequences of the same weights, which advance together; their states are cleared.
    pub fn sequences(&self, count: usize) -> Result<Sequences, Failure> {
        Sequences::new(&self.model, count, self.chunk, &self.threads)
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
