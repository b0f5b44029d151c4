//! Errors, one sentence each, and the fence that turns panics into them.

use std::any::Any;
use std::error::Error;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::path::{Component, Path};
use std::sync::{Mutex, PoisonError};

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// An argument is out of range: Python's `ValueError`.
    Value(String),
    /// The file, the adapter or the engine failed: `WebRwkvError`.
    Engine(String),
    /// The engine panicked, and what it was working on is unusable: `WebRwkvError`.
    Panic(String),
}

impl Failure {
    /// A panic somewhere in the engine, with the first panic message since the fence was entered.
    ///
    /// The engine's worker threads report a panic to the caller only as a closed channel; `otherwise` describes that.
    pub fn panic(otherwise: &str) -> Self {
        let message = first_panic().take();
        let message = message.unwrap_or_else(|| one_line(otherwise));
        Self::Panic(format!("web-rwkv panicked: {message}"))
    }
}

/// The error and its causes on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut sentence = one_line(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        sentence = format!("{sentence}: {}", one_line(&error.to_string()));
        cause = error.source();
    }
    sentence
}

/// Runs `work`; a panic in it becomes [`Failure::Panic`].
///
/// After a panic, the caller must not use what `work` was changing.
pub fn fence<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    first_panic().take();
    panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|payload| Err(Failure::panic(payload_text(&*payload))))
}

/// Makes panics of this extension module silent and remembers their message instead.
///
/// The hook belongs to this module's own copy of the Rust runtime: other extension modules keep theirs.
pub fn silence_panics() {
    panic::set_hook(Box::new(|info| remember(panic_text(info))));
}

/// The message of the first panic since the last fence; later panics follow from it. There is one per process, because
/// the engine's threads do not say which model they serve: two models that panic at once may swap messages.
static FIRST_PANIC: Mutex<Option<String>> = Mutex::new(None);

fn first_panic() -> std::sync::MutexGuard<'static, Option<String>> {
    FIRST_PANIC.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remember(message: String) {
    first_panic().get_or_insert(message);
}

fn panic_text(info: &PanicHookInfo<'_>) -> String {
    let message = one_line(payload_text(info.payload()));
    match info.location() {
        Some(place) => format!("{message} ({}:{})", crate_path(place.file()), place.line()),
        None => message,
    }
}

/// The message inside a caught panic.
pub fn payload_text(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "no message"
    }
}

/// A source path without the folders of the machine it was compiled on: from the crate's own folder on.
fn crate_path(file: &str) -> String {
    let parts: Vec<_> = Path::new(file)
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    let source = parts.iter().rposition(|part| *part == "src").unwrap_or(0);
    parts[source.saturating_sub(1)..].join("/")
}

/// Replaces line breaks and runs of spaces by one space, and drops a full stop at the end.
fn one_line(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fmt, io};

    #[derive(Debug)]
    struct Outer(io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("failed to load\n")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_chain_tells_every_cause_on_one_line() {
        let error = Outer(io::Error::other("wgpu error:\n\n  out of memory."));
        assert_eq!(chain(&error), "failed to load: wgpu error: out of memory");
    }

    #[test]
    fn source_paths_lose_the_builder_s_folders() {
        let registry = "/home/someone/.cargo/registry/src/index-123/wgpu-29.0.4/src/api/device.rs";
        assert_eq!(crate_path(registry), "wgpu-29.0.4/src/api/device.rs");
        assert_eq!(crate_path("src/engine.rs"), "src/engine.rs");
        assert_eq!(crate_path("engine.rs"), "engine.rs");
    }

    // One test, not three: the remembered message is per process, and cargo runs tests in parallel.
    #[test]
    fn the_fence_reports_the_first_panic_and_forgets_it() {
        let caught = fence::<()>(|| panic!("two\n  lines {}", 1));
        assert_eq!(
            caught,
            Err(Failure::Panic("web-rwkv panicked: two lines 1".into()))
        );

        let worker_died = fence::<()>(|| {
            remember("cause (a.rs:1)".into());
            remember("consequence (b.rs:2)".into());
            Err(Failure::panic("its worker stopped"))
        });
        assert_eq!(
            worker_died,
            Err(Failure::Panic("web-rwkv panicked: cause (a.rs:1)".into()))
        );

        remember("of an earlier call".into());
        let unexplained = fence::<()>(|| Err(Failure::panic("its worker stopped.")));
        assert_eq!(
            unexplained,
            Err(Failure::Panic(
                "web-rwkv panicked: its worker stopped".into()
            ))
        );
        assert_eq!(fence(|| Ok(7)), Ok(7));
    }
}
