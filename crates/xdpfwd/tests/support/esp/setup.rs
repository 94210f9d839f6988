//! The configuration of both sides.

use super::lab::Lab;

/// The gateways' outer addresses. No interface has them: Ethernet addresses stay unchanged.
pub const OUTER_4: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
pub const OUTER_6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];

/// The configuration of both sides. Each side encapsulates with the first SA of `sealing`, and
/// decapsulates with all SAs of `opening`.
#[derive(Clone, Debug)]
pub struct Setup {
    pub transform: &'static str,
    pub transport: bool,
    /// Outer addresses in tunnel mode.
    pub outer: [&'static str; 2],
    pub udp: bool,
    pub esn: bool,
    pub bypass: &'static str,
    /// Generations of the SAs in each direction, see [`spi`].
    pub sealing: Vec<u32>,
    pub opening: Vec<u32>,
    pub queues: u16,
    /// Frames per worker; fewer start faster.
    pub frames: u32,
    /// Additional lines of `[engine]`, the stages and their SAs, for each side.
    pub engine: [String; 2],
    pub seal: [String; 2],
    pub open: [String; 2],
    pub seal_sa: [String; 2],
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
            sealing: vec![1],
            opening: vec![1],
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

/// Returns the SPI of a side's outbound SA, by generation.
pub fn spi(side: usize, generation: u32) -> u32 {
    [0x1000, 0x2000][side] + generation
}

impl Setup {
    /// Returns the configuration of one side.
    pub fn config(&self, lab: &Lab, side: usize) -> String {
        let state = lab.state_file(side);
        let Self { bypass, .. } = self;
        let stages = |name: &str, kind: &str, lines: &str| {
            format!(
                "[stage.{name}]\nkind = \"{kind}\"\nlab = true\n\
                 state_file = {state:?}\nbypass = {bypass}\n{lines}\n"
            )
        };
        let outbound = self.sealing.iter().map(|&generation| {
            let (own, peer) = (self.outer[side], self.outer[1 - side]);
            let outer = if self.transport {
                String::new()
            } else {
                format!("source = {own:?}\ndestination = {peer:?}\n")
            };
            let udp = if self.udp { "udp_ports = [4500, 4500]\n" } else { "" };
            self.sa(lab, "out", spi(side, generation)) + &outer + udp + &self.seal_sa[side] + "\n"
        });
        let inbound = self.opening.iter().map(|&generation| {
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
            stages("out", "esp-seal", &self.seal[side]),
            outbound.collect::<String>(),
            stages("in", "esp-open", &self.open[side]),
            inbound.collect::<String>(),
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
