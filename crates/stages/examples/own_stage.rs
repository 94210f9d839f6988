//! A custom stage in a pipeline fixed at compile time. A fake kernel provides the ports, so the
//! example needs neither root nor NICs. For real interfaces, only create the ports with
//! `xdpfwd_xsk::Builder` instead.

use std::io::{self, Write as _};

use xdpfwd_pipeline::{Cx, PortId, Reason, Stage, View, Worker};
use xdpfwd_stages::MacSwap;
use xdpfwd_xsk::{Umem, UmemConfig, fake_kernel::FakeKernel};

/// Passes packets to one UDP destination port, and drops all others.
struct OnlyUdpPort {
    port: u16,
    refused: u64,
}

impl Stage for OnlyUdpPort {
    fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
        for mut packet in view.packets() {
            let headers = &packet.meta.headers;
            if headers.protocol != Some(xdpfwd_wire::IpProtocol::UDP)
                || headers.destination_port != self.port
            {
                self.refused += 1;
                packet.drop(Reason::POLICY);
            }
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![("refused", self.refused)]
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const LAN: PortId = PortId(0);
    const WAN: PortId = PortId(1);
    // The fake kernel requires different indices.
    const LAN_INDEX: u32 = 0;
    const WAN_INDEX: u32 = 1;
    let (umem, mut pool) = Umem::new(&UmemConfig::default())?;
    // Each `_wire` delivers packets to a port, and takes its sent packets.
    let (lan, lan_wire) = FakeKernel::port(&umem, &mut pool, LAN_INDEX);
    let (wan, wan_wire) = FakeKernel::port(&umem, &mut pool, WAN_INDEX);
    let mut worker = Worker::builder(umem, pool)
        .port(vec![Box::new(lan)])
        .port(vec![Box::new(wan)])
        .path(LAN, WAN, (OnlyUdpPort { port: 2152, refused: 0 }, MacSwap))
        .build()?;

    // UDP from 10.0.0.1 to 10.0.0.2, port 2152. The second packet goes to port 53.
    let mut packet = *b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\0\
        \x45\0\0\x1c\0\0\0\0\x40\x11\x66\xcf\x0a\0\0\x01\x0a\0\0\x02\
        \x10\0\x08\x68\0\x08\0\0";
    lan_wire.deliver(&packet).expect("room in the ring");
    packet[36..38].copy_from_slice(&53u16.to_be_bytes());
    lan_wire.deliver(&packet).expect("room in the ring");
    worker.poll_once();

    let sent = wan_wire.take_sent();
    let report = worker.report();
    let _ = writeln!(io::stdout(), "sent {} of 2; {:#?}", sent.len(), report.paths[0].stages);
    assert_eq!((sent.len(), report.drops[Reason::POLICY], report.frames.leaked), (1, 1, 0));
    Ok(())
}
