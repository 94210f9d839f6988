//! The configuration of both sides.

use super::lab::Lab;

/// Outer addresses of side 0 and 1. No interface has them. Nobody resolves them by ARP either,
/// because xdpfwd keeps the MAC addresses of the inner packet's frame.
pub const OUTER_4: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
pub const OUTER_6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];

/// The ESP configuration. Arrays have an element for each side.
#[derive(Clone, Debug)]
pub struct Setup {
    pub transform: &'static str,
    pub transport: bool,
    /// Outer addresses in tunnel mode, such as [`OUTER_4`].
    pub outer: [&'static str; 2],
    pub udp: bool,
    pub esn: bool,
    pub bypass: &'static str,
    /// Generations (see [`spi`]) of the outbound SAs. Each side encapsulates with the first.
    pub outbound: Vec<u32>,
    /// Generations of the inbound SAs.
    pub inbound: Vec<u32>,
    /// Queues of side 0. Side 1 has one.
    pub queues: u16,
    /// Frames per worker: fewer than xdpfwd's default, for a faster start.
    pub frames: u32,
    /// Additional lines of `[engine]`.
    pub engine: [String; 2],
    /// Additional lines of the stage `out` (`esp-seal`).
    pub seal: [String; 2],
    /// Additional lines of the stage `in` (`esp-open`).
    pub open: [String; 2],
    /// Additional lines of each outbound SA.
    pub seal_sa: [String; 2],
    /// Additional lines of each inbound SA.
    pub open_sa: [String; 2],
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            transform: "aes-128-gcm",
            transport: false,
            outer: OUTER_4,
            udp: false,
            esn: true,
            bypass: r#"["arp"]"#,
            outbound: vec![1],
            inbound: vec![1],
            queues: 1,
            frames: 4096,
            engine: Default::default(),
            seal: Default::default(),
            open: Default::default(),
            seal_sa: Default::default(),
            open_sa: Default::default(),
        }
    }
}

/// Returns the SPI of an SA with which `side` encapsulates. `generation` numbers these SAs, from 1.
/// Rekeying replaces an SA by the next one.
pub fn spi(side: usize, generation: u32) -> u32 {
    [0x1000, 0x2000][side] + generation
}

impl Setup {
    pub fn config(&self, lab: &Lab, side: usize) -> String {
        let state = lab.state_file(side);
        let Self { bypass, .. } = self;
        let stage_table = |name: &str, kind: &str, lines: &str| {
            format!(
                "[stage.{name}]\nkind = \"{kind}\"\nlab = true\n\
                 state_file = {state:?}\nbypass = {bypass}\n{lines}\n"
            )
        };
        let outbound_sas = self.outbound.iter().map(|&generation| {
            let (source, destination) = (self.outer[side], self.outer[1 - side]);
            let outer = if self.transport {
                String::new()
            } else {
                format!("source = {source:?}\ndestination = {destination:?}\n")
            };
            let udp = if self.udp { "udp_ports = [4500, 4500]\n" } else { "" };
            self.sa(lab, "out", spi(side, generation)) + &outer + udp + &self.seal_sa[side] + "\n"
        });
        let inbound_sas = self.inbound.iter().map(|&generation| {
            let outer = if self.transport {
                String::new()
            } else {
                format!("destination = {:?}\n", self.outer[side])
            };
            let udp = if self.udp { "udp_port = 4500\n" } else { "" };
            self.sa(lab, "in", spi(1 - side, generation))
                + &outer
                + udp
                + &self.open_sa[side]
                + "\n"
        });
        let [lan, wan] = [["fwd0", "wan0"], ["fwd1", "wan1"]][side];
        let queues = if side == 0 { self.queues } else { 1 };
        format!(
            "[umem]\nframes = {}\n[engine]\n{}\n\
             [[port]]\nname = \"lan\"\ninterface = \"{lan}\"\nqueues = {queues}\n\
             [[port]]\nname = \"wan\"\ninterface = \"{wan}\"\nqueues = {queues}\n\
             [[path]]\nfrom = \"lan\"\nto = \"wan\"\nstages = [\"out\"]\n\
             [[path]]\nfrom = \"wan\"\nto = \"lan\"\nstages = [\"in\"]\n{}{}{}{}",
            self.frames,
            self.engine[side],
            stage_table("out", "esp-seal", &self.seal[side]),
            outbound_sas.collect::<String>(),
            stage_table("in", "esp-open", &self.open[side]),
            inbound_sas.collect::<String>(),
        )
    }

    fn sa(&self, lab: &Lab, stage: &str, spi: u32) -> String {
        let mode = if self.transport { "transport" } else { "tunnel" };
        let Self { transform, esn, .. } = self;
        let key = lab.key_file(spi, transform);
        format!(
            "[[stage.{stage}.sa]]\nspi = {spi}\ntransform = {transform:?}\n\
             key_file = {key:?}\nmode = {mode:?}\nesn = {esn}\n"
        )
    }
}
