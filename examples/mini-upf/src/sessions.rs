//! The table of sessions. The control plane changes it; the workers read it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use xdpfwd_pipeline::{SharedCounters, SharedTable, Table, Unit};

/// Arguments of `ctl sessions`.
#[derive(clap::Parser)]
pub enum Command {
    /// Adds a session
    Add(Parameters),
    /// Removes the session of a user equipment (UE)
    Remove { ue: IpAddr },
}

#[derive(clap::Args)]
pub struct Parameters {
    pub ue: IpAddr,
    // Tunnel endpoint identifier (TEID) of uplink packets.
    pub teid: u32,
    pub gnb: Ipv4Addr,
    // TEID of downlink packets.
    pub gnb_teid: u32,
    // QoS flow identifier of downlink packets.
    #[arg(value_parser = clap::value_parser!(u8).range(..64))]
    pub qfi: u8,
}

pub struct Session {
    pub parameters: Parameters,
    /// Uplink packets, downlink packets, uplink bytes and downlink bytes. Bytes are those of the
    /// UE's IP packets, without tunnel and Ethernet headers.
    pub counters: SharedCounters<4>,
}

/// All sessions. Uplink packets find their session by TEID, downlink packets by UE address.
#[derive(Clone, Default)]
pub struct Lookup {
    pub by_teid: HashMap<u32, Arc<Session>>,
    pub by_ue: HashMap<IpAddr, Arc<Session>>,
}

pub type Sessions = SharedTable<Lookup>;

/// Runs `ctl sessions`. After an error, the table is unchanged.
pub fn run(sessions: &Sessions, workers: usize, command: Command) -> Result<(), &'static str> {
    sessions.try_update(|lookup| match command {
        Command::Add(parameters) => {
            let (ue, teid) = (parameters.ue, parameters.teid);
            let session = Arc::new(Session { parameters, counters: SharedCounters::new(workers) });
            let earlier_by_teid = lookup.by_teid.insert(teid, session.clone());
            let earlier = lookup.by_ue.insert(ue, session).or(earlier_by_teid);
            earlier.map_or(Ok(()), |_| Err("the UE or the uplink TEID already has a session"))
        }
        Command::Remove { ue } => {
            let session = lookup.by_ue.remove(&ue).ok_or("the UE has no session")?;
            lookup.by_teid.remove(&session.parameters.teid);
            Ok(())
        }
    })
}

/// Returns the inspection table, sorted by TEID, for `ctl inspect` and the final report.
pub fn table(sessions: &Sessions) -> Table {
    let mut table = Table::new("sessions", &[])
        .columns(["ue", "teid", "gnb", "gnb_teid", "qfi"])
        .columns_in(Unit::Packets, ["uplink_packets", "downlink_packets"])
        .columns_in(Unit::Bytes, ["uplink_bytes", "downlink_bytes"]);
    for session in sessions.load().by_ue.values() {
        let Parameters { ue, teid, gnb, gnb_teid, qfi } = session.parameters;
        let [up, down, up_bytes, down_bytes] = session.counters.sums();
        table.push((ue, teid, gnb, gnb_teid, qfi, up, down, up_bytes, down_bytes));
    }
    table.rows.sort_by_key(|row| row[1].as_number());
    table
}
