//! The stages: `gtpu-decap` from N3 to N6, and `gtpu-encap` from N6 to N3.

use std::net::Ipv4Addr;

use serde::Deserialize;
use xdpfwd_pipeline::{BuildCx, Cx, PacketMut, PlanError, PlanFn, Reason, View};
use xdpfwd_wire::gtpu::{self, Extension, GPdu, PduSessionContainer};
use xdpfwd_wire::{Addresses, Header, MacAddr, ethernet, ipv4, udp};

use crate::sessions::{Lookup, Sessions, table};

/// What the configuration file says of a stage, of either kind.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The MAC address of the next hop.
    next_hop: MacAddr,
    /// The IP address of this UPF on N3.
    n3_address: Ipv4Addr,
}

/// What a stage needs to process a packet, except for the sessions.
pub struct Context {
    config: Config,
    ethernet: ethernet::Repr,
    worker: usize,
    no_session: Reason,
    wrong_ue_address: Reason,
    invalid_gtpu: Reason,
}

type Process = fn(&Context, &Lookup, &mut PacketMut<'_>) -> Result<(), Reason>;

/// Plans a stage that processes each packet with this function.
pub fn plan(config: Config, sessions: &Sessions, process: Process) -> Result<PlanFn, PlanError> {
    let no_session = Reason::register("no_session", "No session has the TEID or address.")?;
    let wrong_ue_address = Reason::register("wrong_ue_address", "The source is not the UE.")?;
    let invalid_gtpu = Reason::register("invalid_gtpu", "This is no G-PDU for the UPF.")?;
    let (of_stages, shown) = (sessions.clone(), sessions.clone());
    let plan = PlanFn::new(move |cx: &BuildCx<'_>| {
        let (sessions, worker) = (of_stages.clone(), cx.worker);
        let source = cx.to_port().and_then(|port| port.mac).unwrap_or_default();
        let ethernet =
            ethernet::Repr { source, destination: config.next_hop, ..Default::default() };
        let cx = Context { config, ethernet, worker, no_session, wrong_ue_address, invalid_gtpu };
        move |view: &mut View<'_>, _: &mut Cx<'_>| {
            let sessions = sessions.load();
            view.each(|packet| process(&cx, &sessions, packet));
        }
    });
    Ok(plan.with_table(move || table(&shown)))
}

/// Takes a packet out of its tunnel.
pub fn decap(cx: &Context, sessions: &Lookup, packet: &mut PacketMut<'_>) -> Result<(), Reason> {
    let outer = packet.meta.headers;
    let g_pdu = GPdu::parse(packet.frame, &outer).map_err(|_| cx.invalid_gtpu)?;
    if outer.addresses(packet.frame).map(Addresses::destination)
        != Some(cx.config.n3_address.into())
    {
        return Err(cx.invalid_gtpu);
    }
    let session = sessions.by_teid.get(&g_pdu.message.teid()).ok_or(cx.no_session)?;
    let user = g_pdu.user;
    if user.addresses(packet.frame).map(Addresses::source) != Some(session.parameters.ue.into()) {
        return Err(cx.wrong_ue_address);
    }
    packet.cut_to_ip(&user);
    session.counters.add(cx.worker, [1, 0, packet.frame.len() as u64, 0]);
    packet.encapsulate(&[cx.ethernet.into()])
}

/// Puts a packet into the tunnel of its UE.
pub fn encap(cx: &Context, sessions: &Lookup, packet: &mut PacketMut<'_>) -> Result<(), Reason> {
    let user = packet.meta.headers;
    let Some(Addresses::V4 { destination, .. }) = user.addresses(packet.frame) else {
        return Err(Reason::NOT_IP);
    };
    let session = sessions.by_ue.get(&destination).ok_or(cx.no_session)?;
    packet.cut_to_ip(&user);
    session.counters.add(cx.worker, [0, 1, 0, packet.frame.len() as u64]);
    let container =
        [Extension::PduSessionContainer(PduSessionContainer::downlink(session.parameters.qfi))];
    packet.encapsulate(&[
        cx.ethernet.into(),
        ipv4::Repr::new(cx.config.n3_address, session.parameters.gnb).into(),
        Header::UdpWithoutChecksum(udp::Repr::new(gtpu::PORT, gtpu::PORT)),
        gtpu::Repr::g_pdu(session.parameters.downlink_teid, &container).into(),
    ])
}
