use std::process::ExitCode;

fn main() -> ExitCode {
    gilt::cli::main()
}
