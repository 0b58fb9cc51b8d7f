//! The command `batonfs`: parse, run, exit code.

fn main() -> std::process::ExitCode {
    batonfs::cli::main()
}
