//! Recurrent states over one model's weights, which advance together: one for `Model`, several for `Batch`.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use half::f16;
use tokio::runtime::Runtime as Threads;
use web_rwkv::runtime::infer::{Rnn, RnnInput, RnnInputBatch, RnnOption};
use web_rwkv::runtime::model::{AsAny, Bundle, State};
use web_rwkv::runtime::softmax::softmax_one;
use web_rwkv::runtime::{RuntimeError, TokioRuntime, v7};
use web_rwkv::tensor::{TensorCpu, TensorError, TensorInit};

use crate::failure::{Failure, chain, payload_text};

/// How long `free` waits for the engine's threads to let go of the states.
const FREE_SECONDS: Duration = Duration::from_secs(1);

/// Sequences with a state each. Every method returns only after the device has finished.
pub struct Sequences {
    count: usize,
    vocabulary: usize,
    chunk: usize,
    state: v7::State,
    runtime: TokioRuntime<Rnn>,
    // After `runtime`: fields are dropped in this order, and the threads must outlive what runs on them.
    threads: Arc<Threads>,
}

impl Sequences {
    /// Sequences with cleared states; `chunk` is a multiple of the engine's smallest.
    pub fn new(
        model: &v7::Model,
        count: usize,
        chunk: usize,
        threads: &Arc<Threads>,
    ) -> Result<Self, Failure> {
        let vocabulary = model.info.num_vocab;
        let bundle = v7::Bundle::<f16>::new(model.clone(), count);
        let state = state_of(&bundle)?;
        let runtime = threads.block_on(TokioRuntime::new(bundle));
        Ok(Self {
            count,
            vocabulary,
            chunk,
            state,
            runtime,
            threads: Arc::clone(threads),
        })
    }

    /// Fills all states with zeros on the device, which are their initial values (`v7::State::init`).
    pub fn clear(&self) -> Result<(), Failure> {
        self.fill_with_zeros(0, None)
    }

    /// Fills one sequence's state with zeros.
    pub fn clear_sequence(&self, sequence: usize) -> Result<(), Failure> {
        // A layer's states follow each other: [width, head size + 2, count], the first index fastest.
        let bytes = self.state.data[0].buffer.size() / self.count as u64;
        self.fill_with_zeros(sequence as u64 * bytes, Some(bytes))
    }

    /// Fills a part of every layer's states with zeros, by default all that follows.
    fn fill_with_zeros(&self, offset: u64, bytes: Option<u64>) -> Result<(), Failure> {
        let context = &self.state.context;
        let mut encoder = context.device.create_command_encoder(&Default::default());
        for layer in &self.state.data {
            encoder.clear_buffer(&layer.buffer, offset, bytes);
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

    /// Copies of the states, one sequence's after another's: `[layers, head size + 2, width]`, the last one fastest.
    pub fn states(&self) -> Result<Vec<f32>, Failure> {
        let mut states = Vec::with_capacity(self.state.init_shape().len() * self.count);
        for sequence in 0..self.count {
            let state = self.threads.block_on(self.state.back(sequence));
            states.extend_from_slice(state.map_err(of_tensor)?.data());
        }
        Ok(states)
    }

    /// Puts copies that `states` gave back onto the device, one for each sequence.
    pub fn load_states(&self, states: Vec<Vec<f32>>) -> Result<(), Failure> {
        let shape = self.state.init_shape();
        if states.len() != self.count {
            return Err(Failure::Value(format!(
                "state has {} rows, but this batch has {} sequences",
                states.len(),
                self.count
            )));
        }
        if let Some(wrong) = states.iter().find(|state| state.len() != shape.len()) {
            return Err(Failure::Value(format!(
                "state has {} numbers, but this model's has {}",
                wrong.len(),
                shape.len()
            )));
        }
        for (sequence, state) in states.into_iter().enumerate() {
            let state = TensorCpu::from_data(shape, state).map_err(of_tensor)?;
            self.state.load(state, sequence).map_err(of_tensor)?;
        }
        self.submit_and_wait(None)
    }

    /// Advances each sequence by its tokens and returns the logits after the last of them, one sequence's after
    /// another's; NaN for a sequence without tokens.
    pub fn forward(&self, tokens: Vec<Vec<u32>>) -> Result<Vec<f32>, Failure> {
        let logits = self.threads.block_on(self.advance(tokens))?;
        let mut rows = Vec::with_capacity(self.count * self.vocabulary);
        for each in logits {
            match each {
                // The head's rows are padded to a multiple of 8.
                Some(logits) => rows.extend_from_slice(&logits.data()[..self.vocabulary]),
                None => rows.resize(rows.len() + self.vocabulary, f32::NAN),
            }
        }
        Ok(rows)
    }

    /// As `forward` for the first sequence, followed by the engine's own softmax, which sends the logits to the device
    /// and back once more.
    pub fn probabilities(&self, tokens: Vec<u32>) -> Result<Vec<f32>, Failure> {
        self.threads.block_on(async {
            let logits = self.advance(vec![tokens]).await?;
            let logits = logits.into_iter().flatten().next().ok_or_else(no_logits)?;
            let shares = softmax_one(&self.state.context, logits)
                .await
                .map_err(|error| Failure::Engine(chain(&error)))?;
            let mut shares = shares.to_vec();
            shares.truncate(self.vocabulary);
            Ok(shares)
        })
    }

    /// The logits after each sequence's last token, and none for a sequence without tokens.
    ///
    /// The engine takes up to a chunk of all sequences' tokens at a time. From 33 tokens on it takes a multiple of 32,
    /// so that a step of 40 sequences is one of 32 and one of 8.
    async fn advance(&self, tokens: Vec<Vec<u32>>) -> Result<Vec<Option<TensorCpu<f32>>>, Failure> {
        // One token each may be more than the chunk: what limits it are the tokens of one sequence.
        let chunk = match tokens.iter().map(Vec::len).max() {
            Some(0 | 1) => self.chunk.max(self.count),
            _ => self.chunk,
        };
        let mut logits: Vec<_> = tokens.iter().map(|_| None).collect();
        let batches: Vec<_> = tokens
            .into_iter()
            .map(|tokens| RnnInputBatch::new(tokens, RnnOption::Last))
            .collect();
        let fed: Vec<_> = batches.iter().map(|each| !each.tokens.is_empty()).collect();
        let mut input = RnnInput::new(batches, chunk);
        while input.num_token() > 0 {
            let (rest, output) = self.runtime.infer(input).await.map_err(of_runtime)?;
            for (slot, each) in logits.iter_mut().zip(output.0) {
                if !each.0.is_empty() {
                    *slot = Some(each.0);
                }
            }
            input = rest;
        }
        let complete = logits
            .iter()
            .zip(fed)
            .all(|(each, fed)| each.is_some() == fed);
        complete.then_some(logits).ok_or_else(no_logits)
    }

    /// Gives the states' memory back to the device at once.
    ///
    /// Dropped alone, it would be kept for the next 64 steps of the model by bind groups in the engine's cache.
    pub fn free(self) {
        let Self { state, runtime, .. } = self;
        drop(runtime);
        // The engine's task may still encode steps ahead, which must not meet a buffer that is gone.
        let started = Instant::now();
        while Arc::strong_count(&state.data[0].buffer) > 1 && started.elapsed() < FREE_SECONDS {
            thread::sleep(Duration::from_micros(100));
        }
        for layer in state.data {
            layer.destroy();
        }
    }
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

fn no_logits() -> Failure {
    Failure::Engine("the engine took every token and did not return each sequence's logits".into())
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
