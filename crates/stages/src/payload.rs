//! `payload`: accepts or drops packets by byte patterns in their payload.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use xdpfwd_filter::{Hits, Key, Rule, Scanner, Signature, Verdict};

use super::filter::modifiers::{Limits, Modifiers};
use super::filter::source::{ConfiguredVerdict, Lines, Source};
use super::filter::{Inspection, inspect, rules as rules_table};
use xdpfwd_pipeline::{
    BuildCx, Cx, Inspectable, PlanCx, PlanError, Reason, Stage, StageConfig, StagePlan, Table,
    Verdicts, View,
};
use xdpfwd_wire::{Fragment, Headers, IpProtocol, tcp, udp};

/// The table of `kind = "payload"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PayloadConfig {
    signatures: Source,
    default: Option<ConfiguredVerdict>,
}

#[derive(Debug)]
struct CompiledSignatures {
    /// The signature file, if there is one.
    file: Option<PathBuf>,
    signatures: Vec<Signature>,
    scanner: Scanner,
    /// For packets without a match, or with only matches of `continue` signatures, which give no
    /// verdict.
    default: Verdict,
    limits: Limits,
}

#[derive(Debug)]
struct PayloadPlan(Arc<CompiledSignatures>);

/// The payload stage of one worker.
///
/// Searches the payload of UDP, TCP and SCTP, and all bytes after the IP headers of other
/// protocols. A pattern that is split over two packets is not found.
pub struct Payload {
    compiled: Arc<CompiledSignatures>,
    modifiers: Modifiers,
    /// The scanner's memory, reused for each packet.
    scan_results: Hits,
    /// Packets that each signature matched.
    matched: Vec<u64>,
    defaulted: u64,
    scanned: u64,
    /// Packets without a readable payload: the counter `unread`.
    unreadable: u64,
}

impl StageConfig for PayloadConfig {
    const KIND: &'static str = "payload";

    fn plan(self, cx: &PlanCx<'_>) -> Result<Arc<dyn StagePlan>, PlanError> {
        let read = self.signatures.read(
            "signatures",
            cx,
            xdpfwd_filter::parse_signature,
            xdpfwd_filter::parse_signatures,
        )?;
        let Lines { file, lines: signatures, .. } = read;
        let random_seed = RandomState::new().hash_one(0_u64);
        let scanner = Scanner::new(&signatures, random_seed).map_err(|error| {
            PlanError::new(format!("cannot compile {} signatures: {error}", signatures.len()))
        })?;
        let limits = Limits::new(rules(&signatures), cx.workers)?;
        let default = self.default.map_or(Verdict::Accept, Verdict::from);
        let compiled = CompiledSignatures { file, signatures, scanner, default, limits };
        Ok(Arc::new(PayloadPlan(Arc::new(compiled))))
    }
}

/// Returns the rule of each signature: its conditions besides the pattern, and its action.
fn rules(signatures: &[Signature]) -> impl Iterator<Item = &Rule> + Clone {
    signatures.iter().map(|signature| &signature.rule)
}

impl StagePlan for PayloadPlan {
    fn build(&self, _: &BuildCx<'_>) -> Box<dyn Stage> {
        let compiled = Arc::clone(&self.0);
        Box::new(Payload {
            modifiers: Modifiers::new(rules(&compiled.signatures), &compiled.limits),
            scan_results: compiled.scanner.hits(),
            matched: vec![0; compiled.signatures.len()],
            defaulted: 0,
            scanned: 0,
            unreadable: 0,
            compiled,
        })
    }

    fn summary(&self) -> String {
        let CompiledSignatures { signatures, scanner, default, .. } = &*self.0;
        let default = if *default == Verdict::Accept { "accept" } else { "drop" };
        format!(
            "{} signatures, compiled to {} KiB; default {default}",
            signatures.len(),
            scanner.memory().div_ceil(1024)
        )
    }

    fn needs_vlan_tags(&self) -> bool {
        rules(&self.0.signatures).any(|rule| rule.matches.compares_vlans())
    }

    fn files(&self) -> Vec<PathBuf> {
        self.0.file.iter().cloned().collect()
    }

