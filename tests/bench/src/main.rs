//! The program that measures.

use std::process::ExitCode;

fn main() -> ExitCode {
    peerage_bench::main()
}
