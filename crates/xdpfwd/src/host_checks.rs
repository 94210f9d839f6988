//! Checks of a plan against this host. `--check`, the start of xdpfwd and `doctor` run them.

use xdpfwd_engine::{KeepRule, LinkUser, PathPlan, Plan, PortPlan};
use xdpfwd_pipeline::PortId;

/// A reason why packets are lost, or are sent twice, although xdpfwd runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) found: String,
    /// Commands or lines of the configuration; `\nor: ` separates alternatives.
    pub(crate) fix: String,
}

/// Finds interfaces that use the interface of a port (a bridge, a VLAN interface, …) and that
/// receive none of the port's packets, or forward copies of them. Finds none if no path starts at
/// the port, because xdpfwd then receives no packets from it.
pub(crate) fn competing_users(plan: &Plan, port: PortId, users: &[LinkUser]) -> Vec<Problem> {
    let Some(port_plan) = plan.ports.get(usize::from(port.0)) else { return Vec::new() };
    if !plan.paths.iter().any(|path| path.from == port) {
        return Vec::new();
    }
    users.iter().filter_map(|user| competing_user(port_plan, user)).collect()
}

fn competing_user(port: &PortPlan, user: &LinkUser) -> Option<Problem> {
    let PortPlan { interface, keep, .. } = port;
    let release = user.release_command(interface);
    let relation = match user {
        LinkUser::Controller { .. } => format!("{interface} is a port of {user}"),
        LinkUser::Stacked { .. } => format!("{interface} carries {user}"),
    };
    if !port.io.uses_xdp() {
        // A packet socket receives copies, so other users of the interface lose no packets. But a
        // controller, such as a bridge, forwards the packets as well.
        return matches!(user, LinkUser::Controller { .. }).then(|| Problem {
            found: format!(
                "{relation}, which also receives and may forward every packet of a {} port, so \
                 that packets leave twice",
                port.io
            ),
            fix: release,
        });
    }
    let is_kept = match user {
        LinkUser::Stacked { vlan: Some(vlan), .. } => keep.contains(&KeepRule::Vlan(*vlan)),
        // No `keep` rule matches LACP, which an aggregate (a bond or team) needs.
        _ => !keep.is_empty() && !user.is_aggregate(),
    };
    if is_kept {
        return None;
    }
    let found = if user.is_aggregate() {
        format!(
            "{relation}, which receives none of the packets that xdpfwd takes, not even LACP, \
             and so loses this link"
        )
    } else {
        format!("{relation}, which receives none of the packets that xdpfwd takes")
    };
    let fix = match user {
        LinkUser::Stacked { vlan: Some(vlan), .. } => {
            format!("{release}\nor: keep = [\"vlan/{vlan}\"] for the port")
        }
        _ if user.is_aggregate() => release,
        _ => format!("{release}\nor: `keep` rules for the port"),
    };
    Some(Problem { found, fix })
}

/// Returns a problem if packets of the path can be too long for the MTU of its egress interface.
/// `mtu` returns the MTU of a port, if known.
pub(crate) fn path_mtu(
    plan: &Plan,
    path: &PathPlan,
    mtu: impl Fn(PortId) -> Option<u32>,
) -> Option<Problem> {
    let port = |id: PortId| plan.ports.get(usize::from(id.0));
    let (from, to) = (port(path.from)?, port(path.to)?);
    let (from_mtu, to_mtu) = (mtu(path.from)?, mtu(path.to)?);
    let longest =
        (path.stages.iter()).fold(from_mtu, |length, stage| stage.plan.longest_packet(length));
    if longest <= to_mtu {
        return None;
    }
    let after_stages = match longest == from_mtu {
        true => String::new(),
        false => format!(", and packets of up to {longest} bytes leave the stages"),
    };
    let found = format!(
        "port {} ({}) has MTU {from_mtu}{after_stages}, but port {} ({}) has MTU {to_mtu}: longer \
         packets on this path are lost (tx_dropped)",
        from.name, from.interface, to.name, to.interface
    );
    let raise = format!("ip link set dev {} mtu {longest}", to.interface);
    let shorten = match longest == from_mtu {
        true => format!("ip link set dev {} mtu {to_mtu}", from.interface),
        false => format!("shorter packets from the stages (esp-seal: mtu = {to_mtu})"),
    };
    Some(Problem { found, fix: format!("{raise}\nor: {shorten}") })
}

impl Problem {
    /// Formats the problem as one line, for a warning about the configuration.
    pub(crate) fn into_message(self) -> String {
        let mut fixes = self.fix.split("\nor: ");
        let first = fixes.next().unwrap_or_default();
        let others: String = fixes.map(|fix| format!(", or use {}", in_code(fix))).collect();
        format!("{}; run `{first}`{others}", self.found)
    }
}

