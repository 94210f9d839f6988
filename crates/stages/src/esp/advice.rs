//! Warnings about ESP stages that would start but not do what their users expect.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use xdpfwd_pipeline::{Location, PlanDiagnostic};

use super::bypass::Bypass;
use super::state_file::{StateFile, StateFileError, StateFileProblem};
use super::values::Bypassed;

/// Returns the warnings about a stage. `bypass_key` is the value of the stage's configuration key
/// `bypass`, `bypass` is created from this value, and `addresses` are all addresses of the SAs.
pub(super) fn warnings(
    bypass_key: &[Bypassed],
    bypass: &Bypass,
    addresses: impl IntoIterator<Item = IpAddr>,
    state_path: &Path,
) -> Vec<PlanDiagnostic> {
    let warning = |message| PlanDiagnostic { location: Location::Stage, message };
    let state = missing_state_file(state_path).or_else(|| failed_write(state_path));
    let neighbors = dropped_neighbor_packets(bypass_key, addresses);
    state.into_iter().chain(neighbors).chain(bypass.warning()).map(warning).collect()
}

/// Returns a warning if the state file is missing or inaccessible. Does not open the file, because
/// that would lock it and write a new epoch.
fn missing_state_file(path: &Path) -> Option<String> {
    let error = fs::symlink_metadata(path).err()?;
    let problem = match error.kind() {
        ErrorKind::NotFound => StateFileProblem::Missing(path.to_owned()),
        _ => StateFileProblem::Read(error),
    };
    let error = StateFileError { path: path.to_owned(), problem };
    Some(format!("the start will fail: {error}"))
}

fn failed_write(state_path: &Path) -> Option<String> {
    let path = state_path.display();
    StateFile::has_failed_write(state_path).then(|| {
        format!(
            "state_file: {path} records a failed write, so xdpfwd does not start with it; create \
             new keys and a new state file, or take the risk that replayed packets are accepted: \
             xdpfwd esp accept-state {path}"
        )
    })
}

fn dropped_neighbor_packets(
    bypass: &[Bypassed],
    addresses: impl IntoIterator<Item = IpAddr>,
) -> Vec<String> {
    let (mut has_ipv4, mut has_ipv6) = (false, false);
    for address in addresses {
        has_ipv4 |= address.is_ipv4();
        has_ipv6 |= address.is_ipv6();
    }
    // Without any address, the packets may be of either version. Assume IPv4, which is more common.
    has_ipv4 |= !has_ipv6;
    let has = |kind| bypass.contains(&kind);
    let message = |kind: &str, protocol: &str| {
        format!(
            "bypass lacks \"{kind}\": the stage does not pass {protocol} unchanged, so hosts and \
             routers on the two sides of this path cannot find each other; add \"{kind}\" to \
             bypass, unless they have static neighbor entries"
        )
    };
    let arp = has_ipv4 && !has(Bypassed::Arp) && !has(Bypassed::NotIp);
    let nd = has_ipv6 && !has(Bypassed::Nd);
    let arp = arp.then(|| message("arp", "ARP"));
    let nd = nd.then(|| message("nd", "Neighbor Discovery"));
    arp.into_iter().chain(nd).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdpfwd_testkit::Folder;

    #[test]
    fn warning_about_missing_arp_or_nd_bypass_depends_on_ip_versions() {
        use Bypassed::{Arp, Nd, NotIp, Unmatched};
        let lacking = |bypass: &[Bypassed], addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap());
            let messages = dropped_neighbor_packets(bypass, addresses);
            messages
                .iter()
                .map(|text| text.split('"').nth(1).unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let (v4, v6) = ("192.0.2.1", "2001:db8::1");
        assert_eq!(lacking(&[], &[]), ["arp"]);
        assert_eq!(lacking(&[Unmatched], &[v4]), ["arp"]);
        assert_eq!(lacking(&[Nd], &[v4, v6]), ["arp"]);
        assert_eq!(lacking(&[], &[v6]), ["nd"]);
        assert_eq!(lacking(&[], &[v4, v6]), ["arp", "nd"]);
        for bypass in [&[Arp, Nd][..], &[NotIp, Nd]] {
            assert!(lacking(bypass, &[v4, v6]).is_empty(), "{bypass:?}");
        }
    }

    #[test]
    fn missing_state_file_is_warned_of_with_command() {
        let folder = Folder::new();
        let path = folder.join("state");
        let text = missing_state_file(&path).unwrap();
        assert!(text.contains(&format!("xdpfwd esp new-state {}", path.display())), "{text}");
        fs::write(&path, "").unwrap();
        assert_eq!(missing_state_file(&path), None);
    }
}
