//! With the feature `ipsec-mb`, compiles the C shim for libipsec-mb and links the library.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "ipsec-mb")]
    build_ipsec_mb_shim();
}

#[cfg(feature = "ipsec-mb")]
fn build_ipsec_mb_shim() {
    const SHIM: &str = "src/aead/ipsec_mb/shim.c";
    println!("cargo::rerun-if-changed={SHIM}");
    let mut build = cc::Build::new();
    // intel-ipsec-mb.h requires the macro LINUX.
    build
        .file(SHIM)
        .define("LINUX", None)
        .std("c11")
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(true);
    if let Err(error) = build.try_expand() {
        eprintln!("{error}");
        eprintln!("feature `ipsec-mb`: cannot read intel-ipsec-mb.h of libipsec-mb 1.1 or later;");
        eprintln!("install it: apt-get install libipsec-mb-dev");
        std::process::exit(1);
    }
    build.compile("xdpfwd_ipsec_mb");
    println!("cargo::rustc-link-lib=IPSec_MB");
}
