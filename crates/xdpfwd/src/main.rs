//! xdpfwd
fn main() {}
