//! The program `rmesh`, built together with the tests so that they never run a stale one.
//!
//! Cargo does not build another package's binary for a test. One thing is added: with
//! `RMESH_UNDER_TEST_HOSTS=FILE` the file stands in for /etc/hosts in a mount namespace of the
//! process, so that a test decides when a name begins to resolve.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(file) = std::env::var_os("RMESH_UNDER_TEST_HOSTS")
        && let Err(error) = rmesh_tests::own_hosts::replace(file.as_ref())
    {
        eprintln!("rmesh-under-test: {}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    rmesh::main()
}
