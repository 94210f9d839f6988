//! Random filter rules and packets. Both use the same few addresses, protocols and ports, so
//! packets often match.

use std::sync::Arc;

use xdpfwd_filter::{Fragment, Key, Rule, Verdict};
use xdpfwd_pipeline::{PlanCx, Reason, StagePlan};
use xdpfwd_stages::filter::{Inspection, Outcome, PacketException, inspect};
use xdpfwd_wire::Headers;

/// Returns the environment variable `FILTER_SEED`, or 20261121. Prints it, so that a failed test
/// can be repeated.
pub fn seed() -> u64 {
    let seed =
        std::env::var("FILTER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_121);
    println!("FILTER_SEED={seed}");
    seed
}

/// The random number generator splitmix64, by Vigna.
pub struct SplitMix64(u64);

impl SplitMix64 {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns 0 to `bound - 1`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.draw() % bound as u64) as usize
    }

    pub fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }

    pub fn choose<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// The rules and other settings of a filter stage.
#[derive(Debug)]
pub struct RuleSet {
    pub rules: Vec<Rule>,
    /// The rules as text, in the same order.
    pub rule_texts: Vec<String>,
    /// The verdict for packets that no rule matches: `accept` or `drop`.
    default: &'static str,
    /// The action for each packet exception (a packet that can mislead a filter), in the order of
    /// [`PacketException::WITH_KEY`]. `judge`: apply the rules.
    exception_actions: [&'static str; 7],
}

impl RuleSet {
    /// Draws random rules and settings. At most `max_continue` of the rules are `continue` rules,
    /// which have no verdict.
    pub fn draw(random: &mut SplitMix64, max_continue: usize) -> Self {
        let count = random.choose(&[1, 8, 9, 20, 60, 150, 300]);
        let rule_texts = (0..count).map(|_| rule(random)).collect();
        Self::from_rules(rule_texts, random, max_continue)
    }

    /// Creates a filter with these rules and random other settings. Turns `continue` rules after
    /// the first `max_continue` into `accept` rules.
    pub fn from_rules(
        mut rule_texts: Vec<String>,
        random: &mut SplitMix64,
        max_continue: usize,
    ) -> Self {
        for rule in
            rule_texts.iter_mut().filter(|rule| rule.starts_with("continue")).skip(max_continue)
        {
            *rule = rule.replace("continue", "accept");
        }
        let default = random.choose(&["accept", "drop"]);
        let rules = rule_texts
            .iter()
            .map(|line| xdpfwd_filter::parse_rule(line).unwrap().unwrap())
            .collect();
        let exception_actions = PacketException::WITH_KEY.map(|kind| match kind {
            PacketException::NotIp => random.choose(&["accept", "drop", "arp"]),
            PacketException::IpOptions
            | PacketException::RoutingHeader
            | PacketException::LaterFragment => {
                random.choose(&["judge", "judge", "judge", "drop", "accept"])
            }
            _ => random.choose(&["accept", "drop", "drop"]),
        });
        Self { rules, rule_texts, default, exception_actions }
    }

    /// Returns the plan (validated configuration) of the filter. `placement` is `user` or `kernel`.
    pub fn plan(&self, placement: &str) -> Arc<dyn StagePlan> {
        let Self { rule_texts, default, .. } = self;
        let exception_actions: String = PacketException::WITH_KEY
            .iter()
            .zip(self.exception_actions)
            .map(|(exception, action)| format!(", {} = {action:?}", exception.key()))
            .collect();
        let table = format!(
            "{{ default = \"{default}\", rules = {rule_texts:?}, \
             place = \"{placement}\"{exception_actions} }}"
        );
        let workers = 1;
        let cx = PlanCx::new(std::path::Path::new("."), workers);
        crate::plan("filter", &table, &cx)
            .unwrap_or_else(|error| panic!("{error}: {rule_texts:#?}"))
    }

