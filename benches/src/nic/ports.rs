//! The network interfaces of a measurement: description, limits, checks.

use std::{
    fs, io,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use xdpfwd_bench::{
    machine::tool_output,
    results::{NicPort, Preparation},
};
use xdpfwd_lab::WIRE_OVERHEAD;

/// Links of some NICs take seconds to come up after an XDP program is attached.
const CARRIER_DEADLINE: Duration = Duration::from_secs(20);

/// Returns the description of an interface.
pub(super) fn describe(role: &str, interface: &str) -> Result<NicPort> {
    let folder = Path::new("/sys/class/net").join(interface);
    if !folder.exists() {
        bail!("no interface `{interface}` for {role}; `ip link` lists the interfaces");
    }
    let read =
        |name: &str| fs::read_to_string(folder.join(name)).ok().map(|text| text.trim().to_owned());
    let driver = tool_output("ethtool", &["-i", interface]);
    let field = |name: &str| {
        let value = driver.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.map(str::to_owned).filter(|value| !matches!(value.as_str(), "" | "N/A"))
    };
    let pcie = read("device/current_link_speed").zip(read("device/current_link_width"));
    Ok(NicPort {
        role: role.to_owned(),
        interface: interface.to_owned(),
        driver: field("driver"),
        firmware: field("firmware-version"),
        bus: field("bus-info"),
        pcie: pcie.map(|(speed, width)| format!("{speed} x{width}")),
        // The file has -1, or cannot be read, if the driver does not know the speed.
        speed_mbps: read("speed").and_then(|text| text.parse().ok()).filter(|speed| *speed > 0),
        mtu: read("mtu").and_then(|text| text.parse().ok()).unwrap_or(0),
        // -1 without NUMA.
        numa_node: read("device/numa_node").and_then(|text| text.parse().ok()),
    })
}

/// Fails if an interface is given twice, is part of another interface, or carries a default route
/// or, without `force`, an address that other hosts reach.
///
/// # Errors
///
/// Also if the use of an interface cannot be determined.
pub(super) fn check_safe(ports: &[NicPort], force: bool) -> Result<()> {
    for (index, port) in ports.iter().enumerate() {
        if let Some(other) = ports[..index].iter().find(|other| other.interface == port.interface) {
            bail!(
                "`{}` is given for {} and for {}: use different interfaces",
                port.interface,
                other.role,
                port.role
            );
        }
    }
    for port in ports {
        let interface = &port.interface;
        if let Some(upper) = upper_interfaces(interface)?.first() {
            bail!(
                "`{interface}` is a lower interface of `{upper}` (a bridge, bond, VLAN or \
                 macvlan), whose traffic would pass the XDP programs of the measurement; use \
                 interfaces that carry nothing else"
            );
        }
        for family in ["-4", "-6"] {
            let routes = query(&[family, "route", "show", "table", "all"])?;
            if routes.iter().any(|route| is_default_route(route, interface)) {
                bail!(
                    "`{interface}` carries a default route: the measurement could cut off this \
                     machine; use interfaces that carry nothing else"
                );
            }
        }
        let addresses = query(&["address", "show", "dev", interface])?;
        if let Some(address) = global_address(&addresses)
            && !force
        {
            bail!(
                "`{interface}` has the address {address}: its connections, such as an SSH session, \
                 could break; use interfaces that carry nothing else, or --force"
            );
        }
    }
    Ok(())
}

/// Returns the interfaces on top of this one, such as bridges, bonds and VLANs.
fn upper_interfaces(interface: &str) -> Result<Vec<String>> {
    let folder = Path::new("/sys/class/net").join(interface);
    let entries = fs::read_dir(&folder)
        .and_then(|entries| entries.collect::<io::Result<Vec<_>>>())
        .with_context(|| format!("reading {}", folder.display()))?;
    let names = entries
        .iter()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("upper_").map(str::to_owned));
    Ok(names.collect())
}

