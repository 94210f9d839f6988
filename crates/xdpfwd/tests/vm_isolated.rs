//! Tests `xdpfwd doctor` in a test VM (`make vmtest`; crates/vm) that has booted with the
//! parameters that doctor recommends for isolating a core.

mod support;

use support::Config;
use support::examination::{CORE_1_ISOLATION, Examination, run_shell};
use xdpfwd_lab::Namespace;

const CONFIG: &str = r#"
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
    let parameters = std::fs::read_to_string("/proc/cmdline").unwrap();
    assert!(
        parameters.contains(CORE_1_ISOLATION),
        "this VM did not boot with the parameters: {parameters:?}"
    );
    let namespace = Namespace::create("isolated").unwrap();
    run_shell(
        &namespace,
        "ip link add near type veth peer name far && ip link set near up && ip link set far up",
    );
    let config = Config::new(CONFIG);
    Examination::run(&namespace, &["--no-probe", "--config", config.path()])
        .assert_ok("host", "isolation");
    println!("case: {CORE_1_ISOLATION}: core 1 is isolated and has no tick");
}
