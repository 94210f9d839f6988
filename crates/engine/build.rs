//! Compiles the XDP programs, which the crate embeds, with clang.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::exit;

use libbpf_cargo::SkeletonBuilder;

fn main() {
    // In the repository, `bpf` is a symbolic link to the top-level `bpf`.
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=DOCS_RS");
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    // Debian installs <asm/types.h> in a directory per architecture, which clang does not search
    // for BPF.
    let include = format!("-I/usr/include/{arch}-linux-gnu");
    for name in ["xdpfwd", "xdpfwd_filter"] {
        let source = Path::new("bpf").join(name).with_extension("bpf.c");
        let object = out_dir.join(name).with_extension("bpf.o");
        // docs.rs has no libbpf headers and never loads the programs: write empty files.
        if env::var_os("DOCS_RS").is_some() {
            if let Err(error) = fs::write(&object, []) {
                eprintln!("cannot write {}: {error}", object.display());
                exit(1);
            }
            continue;
        }
        let result = SkeletonBuilder::new()
            .source(&source)
            .obj(&object)
            .clang_args([include.as_str(), "-mcpu=v3", "-Wall", "-Werror"])
            .build();
        if let Err(error) = result {
            eprintln!("cannot compile {}: {error:#}", source.display());
            eprintln!("install clang, libbpf-dev and linux-libc-dev, or run `make deps`");
            exit(1);
        }
    }
}
