//! The program.

fn main() -> std::process::ExitCode {
    rmesh::main()
}
