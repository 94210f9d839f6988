//! Compiles the BPF programs on tracepoints, which the crate embeds, with clang.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use libbpf_cargo::SkeletonBuilder;

fn main() -> Result<(), Box<dyn Error>> {
    // In the repository, `bpf` is a symbolic link to the top-level `bpf`.
    println!("cargo:rerun-if-changed=bpf/kernel_ledger.bpf.c");
    println!("cargo:rerun-if-env-changed=DOCS_RS");
    let out_dir = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: build.rs is run by cargo")?;
    let object = PathBuf::from(out_dir).join("kernel_ledger.bpf.o");
    // docs.rs has no libbpf headers and never loads the programs: write an empty file.
    if env::var_os("DOCS_RS").is_some() {
        fs::write(object, [])?;
        return Ok(());
    }
    // Debian installs <asm/types.h> in a directory per architecture, which clang does not search
    // for BPF.
    let include = format!("-I/usr/include/{}-linux-gnu", env::var("CARGO_CFG_TARGET_ARCH")?);
    let built = SkeletonBuilder::new()
        .source("bpf/kernel_ledger.bpf.c")
        .obj(object)
        .clang_args([include.as_str(), "-mcpu=v3", "-Wall", "-Werror"])
        .build();
    built.map_err(|error| {
        format!(
            "cannot compile bpf/kernel_ledger.bpf.c: {error:#}; \
             install clang, libbpf-dev and linux-libc-dev, or run `make deps`"
        )
    })?;
    Ok(())
}
