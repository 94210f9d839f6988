//! The kernel's router, with nftables as filter and XFRM for ESP.

use std::{fmt::Write as _, fs, io::Read as _};

use anyhow::{Context as _, anyhow};
use xdpfwd_bench::results;
use xdpfwd_lab::Namespace;

use super::{kernel, nftables};
use crate::{
    forwarders::{Environment, ForwarderKind},
    matrix::{
        columns::Column,
        rows::row::{ConfiguredPath, Row},
    },
    obstacle::Obstacle,
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
    ) -> Result<Box<dyn ConfiguredPath>, Obstacle> {
        kernel::check_stages(column, nftables::NO_SEARCH)?;
        let kind = ForwarderKind::IpForward;
        let forwarder = kind.prepare(environment, 1).map_err(Obstacle::NotInstalled)?;
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

/// Encapsulates all packets, with the outer destination of a neighbor of fwd1.
const POLICY: &str = "ip xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir out \
                      tmpl src 10.78.0.254 dst 10.78.0.2 proto esp reqid 1 mode tunnel";

/// Returns the command that adds a security association with a random key.
fn xfrm_state(transform: &str) -> Result<String, Obstacle> {
    // Key and salt.
    let (name, bytes) = match transform {
        "aes-128-gcm" => ("rfc4106(gcm(aes))", 16 + 4),
        "aes-256-gcm" => ("rfc4106(gcm(aes))", 32 + 4),
        "chacha20-poly1305" => ("rfc7539esp(chacha20,poly1305)", 32 + 4),
        _ => return Err(anyhow!("XFRM: unknown transform {transform}").into()),
    };
    let mut key = vec![0; bytes];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut key));
    read.context("cannot read /dev/urandom")?;
    let key = key.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    Ok(format!(
        "ip xfrm state add src 10.78.0.254 dst 10.78.0.2 proto esp spi 0x1001 reqid 1 \
         mode tunnel aead '{name}' 0x{key} 128"
    ))
}

/// Tries in a new namespace whether the kernel accepts a security association.
fn check_esp(state: &str) -> Result<(), Obstacle> {
    let namespace = Namespace::create("esp").context("cannot try ESP")?;
    let attempt = |command: &str| -> Result<Option<String>, Obstacle> {
        let output = namespace.command("sh").args(["-ec", command]).output();
        let output = output.context("cannot start sh")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => Ok(None),
            Some(COMMAND_NOT_FOUND) => {
                let reason = "ip is not installed; run: apt-get install iproute2";
                Err(Obstacle::NotInstalled(reason.into()))
            }
            _ => Ok(Some(stderr.lines().next().unwrap_or("no message").to_owned())),
        }
    };
    let Some(message) = attempt(state)? else { return Ok(()) };
    let reason = match attempt(STATE_WITHOUT_CRYPTOGRAPHY)? {
        None => esp_reason(&message, true),
        Some(message) => esp_reason(&message, false),
    };
    Err(Obstacle::CannotExist(reason))
}

/// Returns why the kernel has no security association, from the message of `ip`.
fn esp_reason(message: &str, has_esp: bool) -> String {
    // ip opens a netlink socket for XFRM before it sends the association.
    if message.contains("netlink socket") {
        format!("this kernel has no XFRM (CONFIG_XFRM_USER; ip: {message})")
    } else if has_esp {
        format!("the kernel rejects the security association (ip: {message})")
    } else {
        format!("this kernel has no ESP (CONFIG_INET_ESP; ip: {message})")
    }
}

/// The exit code of a shell.
const COMMAND_NOT_FOUND: i32 = 127;

/// Distinguishes a kernel without ESP from a kernel without an algorithm.
const STATE_WITHOUT_CRYPTOGRAPHY: &str = "ip xfrm state add src 10.78.0.254 dst 10.78.0.2 \
     proto esp spi 0x1002 mode tunnel auth digest_null '' enc cipher_null ''";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn esp_reason_distinguishes_missing_parts_and_has_the_message() {
        let socket = "Cannot open netlink socket: Protocol not supported";
        let answer = "RTNETLINK answers: Protocol not supported";
        for (message, has_esp, expected) in [
            (socket, false, "no XFRM (CONFIG_XFRM_USER"),
            (answer, false, "no ESP (CONFIG_INET_ESP"),
            (answer, true, "rejects the security association"),
        ] {
            let reason = esp_reason(message, has_esp);
            assert!(reason.contains(expected) && reason.contains(message), "{reason}");
        }
    }

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
