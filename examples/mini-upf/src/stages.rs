//! The stages: `gtpu-decap` for packets from N3 to N6, and `gtpu-encap` for packets from N6 to N3.

use std::net::Ipv4Addr;

use serde::Deserialize;
use xdpfwd_pipeline::{PlanError, PlanFn, Reason};
use xdpfwd_wire::gtpu::{self, GPdu, PduSessionContainer};
use xdpfwd_wire::{MacAddr, ipv4};

use crate::sessions::{Sessions, table};

/// The configuration of a stage. Both kinds of stages have the same keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The MAC address to which the stage sends packets.
    next_hop: MacAddr,
    /// This UPF's address on N3.
    n3_address: Ipv4Addr,
}

/// Plans the stage that removes the GTP-U tunnel from packets of UEs.
pub fn decap(config: Config, sessions: Sessions) -> Result<PlanFn, PlanError> {
    let invalid_gtpu = Reason::register("invalid_gtpu", "The packet is not a G-PDU for this UPF.")?;
    let no_session = Reason::register("no_session", "No session has this TEID or UE address.")?;
    let wrong_ue_address =
        Reason::register("wrong_ue_address", "The source is not the UE address.")?;
    let table_sessions = sessions.clone();
    let plan = PlanFn::new(move |cx| {
        let ethernet = cx.ethernet_to(config.next_hop);
        sessions.stage(move |sessions, packet, cx| {
            // `outer`: the headers of the packet on N3. `user`: the headers of the UE's packet in
            // the tunnel.
            let outer = packet.meta.headers;
            let g_pdu = GPdu::parse_to(packet.frame, &outer, config.n3_address);
            let GPdu { message, user, .. } = g_pdu.map_err(|_| invalid_gtpu)?;
            let session = sessions.by_teid.get(&message.teid()).ok_or(no_session)?;
            if user.source_ip(packet.frame) != Some(session.parameters.ue) {
                return Err(wrong_ue_address);
            }
            packet.cut_to_ip(user)?; // removes the tunnel
            session.counters.add(cx.worker(), [1, 0, packet.frame.len() as u64, 0]);
            packet.encapsulate(&[ethernet.into()])
        })
    });
    Ok(plan.with_table(move || table(&table_sessions)))
}

/// Plans the stage that encapsulates packets to UEs in a GTP-U tunnel.
pub fn encap(config: Config, sessions: Sessions) -> Result<PlanFn, PlanError> {
    let no_session = Reason::register("no_session", "No session has this TEID or UE address.")?;
    Ok(PlanFn::new(move |cx| {
        let ethernet = cx.ethernet_to(config.next_hop);
        sessions.stage(move |sessions, packet, cx| {
            let user = packet.meta.headers;
            let ue = user.destination_ip(packet.frame).ok_or(Reason::NOT_IP)?;
            let session = sessions.by_ue.get(&ue).ok_or(no_session)?;
            packet.cut_to_ip(user)?; // removes the Ethernet header
            session.counters.add(cx.worker(), [0, 1, 0, packet.frame.len() as u64]);
            let extensions = [PduSessionContainer::downlink(session.parameters.qfi).into()];
            let ip = ipv4::Repr::new(config.n3_address, session.parameters.gnb);
            let teid = session.parameters.gnb_teid;
            packet.encapsulate(&gtpu::tunnel(ethernet, ip, teid, &extensions))
        })
    }))
}
