//! Types of ICMP messages.

use crate::ip::IpVersion;

/// Types of ICMP messages over IPv4 (RFC 792).
pub mod v4 {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const DESTINATION_UNREACHABLE: u8 = 3;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Router advertisement (RFC 1256).
    pub const ROUTER_ADVERTISEMENT: u8 = 9;
    /// Router solicitation (RFC 1256).
    pub const ROUTER_SOLICITATION: u8 = 10;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// Timestamp request.
    pub const TIMESTAMP_REQUEST: u8 = 13;
    /// Timestamp reply.
    pub const TIMESTAMP_REPLY: u8 = 14;
}

/// Types of ICMPv6 messages (RFC 4443).
pub mod v6 {
    /// Destination unreachable.
    pub const DESTINATION_UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Multicast listener query (RFC 2710).
    pub const LISTENER_QUERY: u8 = 130;
    /// Multicast listener report (RFC 2710).
    pub const LISTENER_REPORT: u8 = 131;
    /// Multicast listener done (RFC 2710).
    pub const LISTENER_DONE: u8 = 132;
    /// Router solicitation (RFC 4861).
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement (RFC 4861).
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbor solicitation (RFC 4861).
    pub const NEIGHBOR_SOLICITATION: u8 = 135;
    /// Neighbor advertisement (RFC 4861).
    pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;
    /// Redirect (RFC 4861).
    pub const REDIRECT: u8 = 137;
    /// Multicast listener report, version 2 (RFC 3810).
    pub const LISTENER_REPORT_V2: u8 = 143;
}

/// Returns the name of a message type, such as `"echo request"`, if [`v4`] or [`v6`] lists it.
pub const fn kind_name(version: IpVersion, kind: u8) -> Option<&'static str> {
    Some(match (version, kind) {
        (IpVersion::V4, v4::ECHO_REPLY) | (IpVersion::V6, v6::ECHO_REPLY) => "echo reply",
        (IpVersion::V4, v4::ECHO_REQUEST) | (IpVersion::V6, v6::ECHO_REQUEST) => "echo request",
        (IpVersion::V4, v4::DESTINATION_UNREACHABLE)
        | (IpVersion::V6, v6::DESTINATION_UNREACHABLE) => "destination unreachable",
        (IpVersion::V4, v4::REDIRECT) | (IpVersion::V6, v6::REDIRECT) => "redirect",
        (IpVersion::V4, v4::ROUTER_ADVERTISEMENT) | (IpVersion::V6, v6::ROUTER_ADVERTISEMENT) => {
            "router advertisement"
        }
        (IpVersion::V4, v4::ROUTER_SOLICITATION) | (IpVersion::V6, v6::ROUTER_SOLICITATION) => {
            "router solicitation"
        }
        (IpVersion::V4, v4::TIME_EXCEEDED) | (IpVersion::V6, v6::TIME_EXCEEDED) => "time exceeded",
        (IpVersion::V4, v4::PARAMETER_PROBLEM) | (IpVersion::V6, v6::PARAMETER_PROBLEM) => {
            "parameter problem"
        }
        (IpVersion::V4, v4::TIMESTAMP_REQUEST) => "timestamp request",
        (IpVersion::V4, v4::TIMESTAMP_REPLY) => "timestamp reply",
        (IpVersion::V6, v6::PACKET_TOO_BIG) => "packet too big",
        (IpVersion::V6, v6::LISTENER_QUERY) => "multicast listener query",
        (IpVersion::V6, v6::LISTENER_REPORT) => "multicast listener report",
        (IpVersion::V6, v6::LISTENER_DONE) => "multicast listener done",
        (IpVersion::V6, v6::NEIGHBOR_SOLICITATION) => "neighbor solicitation",
        (IpVersion::V6, v6::NEIGHBOR_ADVERTISEMENT) => "neighbor advertisement",
        (IpVersion::V6, v6::LISTENER_REPORT_V2) => "multicast listener report v2",
        _ => return None,
    })
}
