//! `xdpfwd doctor` in a test machine that was booted as it asks for where a core is not isolated
//! (`make vmtest`; crates/vm).

mod support;

use support::Config;
use support::examined::{Examined, ISOLATES_CORE_1, apply};
use xdpfwd_lab::Namespace;

const CORE_1: &str = r#"
    [engine]
    cores = [1]
    [[port]]
    name = "lan"
    interface = "near"
    [[path]]
    from = "lan"
    to = "lan"
"#;

#[test]
fn doctor_accepts_isolated_core() {
    let told = std::fs::read_to_string("/proc/cmdline").unwrap();
    assert!(told.contains(ISOLATES_CORE_1), "{told:?}");
    let namespace = Namespace::create("isolated").unwrap();
    apply(
        &namespace,
        "ip link add near type veth peer name far && ip link set near up && ip link set far up",
    );
    let config = Config::new(CORE_1);
    Examined::of(&namespace, &["--no-probe", "--config", config.path()])
        .assert_ok("host", "isolation");
    println!("case: {ISOLATES_CORE_1}: core 1 is isolated and has no tick");
}
