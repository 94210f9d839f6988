//! Explains the figures for the measured setup: the lab's veth pairs, or network
//! interfaces (`xdpfwd-bench nic`).

use xdpfwd_ipsec::{HEADER_LEN, trailer_len};

use super::columns;
use super::data::Data;
use super::format::{integer, percent};

const ETHERNET_HEADER: usize = 14;
const IPV4_HEADER: usize = 20;

const WINDOWS: &str = "Mpps are packets per second that arrive at the sink while the generator \
    sends as fast as it can. Cycles are from a second window, in which the generator sends \
    slightly more than the path forwards.";

/// Returns whether network interfaces were measured instead of the lab's veth pairs.
pub(super) fn is_nic(data: &Data) -> bool {
    data.results.nic.is_some()
}

/// Returns which cycles the figures contain.
pub(super) fn cycles(data: &Data) -> &'static str {
    if is_nic(data) {
        "Cycles are those of the forwarder's cores per forwarded packet."
    } else {
        "Cycles are those of all cores per forwarded packet, without the far end of the virtual \
         cable."
    }
}

/// Returns how rates and cycles relate, in sentences: their windows, and the cores that work.
pub(super) fn rates_and_cycles(data: &Data) -> String {
    if let Some(nic) = &data.results.nic {
        let list =
            |cores: &[usize]| cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let forwarder = if nic.forwarder_cores.is_empty() {
            "Something else than this program configured the forwarder.".to_owned()
        } else {
            format!("The forwarder runs on the cores {}.", list(&nic.forwarder_cores))
        };
        return format!(
            "{WINDOWS} The generator runs on the cores {}. {forwarder}",
            list(&nic.generator_cores)
        );
    }
    let shares: Vec<f64> = data
        .measured()
        .filter_map(|cell| cell.cycles.as_ref())
        .map(|cycles| cycles.far_end.median / (cycles.total.median + cycles.far_end.median))
        .filter(|share| share.is_finite())
        .collect();
    let far_end = if shares.is_empty() {
        String::new()
    } else {
        format!(
            " ({} to {} of all cycles)",
            percent(shares.iter().copied().fold(f64::INFINITY, f64::min)),
            percent(shares.iter().copied().fold(0.0, f64::max))
        )
    };
    format!(
        "{WINDOWS} The forwarding core also runs the receive work of the sink, the far end of the \
         virtual cable{far_end}: it lowers the Mpps, but is not part of the cycles. More than one \
         core works on most paths: those with AF_XDP or packet sockets receive in softirqs on the \
         generator's core, and the kernel's bridge and ip_forward use both cores. Only \
         XDP_REDIRECT runs on the forwarding core alone."
    )
}

/// Returns the length of an Ethernet frame with an IPv4 packet after ESP encapsulation in tunnel
/// mode.
fn encapsulated(frame: usize) -> usize {
    let packet = frame.saturating_sub(ETHERNET_HEADER);
    ETHERNET_HEADER + IPV4_HEADER + HEADER_LEN + packet + trailer_len(packet)
}

/// Returns what line rates assume about the length of frames.
pub(super) fn direction(data: &Data) -> String {
    let mut text = "rates are of received frames, in one direction".to_owned();
    if columns::aes(data.columns()).is_some() && !data.sizes().is_empty() {
        let bytes = data.bytes(data.smallest_size());
        text += &format!(
            "; ESP makes a frame of {} bytes {} bytes long, so the outgoing link must be faster",
            integer(bytes),
            encapsulated(bytes as usize)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encapsulated_frame_has_outer_header_esp_header_padding_and_icv() {
        // 14 Ethernet, 20 IPv4, 8 SPI and number, 8 IV, 46 packet, 0 padding, 2 fields, 16 ICV.
        assert_eq!(encapsulated(60), 114);
        // One byte less needs one byte of padding; three bytes more need one as well.
        assert_eq!([59, 63, 64].map(encapsulated), [114, 118, 118]);
    }
}
