//! Hands the locked version of the web-rwkv crate to the compiler as `WEB_RWKV_VERSION`.

use std::fs;

/// The `version` of package `name` in the text of a Cargo.lock.
fn locked_version<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let header = format!("name = \"{name}\"");
    let mut lines = lock.lines().skip_while(|line| *line != header);
    lines.next()?;
    lines
        .next()?
        .strip_prefix("version = \"")?
        .strip_suffix('"')
}

fn main() {
    println!("cargo::rerun-if-changed=Cargo.lock");
    println!("cargo::rerun-if-changed=build.rs");
    let lock = fs::read_to_string("Cargo.lock").expect("Cargo.lock stands beside build.rs");
    let version = locked_version(&lock, "web-rwkv").expect("Cargo.lock locks web-rwkv");
    println!("cargo::rustc-env=WEB_RWKV_VERSION={version}");
}
