//! Compiles the XDP programs with clang, to be embedded in the crate.

use std::env;
use std::path::{Path, PathBuf};
use std::process::exit;

use libbpf_cargo::SkeletonBuilder;

fn main() {
    // The whole folder: the program is in several files.
    println!("cargo:rerun-if-changed=../../bpf");
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    // Debian keeps <asm/types.h> in a folder per architecture, which clang does not search when it compiles for BPF.
    let include = format!("-I/usr/include/{arch}-linux-gnu");
    for name in ["xdpfwd", "xdpfwd_filter"] {
        let source = Path::new("../../bpf").join(name).with_extension("bpf.c");
        let built = SkeletonBuilder::new()
            .source(&source)
            .obj(out_dir.join(name).with_extension("bpf.o"))
            .clang_args([include.as_str(), "-mcpu=v3", "-Wall", "-Werror"])
            .build();
        if let Err(error) = built {
            eprintln!("cannot compile {}: {error:#}", source.display());
            eprintln!("it takes clang, libbpf-dev and linux-libc-dev: `make deps` installs them");
            exit(1);
        }
    }
}