/// Runs `ip -json`. Returns the elements of the list that it prints.
fn query(arguments: &[&str]) -> Result<Vec<Value>> {
    let command = format!("ip -json {}", arguments.join(" "));
    let output = Command::new("ip")
        .arg("-json")
        .args(arguments)
        .output()
        .context("cannot start `ip`; run: apt-get install iproute2")?;
    if !output.status.success() {
        bail!("`{command}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    parse_list(&output.stdout).with_context(|| {
        format!("`{command}` printed no list in JSON; install a newer iproute2 (4.18 or later)")
    })
}

/// Parses the output of `ip -json`. Some versions print nothing instead of an empty list of routes.
fn parse_list(output: &[u8]) -> serde_json::Result<Vec<Value>> {
    match output.trim_ascii() {
        b"" => Ok(Vec::new()),
        list => serde_json::from_slice(list),
    }
}

/// Returns whether a route of `ip -json route` is a default route through the interface.
fn is_default_route(route: &Value, interface: &str) -> bool {
    let mut hops = route["nexthops"].as_array().into_iter().flatten();
    let is_through = |hop: &Value| hop["dev"] == interface;
    route["dst"] == "default" && (is_through(route) || hops.any(is_through))
}

/// Returns an address that other hosts reach. `interfaces` is the output of `ip -json address`.
fn global_address(interfaces: &[Value]) -> Option<&str> {
    let addresses = interfaces.iter().flat_map(|interface| interface["addr_info"].as_array());
    addresses.flatten().find(|address| address["scope"] == "global")?["local"].as_str()
}

/// Returns the packets per second of a link that carries only frames of this length in memory.
pub(super) fn line_pps(speed_mbps: u64, bytes: u16) -> f64 {
    speed_mbps as f64 * 1e6 / 8.0 / (f64::from(bytes) + WIRE_OVERHEAD as f64)
}