    fn verdicts(&self) -> Verdicts {
        let CompiledSignatures { signatures, default, .. } = &*self.0;
        let signatures: Vec<String> = signatures.iter().map(ToString::to_string).collect();
        // Plans with the same text drop the same packets.
        Verdicts::Key(format!("{default:?}\n{}", signatures.join("\n")))
    }

    fn as_inspectable(&self) -> Option<&dyn Inspectable> {
        Some(self)
    }
}

impl Inspectable for PayloadPlan {
    fn counter_keys(&self) -> Vec<String> {
        rules_table::counter_keys(&self.0.signatures)
    }

    fn tables(&self, counters: &[u64]) -> Vec<Table> {
        vec![rules_table::table(&self.0.signatures, counters)]
    }
}

impl Payload {
    /// Returns the drop reason, if any. The time `now` is in clock cycles.
    fn decide(&mut self, frame: &[u8], headers: &Headers, now: u64) -> Option<Reason> {
        let compiled = &*self.compiled;
        let default_drop = (compiled.default == Verdict::Drop).then_some(Reason::SIGNATURE);
        // A key has the fields that rules match. Of the packet exceptions (packets that can mislead
        // a filter), only three kinds have a key: packets with IPv4 options or with a routing
        // header, and later fragments.
        let (Inspection::Key(key) | Inspection::Exception(_, Some(key))) = inspect(frame, headers)
        else {
            self.unreadable += 1;
            self.defaulted += 1;
            return default_drop;
        };
        let Some(payload) = payload(frame, headers, &key) else {
            self.unreadable += 1;
            self.defaulted += 1;
            return default_drop;
        };
        self.scanned += 1;
        for index in compiled.scanner.scan(&key, payload, &mut self.scan_results) {
            let rule = &compiled.signatures[index as usize].rule;
            self.matched[index as usize] += 1;
            // Logs every n-th packet of a signature with `log 1/n`.
            self.modifiers.sample(index, rule, self.matched[index as usize], &key, frame.len());
            if !self.modifiers.passes(index, &key, frame.len(), now) {
                return Some(Reason::RATE_LIMIT);
            }
            match rule.verdict {
                Some(Verdict::Accept) => return None,
                Some(Verdict::Drop) => return Some(Reason::SIGNATURE),
                None => {}
            }
        }
        self.defaulted += 1;
        default_drop
    }
}

/// Returns the payload of the upper protocol.
///
/// Returns `None` if the upper header is truncated or malformed, and for a later fragment: its
/// offset in the payload depends on the length of the upper header, which is in the first fragment.
fn payload<'f>(frame: &'f [u8], headers: &Headers, key: &Key) -> Option<&'f [u8]> {
    const SCTP_HEADER: usize = 12;
    if headers.fragment == Fragment::Later {
        return None;
    }
    let l4 = headers.l4(frame);
    let (header, end) = match IpProtocol(key.protocol) {
        IpProtocol::TCP => (tcp::Packet::new_checked(l4).ok()?.header_len(), l4.len()),
        // Receivers ignore bytes beyond the UDP length. In a first fragment, the UDP length
        // includes the later fragments, so it can exceed the bytes present.
        IpProtocol::UDP => {
            let length = u16::from_be_bytes([*l4.get(4)?, *l4.get(5)?]);
            (udp::HEADER_LEN, l4.len().min(length.into()))
        }
        IpProtocol::SCTP => (SCTP_HEADER, l4.len()),
        _ => (0, l4.len()),
    };
    l4.get(header..end)
}

impl Stage for Payload {
    fn process(&mut self, view: &mut View<'_>, cx: &mut Cx<'_>) {
        for mut packet in view.packets() {
            if let Some(reason) = self.decide(packet.frame, &packet.meta.headers, cx.now()) {
                packet.drop(reason);
            }
        }
    }

    fn row_counters(&self) -> Vec<u64> {
        rules_table::row_counters(&self.matched, self.defaulted)
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let matched = self.matched.iter().sum();
        let log_lost = self.modifiers.log_lost();
        vec![
            ("scanned", self.scanned),
            ("matched", matched),
            ("unread", self.unreadable),
            ("log_lost", log_lost),
        ]
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("matched", &self.matched).finish_non_exhaustive()
    }
}
