//! Tells the program which compiler built it: another one makes other instructions.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = Command::new(rustc).arg("--version").output();
    let version = version.map_or_else(
        |error| error.to_string(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    );
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=RMESH_COUNTS_COMPILER={version}");
    println!("cargo::rustc-env=RMESH_COUNTS_TARGET={target}");
}