/// Quotes `text` if it is a command. Other fixes are prose, or have quotes of their own.
fn in_code(text: &str) -> String {
    let is_command = ["ip ", "ovs-vsctl "].iter().any(|name| text.starts_with(name));
    if is_command { format!("`{text}`") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use xdpfwd_engine::{Io, StageOnPath};
    use xdpfwd_pipeline::{BuildCx, Stage, StagePlan};

    use super::*;
    use crate::doctor::Subject;

    fn plan() -> Plan {
        let mut plan = Subject::of_interfaces(&["eth1".into(), "eth2".into()]).plan;
        plan.paths = vec![PathPlan { from: PortId(0), to: PortId(1), stages: Vec::new() }];
        plan
    }

    fn controller(kind: &str) -> LinkUser {
        LinkUser::Controller { name: "up0".into(), kind: kind.into() }
    }

    fn stacked(kind: &str, vlan: Option<u16>) -> LinkUser {
        LinkUser::Stacked { name: "up0".into(), kind: kind.into(), vlan }
    }

    fn messages(plan: &Plan, user: LinkUser) -> Vec<String> {
        let problems = competing_users(plan, PortId(0), &[user]);
        problems.into_iter().map(Problem::into_message).collect()
    }

    #[test]
    fn interface_with_other_user_is_problem_with_command() {
        let plan = plan();
        for (user, texts) in [
            (controller("bridge"), ["eth1 is a port of the bridge up0", "eth1 nomaster`"]),
            (controller("vrf"), ["eth1 is a port of the vrf up0", "eth1 nomaster`"]),
            (controller("bond"), ["not even LACP", "`ip link set dev eth1 nomaster`"]),
            (controller("team"), ["not even LACP", "`ip link set dev eth1 nomaster`"]),
            (controller("openvswitch"), ["the openvswitch up0", "`ovs-vsctl del-port eth1`"]),
            (stacked("macvlan", None), ["carries the macvlan interface up0", "delete dev up0`"]),
            (stacked("vlan", Some(7)), ["(ID 7)", "keep = [\"vlan/7\"]"]),
        ] {
            let found = messages(&plan, user);
            assert!(texts.iter().all(|text| found[0].contains(text)), "{found:?}");
        }
        // No path starts at the second port.
        assert!(competing_users(&plan, PortId(1), &[controller("bond")]).is_empty());
    }

    #[test]
    fn keep_rules_leave_packets_to_other_users_except_aggregates() {
        let mut plan = plan();
        plan.ports[0].keep = [KeepRule::Vlan(7)].into();
        assert!(messages(&plan, stacked("vlan", Some(7))).is_empty());
        assert!(messages(&plan, controller("bridge")).is_empty());
        assert_eq!(messages(&plan, stacked("vlan", Some(8))).len(), 1);
        assert_eq!(messages(&plan, controller("bond")).len(), 1);
    }

    #[test]
    fn packet_socket_port_of_bridge_forwards_twice() {
        let mut plan = plan();
        plan.ports[0].io = Io::PacketMmsg;
        assert!(messages(&plan, controller("bridge"))[0].contains("leave twice; run `ip link set"));
        assert!(messages(&plan, stacked("macvlan", None)).is_empty());
    }

    /// A stage that makes packets 100 bytes longer, up to 1450 bytes.
    #[derive(Debug)]
    struct Tunnel;

    impl StagePlan for Tunnel {
        fn build(&self, _: &BuildCx<'_>) -> Box<dyn Stage> {
            unreachable!("the test builds no stage")
        }

        fn longest_packet(&self, mtu: u32) -> u32 {
            (mtu + 100).min(1450)
        }
    }

    #[test]
    fn path_to_smaller_mtu_is_problem_with_both_commands() {
        let plan = plan();
        let found = |plan: &Plan, mtus: [Option<u32>; 2]| {
            let found = path_mtu(plan, &plan.paths[0], |port| mtus[usize::from(port.0)]);
            found.map(Problem::into_message)
        };
        assert_eq!(
            found(&plan, [Some(1500), Some(1400)]).unwrap(),
            "port eth1 (eth1) has MTU 1500, but port eth2 (eth2) has MTU 1400: longer packets on \
             this path are lost (tx_dropped); run `ip link set dev eth2 mtu 1500`, or use `ip link \
             set dev eth1 mtu 1400`"
        );
        for mtus in [[Some(1400), Some(1500)], [Some(1500), Some(1500)], [None, Some(68)]] {
            assert_eq!(found(&plan, mtus), None, "{mtus:?}");
        }
        let mut with_stage = plan.clone();
        let stage = StageOnPath { name: "t".into(), plan: Arc::new(Tunnel), in_kernel: false };
        with_stage.paths[0].stages.push(stage);
        assert_eq!(found(&with_stage, [Some(9000), Some(1450)]), None);
        assert_eq!(found(&with_stage, [Some(1300), Some(1400)]), None);
        let text = found(&with_stage, [Some(1400), Some(1449)]).unwrap();
        assert!(text.contains("up to 1450 bytes leave the stages"), "{text}");
        assert!(text.contains("(esp-seal: mtu = 1449)"), "{text}");
    }
}
