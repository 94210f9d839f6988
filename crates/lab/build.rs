//! Compiles the lab's BPF programs to objects that are embedded in the library.
//!
//! The builder of libbpf-cargo is used only as a compiler: the Rust code that it can generate
//! ("skeletons") contains unsafe code.

use std::{env, error::Error, fs, path::PathBuf};

use libbpf_cargo::SkeletonBuilder;

fn main() -> Result<(), Box<dyn Error>> {
    let out_dir = PathBuf::from(
        env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: build.rs is run by cargo")?,
    );
    // clang's BPF target does not search the multiarch directory with <asm/types.h>.
    let multiarch = match env::var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "x86" => "i386-linux-gnu".to_owned(),
        "riscv64" => "riscv64-linux-gnu".to_owned(),
        other => format!("{other}-linux-gnu"),
    };
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=DOCS_RS");
    for name in ["generator", "sink"] {
        let object = out_dir.join(format!("{name}.bpf.o"));
        // docs.rs has no libbpf headers and runs no programs.
        if env::var_os("DOCS_RS").is_some() {
            fs::write(object, [])?;
            continue;
        }
        SkeletonBuilder::new()
            .source(format!("bpf/{name}.bpf.c"))
            .obj(object)
            // The sink's atomic exchange needs BPF instruction set v3.
            .clang_args([
                format!("-I/usr/include/{multiarch}"),
                "-mcpu=v3".into(),
                "-Wall".into(),
                "-Werror".into(),
            ])
            .build()?;
    }
    Ok(())
}
