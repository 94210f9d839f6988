//! Opens packets that scapy sealed, and lets scapy open packets that this crate sealed: transport
//! mode over IPv4 and IPv6, sequence numbers of 32 and 64 bits.

use std::io::Write as _;
use std::process::{Command, Stdio};

use xdpfwd_ipsec::{
    Aead, AwsLc, HEADER_LEN, Incoming, Outgoing, PREFIX_LEN, Protection, RustCrypto, SALT_LEN,
    Transform, Window, trailer_len,
};

/// Runs `esp_by_scapy.py`, which describes its modes and the format of its lines.
///
/// Debian installs scapy for /usr/bin/python3; the first `python3` in PATH may be another one.
fn run_scapy(mode: &str, input: &str) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/esp_by_scapy.py");
    let mut command = Command::new("/usr/bin/python3");
    command
        .args([script, mode])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .expect("cannot run /usr/bin/python3; `make test-deps` installs python3 and scapy");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn transform(name: &str) -> Transform {
    name.parse().unwrap()
}

fn backends(transform: Transform, key: &[u8]) -> Vec<Box<dyn Aead>> {
    vec![
        Box::new(AwsLc::new(transform, key).unwrap()),
        Box::new(RustCrypto::new(transform, key).unwrap()),
        #[cfg(feature = "ipsec-mb")]
        Box::new(xdpfwd_ipsec::IpsecMb::new(transform, key).unwrap()),
    ]
}

/// Returns the length of the IP header, and the offset of its protocol (or next header) field, in
/// bytes.
fn ip_header(packet: &[u8]) -> (usize, usize) {
    if packet[0] >> 4 == 4 { (20, 9) } else { (40, 6) }
}

#[test]
fn esp_interoperates_with_scapy_in_both_directions() {
    let lines = run_scapy("seal", "");
    let (mut opened, mut sealed) = (0, String::new());
    for line in lines.lines() {
        let [name, key, salt, spi, extended, high, low, packet, inner] =
            line.split(' ').collect::<Vec<_>>()[..]
        else {
            panic!("{line}")
        };
        let (transform, key, salt) =
            (transform(name), unhex(key), unhex(salt).first_chunk::<SALT_LEN>().copied().unwrap());
        let (extended, spi): (bool, u32) = (extended == "1", spi.parse().unwrap());
        let number = high.parse::<u64>().unwrap() << 32 | low.parse::<u64>().unwrap();
        let (packet, inner) = (unhex(packet), unhex(inner));
        let (header_len, protocol_at) = ip_header(&packet);
        for aead in backends(transform, &key) {
            let protection = Protection::new(aead, transform, salt, spi, extended);
            let mut window = Window::new(64, extended).unwrap();
            if number > 64 {
                window.mark_received(number - 1).unwrap();
            }
            let mut bytes = packet[header_len - PREFIX_LEN..].to_vec();
            let mut incoming = [Incoming::new(&mut bytes)];
            protection.open_batch(&mut window, &mut incoming);
            let outcome =
                incoming[0].outcome.clone().unwrap_or_else(|error| panic!("{error}: {line}"));
            assert_eq!(
                (outcome.number, outcome.next_header),
                (number, inner[protocol_at]),
                "{line}"
            );
            assert_eq!(&bytes[outcome.payload], &inner[header_len..], "{line}");
            opened += 1;

            // Seal the same content. At the end of the test, scapy opens all sealed packets.
            let payload = &inner[header_len..];
            let mut bytes = [
                &inner[header_len - PREFIX_LEN..header_len],
                &[0; HEADER_LEN],
                payload,
                &vec![0; trailer_len(payload.len())],
            ]
            .concat();
            let next_header = inner[protocol_at];
            let mut outgoing = [Outgoing {
                bytes: &mut bytes,
                payload: payload.len(),
                next_header,
                number,
                iv: number ^ 0x55,
            }];
            assert_eq!(protection.seal_batch(&mut outgoing), 1);
            let mut ip = inner[..header_len].to_vec();
            ip[protocol_at] = 50; // ESP
            let esp = &bytes[PREFIX_LEN..];
            if header_len == 20 {
                ip[2..4].copy_from_slice(&((header_len + esp.len()) as u16).to_be_bytes());
            } else {
                ip[4..6].copy_from_slice(&(esp.len() as u16).to_be_bytes());
            }
            let (key, salt, high) = (hex(&key), hex(&salt), number >> 32);
            sealed += &format!(
                "{name} {key} {salt} {spi} {} {high} {low} {}{} {}\n",
                u8::from(extended),
                hex(&ip),
                hex(esp),
                hex(&inner)
            );
        }
    }
    // Backends, transforms, sequence numbers, IP versions, payload sizes.
    assert_eq!(opened, (2 + usize::from(cfg!(feature = "ipsec-mb"))) * 3 * 4 * 2 * 5);
    assert_eq!(run_scapy("open", &sealed).trim(), opened.to_string());
}
