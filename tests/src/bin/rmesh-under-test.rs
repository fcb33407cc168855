//! The program `rmesh`, built together with the tests so that they never run a stale one.
//!
//! Cargo does not build another package's binary for a test. Three things are added: with
//! `RMESH_UNDER_TEST_HOSTS=FILE` the file stands in for /etc/hosts in a mount namespace of the
//! process, so that a test decides when a name begins to resolve; with `RMESH_UNDER_TEST_DIES_AT=N`
//! the process dies at the Nth operation on its state folder; with `RMESH_UNDER_TEST_FULL_AT=N` the
//! disk is full from there on.

use std::process::ExitCode;
use std::sync::Arc;

use rmesh_tests::failing_disk::{FailingDisk, Failure};

fn main() -> ExitCode {
    if let Some(file) = std::env::var_os("RMESH_UNDER_TEST_HOSTS")
        && let Err(error) = rmesh_tests::own_hosts::replace(file.as_ref())
    {
        eprintln!("rmesh-under-test: {}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    let failures = [
        ("RMESH_UNDER_TEST_DIES_AT", Failure::Die),
        ("RMESH_UNDER_TEST_FULL_AT", Failure::Full),
    ];
    for (variable, failure) in failures {
        let Some(at) = std::env::var_os(variable) else {
            continue;
        };
        let Some(at) = at.to_str().and_then(|at| at.parse().ok()) else {
            eprintln!("rmesh-under-test: {variable} is not a number");
            return ExitCode::FAILURE;
        };
        rmesh::disk::replace(Arc::new(FailingDisk::new(at, failure)));
    }
    rmesh::main()
}