    /// Returns the outcome that docs/filter.md describes, by comparing the packet with one rule
    /// after the other.
    pub fn linear_outcome(&self, frame: &[u8]) -> Outcome {
        match inspect(frame, &Headers::parse(frame)) {
            Inspection::Key(key) => self.linear_outcome_of_key(&key),
            Inspection::Exception(exception, key) => {
                let action = |exception: PacketException| {
                    let mut kinds = PacketException::WITH_KEY.iter();
                    let position = kinds.position(|kind| kind.key() == exception.key());
                    self.exception_actions[position.unwrap()]
                };
                let (exception, action) = match (action(exception), key) {
                    ("judge", Some(key)) => {
                        // The packet can also be a later fragment, with another action.
                        let fragments = PacketException::LaterFragment;
                        if key.fragment != Fragment::Later || action(fragments) == "judge" {
                            return self.linear_outcome_of_key(&key);
                        }
                        (fragments, action(fragments))
                    }
                    (action, _) => (exception, action),
                };
                let drop = match action {
                    "accept" => None,
                    "arp" if exception == PacketException::Arp => None,
                    _ => Some(exception.reason()),
                };
                Outcome { drop, rule: None, exception: Some(exception) }
            }
        }
    }

    fn linear_outcome_of_key(&self, key: &Key) -> Outcome {
        let drop_reason = |verdict| (verdict == Verdict::Drop).then_some(Reason::POLICY);
        for (number, rule) in (0..).zip(&self.rules) {
            match rule.verdict {
                Some(verdict) if rule.matches(key) => {
                    let (drop, rule) = (drop_reason(verdict), Some(number));
                    return Outcome { drop, rule, exception: None };
                }
                _ => {}
            }
        }
        Outcome {
            drop: drop_reason(if self.default == "accept" {
                Verdict::Accept
            } else {
                Verdict::Drop
            }),
            rule: None,
            exception: None,
        }
    }
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

const PROTOCOLS: [u8; 8] = [TCP, TCP, TCP, UDP, UDP, ICMP, ICMPV6, SCTP];

// IPv6 extension headers.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

const EXTENSIONS: [u8; 8] =
    [HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS, MOBILITY, HIP, SHIM6];
const PORTS: [u16; 10] = [0, 22, 53, 80, 443, 1023, 1024, 2048, 40000, 65535];
const LENGTHS_V4: [u8; 6] = [0, 8, 15, 24, 30, 32];
const LENGTHS_V6: [u8; 6] = [0, 16, 32, 61, 64, 128];

/// Returns a random address. An IPv4 address is in the first 4 bytes, before zeros.
fn address(random: &mut SplitMix64, is_v4: bool) -> [u8; 16] {
    let mut address = [0; 16];
    if is_v4 {
        let all = [
            [10, 0, 0, 1],
            [10, 0, 0, 2],
            [10, 0, 9, 1],
            [10, 200, 0, 1],
            [192, 0, 2, 1],
            [192, 0, 2, 130],
        ];
        address[..4].copy_from_slice(&random.choose(&all));
    } else {
        address[..4].copy_from_slice(&[0x20, 0x01, 0x0d, random.choose(&[0xb8, 0xb8, 0xb9])]);
        address[7] = random.choose(&[0, 7, 9]);
        address[15] = random.choose(&[1, 2]);
    }
    address
}

fn display_address(address: [u8; 16], is_v4: bool) -> String {
    if is_v4 {
        let [a, b, c, d, ..] = address;
        std::net::Ipv4Addr::new(a, b, c, d).to_string()
    } else {
        std::net::Ipv6Addr::from(address).to_string()
    }
}

fn mask(mut address: [u8; 16], length: u8) -> [u8; 16] {
    for bit in usize::from(length)..128 {
        address[bit / 8] &= !(0x80 >> (bit % 8));
    }
    address
}

fn rule(random: &mut SplitMix64) -> String {
    let mut rule = random.choose(&["accept", "drop", "accept", "drop", "continue"]).to_owned();
    let is_v4 = random.one_in(2);
    let mut add = |word: String| {
        rule.push(' ');
        rule.push_str(&word);
    };
    for keyword in ["src", "dst"] {
        if !random.one_in(3) {
            let length =
                if is_v4 { random.choose(&LENGTHS_V4) } else { random.choose(&LENGTHS_V6) };
            add(format!(
                "{keyword} {}/{length}",
                display_address(mask(address(random, is_v4), length), is_v4)
            ));
        }
    }
    if random.one_in(8) {
        add(if is_v4 { "ipv4" } else { "ipv6" }.to_owned());
    }
    let protocol =
        if random.one_in(8) { random.choose(&EXTENSIONS) } else { random.choose(&PROTOCOLS) };
    let has_protocol = !random.one_in(4);
    if has_protocol {
        add(format!("proto {protocol}"));
    }
    let is_later_fragment = random.one_in(20);
    if is_later_fragment {
        add("fragment later".to_owned());
    } else if random.one_in(20) {
        add(format!("fragment {}", random.choose(&["first", "any"])));
    }
    if !is_later_fragment && (!has_protocol || matches!(protocol, TCP | UDP | SCTP)) {
        for keyword in ["sport", "dport"] {
            if random.one_in(3) {
                let (a, b) = (random.choose(&PORTS), random.choose(&PORTS));
                add(if random.one_in(2) {
                    format!("{keyword} {a}")
                } else {
                    format!("{keyword} {}-{}", a.min(b), a.max(b))
                });
            }
        }
        if (!has_protocol || protocol == TCP) && random.one_in(5) {
            add(format!(
                "flags {}",
                random.choose(&["syn", "syn,!ack", "!syn,ack", "rst", "fin,psh,urg"])
            ));
        }
    }
    if !is_later_fragment && has_protocol && matches!(protocol, ICMP | ICMPV6) {
        if random.one_in(2) {
            add(format!("icmp-type {}", random.choose(&[0, 8, 128])));
        }
        if random.one_in(3) {
            add(format!("icmp-code {}", random.choose(&[0, 1])));
        }
    }
    if random.one_in(12) {
        add(format!("vlan {}", random.choose(&[5, 7])));
    }
    if random.one_in(16) {
        add(format!("inner-vlan {}", random.choose(&[5, 7])));
    }
    if random.one_in(12) {
        add(format!("dscp {}", random.choose(&[0, 46])));
    }
    rule
}

const TAG_TYPES: [[u8; 2]; 5] =
    [[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00], [0x92, 0x00], [0x93, 0x00]];

/// Returns a random packet, and whether it was mangled.
pub fn packet(random: &mut SplitMix64) -> (Vec<u8>, bool) {
    let is_v4 = random.one_in(2);
    let protocol = random.choose(&PROTOCOLS);
    let l4 = upper_layer(random, protocol);
    let l3 = if is_v4 { ipv4(random, protocol, &l4) } else { ipv6(random, protocol, &l4) };
    let mut packet = b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01".to_vec();
    let tags = random.choose(&[0, 0, 0, 0, 0, 1, 1, 2, 3]);
    for _ in 0..tags {
        packet.extend(random.choose(&TAG_TYPES));
        packet.extend([random.choose(&[0, 0xe0]), random.choose(&[0, 5, 6, 7])]);
    }
    match random.below(20) {
        // Not IP: PPPoE and MPLS, which contain the IP packet, and ARP.
        0 => {
            let length = (l3.len() as u16 + 2).to_be_bytes();
            packet.extend([0x88, 0x64, 0x11, 0, 0, 7, length[0], length[1]]);
            packet.extend(if is_v4 { [0, 0x21] } else { [0, 0x57] });
            packet.extend(l3);
        }
        1 => packet.extend([&[0x88, 0x47, 0, 1, 1, 64][..], &l3].concat()),
        2 => packet.extend(b"\x08\x06\0\x01\x08\0\x06\x04\0\x01\x02\0\0\0\0\x01\x0a\0\0\x01\0\0\0\0\0\0\x0a\0\0\x02"),
        _ => {
            packet.extend(if is_v4 { [8, 0] } else { [0x86, 0xdd] });
            packet.extend(l3);
        }
    }
    if packet.len() < 60 && random.one_in(2) {
        packet.resize(60, 0);
    }
    let is_mangled = random.one_in(4);
    if is_mangled {
        mangle(random, &mut packet);
    }
    (packet, is_mangled)
}

fn upper_layer(random: &mut SplitMix64, protocol: u8) -> Vec<u8> {
    let ports = [random.choose(&PORTS).to_be_bytes(), random.choose(&PORTS).to_be_bytes()].concat();
    match protocol {
        TCP => [
            &ports[..],
            &[0; 8],
            &[0x50, random.choose(&[0x02, 0x12, 0x10, 0x04, 0x29])],
            &[0; 6],
            b"data",
        ]
        .concat(),
        UDP => [&ports[..], &[0, 12, 0, 0], b"data"].concat(),
        SCTP => [&ports[..], &[0; 8], b"data"].concat(),
        _ => {
            [&[random.choose(&[0, 8, 128]), random.choose(&[0, 1]), 0, 0, 0, 0, 0, 0][..], b"data"]
                .concat()
        }
    }
}

fn ipv4(random: &mut SplitMix64, protocol: u8, l4: &[u8]) -> Vec<u8> {
    let options: &[u8] = if random.one_in(16) {
        random.choose(&[&[1, 1, 1, 0][..], &[148, 4, 0, 0], &[131, 7, 4, 10, 0, 0, 1, 0]])
    } else {
        &[]
    };
    let header = 20 + options.len();
    let total = ((header + l4.len()) as u16).to_be_bytes();
    let fragment =
        if random.one_in(8) { random.choose(&[[0x20, 0], [0x20, 5], [0, 5]]) } else { [0x40, 0] };
    let version = 0x40 | (header / 4) as u8;
    let fixed = [
        version,
        random.choose(&[0, 46 << 2, 1]),
        total[0],
        total[1],
        0,
        7,
        fragment[0],
        fragment[1],
        64,
        protocol,
        0,
        0,
    ];
    let (source, destination) = (address(random, true), address(random, true));
    [&fixed[..], &source[..4], &destination[..4], options, l4].concat()
}

fn ipv6(random: &mut SplitMix64, protocol: u8, l4: &[u8]) -> Vec<u8> {
    let count = random.choose(&[0, 0, 0, 0, 0, 1, 1, 2, 3, 8, 9]);
    let mut chain: Vec<(u8, Vec<u8>)> = Vec::new();
    for index in 0..count {
        let kind = if index == 0 {
            random.choose(&[0, 44, 60, 43, 51, 135])
        } else {
            random.choose(&[60, 60, 43, 44, 51, 139, 140])
        };
        chain.push((
            kind,
            match kind {
                FRAGMENT => {
                    [&[0, 0][..], &random.choose(&[[0, 1], [0, 0], [0, 8], [0, 9]]), &[0, 0, 0, 9]]
                        .concat()
                }
                51 => [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec(),
                43 => [0, 0, random.choose(&[0, 2, 4, 77]), random.choose(&[0, 0, 1, 255])]
                    .into_iter()
                    .chain([0; 4])
                    .collect(),
                _ => [0, 0, 1, 4, 0, 0, 0, 0].to_vec(),
            },
        ));
    }
    let mut kinds: Vec<u8> = chain.iter().map(|(kind, _)| *kind).collect();
    kinds.push(protocol);
    let mut extensions = Vec::new();
    for ((_, header), next) in chain.iter_mut().zip(&kinds[1..]) {
        header[0] = *next;
        extensions.extend_from_slice(header);
    }
    let length = ((extensions.len() + l4.len()) as u16).to_be_bytes();
    let version_and_class = random.choose(&[[0x60, 0], [0x6b, 0x80], [0x60, 0x10]]);
    let fixed =
        [version_and_class[0], version_and_class[1], 0, 0, length[0], length[1], kinds[0], 64];
    [&fixed[..], &address(random, false), &address(random, false), &extensions, l4].concat()
}

/// Makes one to three random changes: truncates, overwrites or extends the packet, or flips a bit.
fn mangle(random: &mut SplitMix64, packet: &mut Vec<u8>) {
    for _ in 0..1 + random.below(3) {
        let at = random.below(packet.len().max(1));
        match random.below(5) {
            0 => packet.truncate(at),
            1 if !packet.is_empty() => packet[at] = random.draw() as u8,
            // Overwrite a byte of a protocol, version, length or fragment field.
            2 if packet.len() > 40 => {
                let at = random.choose(&[12, 13, 14, 15, 16, 17, 18, 19, 20, 23, 26, 37]);
                packet[at] = random.choose(&[0, 1, 4, 0x45, 0x46, 0x60, 44, 59, 0xff]);
            }
            3 if !packet.is_empty() => packet[at] ^= 1 << random.below(8),
            _ => packet.extend((0..random.below(20)).map(|n| n as u8)),
        }
    }
}
