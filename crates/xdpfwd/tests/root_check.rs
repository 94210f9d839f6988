//! Tests `xdpfwd --check` with an alternative interface name (`ip link property add … altname`).
//! Needs root.

mod support;

use support::{Config, XDPFWD, build_lab};
use xdpfwd_lab::Chain;

/// Gives fwd0 the alternative name `uplink` (in later calls, fwd0 already has the name), and runs
/// `--check` with ports on these interfaces. Returns exit code, stdout and stderr, in which `FILE`
/// replaces the path of the configuration.
fn check_interfaces(lab: &Chain, interfaces: [&str; 2]) -> (Option<i32>, String, String) {
    let [lan, wan] = interfaces;
    let config = Config::new(&format!(
        "[[port]]\nname = \"lan\"\ninterface = {lan:?}\n\
         [[port]]\nname = \"wan\"\ninterface = {wan:?}\n\
         [[path]]\nfrom = \"lan\"\nto = \"wan\"\n"
    ));
    lab.fwd()
        .command("ip")
        .args(["link", "property", "add", "dev", "fwd0", "altname", "uplink"])
        .output()
        .unwrap();
    let mut command = lab.fwd().command(XDPFWD);
    let output = command.args(["--config", config.path(), "--check", "--json"]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().replace(config.path(), "FILE");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn check_accepts_alternative_name_and_rejects_two_names_of_one_interface() {
    let lab = build_lab(Chain::builder());
    let (code, plan, stderr) = check_interfaces(&lab, ["uplink", "fwd1"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    for port in plan["ports"].as_array().unwrap() {
        assert_eq!(
            (&port["present"], &port["interface_queues"], &port["mtu"]),
            (&true.into(), &1.into(), &1500.into())
        );
    }
    assert_eq!(plan["ports"][0]["interface"], "uplink");
    let (code, _, stderr) = check_interfaces(&lab, ["fwd0", "uplink"]);
    assert_eq!(code, Some(2));
    assert!(
        stderr.starts_with("FILE:6:13: interface \"uplink\" already belongs to the port on line 1"),
        "{stderr}"
    );
}