/// Waits until all interfaces have a carrier.
pub(super) fn wait_for_carriers(ports: &[NicPort]) -> Result<()> {
    let start = Instant::now();
    for port in ports {
        let file = format!("/sys/class/net/{}/carrier", port.interface);
        // Reading fails while the interface is down.
        while fs::read_to_string(&file).unwrap_or_default().trim() != "1" {
            if start.elapsed() > CARRIER_DEADLINE {
                bail!(
                    "{} ({}) has no carrier: check the cable and the other end, and run: \
                     ip link set {} up",
                    port.interface,
                    port.role,
                    port.interface
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Reads a counter in /sys/class/net/…/statistics.
pub(super) fn statistic(interface: &str, name: &str) -> Result<u64> {
    let file = format!("/sys/class/net/{interface}/statistics/{name}");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    text.trim().parse().with_context(|| format!("reading {file}"))
}

/// Returns the MAC address of an interface.
pub(super) fn mac(interface: &str) -> Result<[u8; 6]> {
    let file = format!("/sys/class/net/{interface}/address");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    parse_mac(text.trim()).map_err(anyhow::Error::msg).with_context(|| format!("reading {file}"))
}

/// Parses a MAC address such as `02:00:00:00:00:01`.
pub(super) fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Option<Vec<u8>> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| format!("`{text}` is not a MAC address; use a form like 02:00:00:00:00:01"))
}

/// Returns what should be changed on an interface of the generator or the sink. `mtu` is the
/// smallest MTU that the measurement needs there.
pub(super) fn examine(port: &NicPort, mtu: u32) -> Vec<Preparation> {
    let interface = &port.interface;
    let mut found = Vec::new();
    let mut add = |check: &str, level: &str, finding: String, fix: String| {
        found.push(Preparation {
            subject: interface.clone(),
            check: check.to_owned(),
            level: level.to_owned(),
            finding,
            fix: Some(fix),
        });
    };
    let flags = fs::read_to_string(format!("/sys/class/net/{interface}/flags"));
    let flags = flags
        .ok()
        .and_then(|text| u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok());
    // IFF_UP
    if flags.is_some_and(|flags| flags & 1 == 0) {
        add("link", "error", "the interface is down".into(), format!("ip link set {interface} up"));
    }
    if port.mtu < mtu {
        let finding = format!("the MTU is {}; the longest packet needs {mtu}", port.mtu);
        add("mtu", "error", finding, format!("ip link set {interface} mtu {mtu}"));
    }
    if uses_flow_control(&tool_output("ethtool", &["-a", interface])) {
        let finding = "flow control is on: pause frames hide losses and slow the generator down";
        let fix = format!("ethtool -A {interface} autoneg off rx off tx off");
        add("flow-control", "warning", finding.into(), fix);
    }
    found
}

/// Reads the output of `ethtool -a`.
fn uses_flow_control(output: &str) -> bool {
    output.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        matches!(words[..], ["RX:" | "TX:", "on"])
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn line_rate_of_smallest_frames_matches_known_values() {
        assert!((line_pps(10_000, 60) / 1e6 - 14.88).abs() < 0.005);
        assert!((line_pps(100_000, 1514) / 1e6 - 8.127).abs() < 0.005);
    }

    #[test]
    fn default_route_is_found_in_single_and_multipath_routes() {
        let single = json!({"dst": "default", "gateway": "10.0.0.1", "dev": "eth0"});
        assert!(is_default_route(&single, "eth0"));
        assert!(!is_default_route(&single, "eth1"));
        let hops = json!([{"dev": "eth1"}, {"dev": "eth2"}]);
        let multipath = json!({"dst": "default", "nexthops": hops, "table": "77"});
        assert!(is_default_route(&multipath, "eth2"));
        assert!(!is_default_route(&json!({"dst": "10.0.0.0/8", "dev": "eth0"}), "eth0"));
    }

    #[test]
    fn output_of_ip_that_is_no_list_is_an_error() {
        assert_eq!(parse_list(b"[ ]\n").unwrap(), [] as [Value; 0]);
        assert_eq!(parse_list(b"").unwrap(), [] as [Value; 0]);
        for output in ["default via 10.0.0.1 dev eth0", "[{]", "{}"] {
            assert!(parse_list(output.as_bytes()).is_err(), "{output}");
        }
    }

    #[test]
    fn failed_query_is_an_error() {
        let error = query(&["address", "show", "dev", "no-such-if"]).unwrap_err().to_string();
        assert!(error.contains("address show dev no-such-if` failed: "), "{error}");
    }

    #[test]
    fn only_addresses_of_global_scope_are_found() {
        let interface = |addresses: Value| [json!({"ifname": "eth1", "addr_info": addresses})];
        let link = json!({"local": "fe80::1", "scope": "link"});
        let global = json!({"local": "192.0.2.1", "scope": "global"});
        assert_eq!(global_address(&interface(json!([link, global]))), Some("192.0.2.1"));
        assert_eq!(global_address(&interface(json!([link]))), None);
        assert_eq!(global_address(&[]), None);
    }

    #[test]
    fn flow_control_is_read_from_either_direction() {
        let output = "Pause parameters for eth1:\nAutonegotiate:\toff\nRX:\t\toff\nTX:\t\toff\n";
        assert!(!uses_flow_control(output));
        assert!(uses_flow_control(&output.replace("TX:\t\toff", "TX:\t\ton")));
        assert!(!uses_flow_control("unknown: `ethtool` failed"));
    }

    #[test]
    fn parse_mac_rejects_other_text() {
        assert_eq!(parse_mac("02:00:00:00:0a:01"), Ok([2, 0, 0, 0, 10, 1]));
        for text in ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "02:00:00:00:00:xy"] {
            assert!(parse_mac(text).is_err(), "{text}");
        }
    }

    #[test]
    fn same_interface_for_two_roles_is_rejected() {
        let port = |role| describe(role, "lo").unwrap();
        let error = check_safe(&[port("tx"), port("rx")], true).unwrap_err().to_string();
        assert!(error.contains("given for tx and for rx"), "{error}");
        assert!(describe("tx", "no-such-if").unwrap_err().to_string().contains("no-such-if"));
    }
}
