//! Test cases: transform, IP versions, mode and further options of xdpfwd and Linux.

#[derive(Clone, Copy, Debug)]
pub(crate) struct Transform {
    pub(crate) name: &'static str,
    pub(crate) linux_name: &'static str,
    /// Length of key and salt together, in bytes.
    pub(crate) key_len: usize,
}

pub(crate) const AES_128: Transform =
    Transform { name: "aes-128-gcm", linux_name: "rfc4106(gcm(aes))", key_len: 20 };
pub(crate) const AES_256: Transform =
    Transform { name: "aes-256-gcm", linux_name: "rfc4106(gcm(aes))", key_len: 36 };
pub(crate) const CHACHA20: Transform = Transform {
    name: "chacha20-poly1305",
    linux_name: "rfc7539esp(chacha20,poly1305)",
    key_len: 36,
};
pub(crate) const GMAC_128: Transform =
    Transform { name: "null-aes-128-gmac", linux_name: "rfc4543(gcm(aes))", key_len: 20 };
pub(crate) const GMAC_256: Transform =
    Transform { name: "null-aes-256-gmac", linux_name: "rfc4543(gcm(aes))", key_len: 36 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V6,
}

use Version::{V4, V6};

impl Version {
    pub(crate) fn host_addresses(self) -> [&'static str; 2] {
        match self {
            V4 => ["10.77.0.1", "10.77.0.2"],
            V6 => ["fd77::1", "fd77::2"],
        }
    }

    /// Returns the addresses of xdpfwd's and of Linux's endpoint.
    pub(crate) fn tunnel_addresses(self) -> [&'static str; 2] {
        match self {
            V4 => ["192.0.2.1", "192.0.2.2"],
            V6 => ["fd02::1", "fd02::2"],
        }
    }

    pub(crate) fn header_len(self) -> usize {
        match self {
            V4 => 20,
            V6 => 40,
        }
    }
}

/// The configuration of ESP in xdpfwd and Linux.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) transform: Transform,
    /// IP version of the hosts.
    pub(crate) inner: Version,
    /// IP version of the tunnel endpoints; `None` for transport mode.
    pub(crate) outer: Option<Version>,
    /// Whether the SAs use extended sequence numbers.
    pub(crate) esn: bool,
    /// Whether ESP is encapsulated in UDP.
    pub(crate) udp: bool,
    /// Additional lines of the SA of esp-seal.
    pub(crate) seal: String,
    /// Additional lines of the SA of esp-open.
    pub(crate) open: String,
    /// Additional `ip xfrm state` arguments for Linux's inbound SA.
    pub(crate) linux_in: String,
    /// Additional `ip xfrm state` arguments for Linux's outbound SA.
    pub(crate) linux_out: String,
}

impl Case {
    pub(crate) fn new(transform: Transform, inner: Version, outer: Option<Version>) -> Self {
        Self {
            transform,
            inner,
            outer,
            esn: true,
            udp: false,
            seal: String::new(),
            open: String::new(),
            linux_in: String::new(),
            linux_out: String::new(),
        }
    }

    /// Creates a case with IPv4 in IPv4, AES-128 and extended sequence numbers.
    pub(crate) fn ipv4_tunnel() -> Self {
        Self::new(AES_128, V4, Some(V4))
    }

    pub(crate) fn without_esn(self) -> Self {
        Self { esn: false, ..self }
    }

    pub(crate) fn in_udp(self) -> Self {
        Self { udp: true, ..self }
    }

    pub(crate) fn name(&self) -> String {
        let mode = match self.outer {
            Some(outer) => format!("{:?} in {outer:?}", self.inner),
            None => format!("transport {:?}", self.inner),
        };
        let esn = if self.esn { "ESN" } else { "no ESN" };
        let udp = if self.udp { ", in UDP" } else { "" };
        format!("{}, {mode}, {esn}{udp}", self.transform.name)
    }

    /// Returns inner and outer IP version, which are equal in transport mode.
    pub(crate) fn versions(&self) -> [Version; 2] {
        [self.inner, self.outer.unwrap_or(self.inner)]
    }

    pub(crate) fn has_ipv6(&self) -> bool {
        self.versions().contains(&V6)
    }

    /// Returns the length of the longest IP packet that fits into 1500 bytes after encapsulation.
    /// (The bytes between IV and ICV are a multiple of four. The last two are the trailer.)
    pub(crate) fn max_packet_len(&self) -> usize {
        const ESP_HEADER_LEN: usize = 8;
        const IV_LEN: usize = 8;
        const ICV_LEN: usize = 16;
        let [inner, outer] = self.versions().map(Version::header_len);
        let udp = if self.udp { 8 } else { 0 };
        let protected = (1500 - outer - udp - ESP_HEADER_LEN - IV_LEN - ICV_LEN) / 4 * 4 - 2;
        if self.outer.is_some() { protected } else { inner + protected }
    }
}
