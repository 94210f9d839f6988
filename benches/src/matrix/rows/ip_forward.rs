//! The kernel's router, with nftables as filter and XFRM for ESP.

use std::{fmt::Write as _, fs, io::Read as _};

use xdpfwd_bench::results;
use xdpfwd_lab::Namespace;

use super::{kernel, nftables};
use crate::{
    forwarders::{Environment, ForwarderKind, MissingReason},
    matrix::{
        columns::Column,
        rows::row::{Prepared, Row},
    },
};

pub(super) struct IpForward;

impl Row for IpForward {
    fn describe(&self) -> results::Row {
        results::Row {
            name: "ip-forward".into(),
            title: "kernel ip_forward".into(),
            place: "kernel".into(),
            remark: format!(
                "In softirqs on the forwarding core, by RPS; the generator's core allocates \
                 socket buffers. Rewrites TTL, checksum and MAC addresses. {}",
                nftables::REMARK
            ),
            copies: vec![],
        }
    }

    fn prepare(
        &self,
        column: &'static Column,
        environment: &Environment,
    ) -> Result<Box<dyn Prepared>, MissingReason> {
        if let Some(reason) = kernel::needs_user_space(column) {
            return Err(reason);
        }
        let kind = ForwarderKind::IpForward;
        let forwarder = kind.prepare(environment, 1)?;
        let mut stages = vec![];
        if let Some((rules, _)) = column.filter() {
            stages.push(nftables::filter(environment, "ip", rules)?);
        }
        if let Some(transform) = column.transform() {
            let state = xfrm_state(transform)?;
            check_esp(&state)?;
            stages.extend([state, POLICY.into()]);
        }
        let encapsulates = column.transform().is_some();
        Ok(Box::new(kernel::PreparedKernel { kind, forwarder, stages, encapsulates }))
    }
}

/// Encapsulates all packets of the traffic, with the outer destination of a neighbor of fwd1.
const POLICY: &str = "ip xfrm policy add src 10.77.0.0/24 dst 10.78.0.0/24 dir out \
                      tmpl src 10.78.0.254 dst 10.78.0.2 proto esp reqid 1 mode tunnel";

/// Returns the command that adds a security association with a random key.
fn xfrm_state(transform: &str) -> Result<String, MissingReason> {
    // Key and salt.
    let (name, bytes) = match transform {
        "aes-128-gcm" => ("rfc4106(gcm(aes))", 16 + 4),
        "aes-256-gcm" => ("rfc4106(gcm(aes))", 32 + 4),
        "chacha20-poly1305" => ("rfc7539esp(chacha20,poly1305)", 32 + 4),
        _ => return Err(format!("XFRM: unknown transform {transform}")),
    };
    let mut key = vec![0; bytes];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut key));
    read.map_err(|error| format!("cannot read /dev/urandom: {error}"))?;
    let key = key.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    Ok(format!(
        "ip xfrm state add src 10.78.0.254 dst 10.78.0.2 proto esp spi 0x1001 reqid 1 \
         mode tunnel aead '{name}' 0x{key} 128"
    ))
}

/// Tries in a namespace of its own whether the kernel accepts a security association.
fn check_esp(state: &str) -> Result<(), MissingReason> {
    let namespace = Namespace::create("esp").map_err(|error| error.to_string())?;
    let attempt = |command: &str| -> Result<(), MissingReason> {
        let output = namespace.command("sh").args(["-ec", command]).output();
        let output = output.map_err(|error| format!("cannot start sh: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(stderr.lines().next().unwrap_or("no reason was printed").to_owned())
    };
    let Err(error) = attempt(state) else { return Ok(()) };
    if attempt(STATE_WITHOUT_CRYPTOGRAPHY).is_err() {
        return Err("this kernel has no ESP (CONFIG_INET_ESP)".into());
    }
    Err(format!("the kernel rejects the security association: {error}"))
}

/// Tells a kernel without ESP from a kernel without an algorithm.
const STATE_WITHOUT_CRYPTOGRAPHY: &str = "ip xfrm state add src 10.78.0.254 dst 10.78.0.2 proto esp spi 0x1002 mode tunnel \
     auth digest_null '' enc cipher_null ''";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xfrm_key_has_key_and_salt_and_differs_each_time() {
        let state = |transform| xfrm_state(transform).unwrap();
        let key = |text: String| text.split("0x").last().unwrap().split(' ').next().unwrap().len();
        assert_eq!(key(state("aes-128-gcm")), 2 * 20);
        assert_eq!(key(state("aes-256-gcm")), 2 * 36);
        assert_eq!(key(state("chacha20-poly1305")), 2 * 36);
        assert_ne!(state("aes-128-gcm"), state("aes-128-gcm"));
    }
}
