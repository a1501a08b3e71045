//! The thin binary: what the process keeps to itself, a TLS provider, then whatever the arguments say.
//! Holds: the only place that ends the process.

use std::process::ExitCode;

/// Events are many small allocations that one thread makes and another frees, which this allocator is built for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hookbus::app::keep_to_itself();
    // Fails only where a provider is installed already, and then there is one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    hookbus::cli::main(std::env::args_os())
}
