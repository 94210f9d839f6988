//! `payload`: accepts or drops packets by byte patterns in their payload.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use xdpfwd_filter::{Hits, Key, Rule, Scanner, Signature, Verdict};

use super::filter::modifiers::{Limits, Modifiers};
use super::filter::source::{Lines, Source, VerdictWord};
use super::filter::{Inspection, inspect, rules as rules_table};
use xdpfwd_pipeline::{
    BuildCx, Cx, Inspectable, PlanCx, PlanError, Reason, Stage, StageConfig, StagePlan, Table,
    Verdicts, View,
};
use xdpfwd_wire::{Fragment, Headers, IpProtocol, tcp, udp};

/// The keys of `kind = "payload"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PayloadConfig {
    signatures: Source,
    default: Option<VerdictWord>,
}

/// Compiled signatures, and the verdict on packets that no signature decides.
#[derive(Debug)]
struct Program {
    signatures: Vec<Signature>,
    scanner: Scanner,
    default: Verdict,
    limits: Limits,
}

#[derive(Debug)]
struct PayloadPlan(Arc<Program>);

/// The payload stage of one worker. Searches the payload of UDP, TCP or SCTP; with any other
/// protocol, the bytes after the IP header. Searches each packet separately: a pattern that is
/// split over two packets is not found.
pub struct Payload {
    program: Arc<Program>,
    modifiers: Modifiers,
    hits: Hits,
    /// For each signature, the number of packets that it matched.
    matched: Vec<u64>,
    /// Number of packets that no signature decided.
    defaulted: u64,
    /// Number of packets whose payload was searched.
    scanned: u64,
    /// Number of packets without a readable payload.
    unread: u64,
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
        let Lines { lines: signatures, .. } = read;
        let scanner = Scanner::new(&signatures).map_err(|error| {
            PlanError::new(format!("cannot compile {} signatures: {error}", signatures.len()))
        })?;
        let limits = Limits::new(rules(&signatures), cx.workers)?;
        let default = self.default.map_or(Verdict::Accept, Verdict::from);
        Ok(Arc::new(PayloadPlan(Arc::new(Program { signatures, scanner, default, limits }))))
    }
}

fn rules(signatures: &[Signature]) -> impl Iterator<Item = &Rule> + Clone {
    signatures.iter().map(|signature| &signature.rule)
}

impl StagePlan for PayloadPlan {
    fn build(&self, _: &BuildCx<'_>) -> Box<dyn Stage> {
        let program = Arc::clone(&self.0);
        Box::new(Payload {
            modifiers: Modifiers::new(rules(&program.signatures), &program.limits),
            hits: program.scanner.hits(),
            matched: vec![0; program.signatures.len()],
            defaulted: 0,
            scanned: 0,
            unread: 0,
            program,
        })
    }

    fn summary(&self) -> String {
        let Program { signatures, scanner, default, .. } = &*self.0;
        let default = if *default == Verdict::Accept { "accept" } else { "drop" };
        format!(
            "{} signatures, {} KiB; default {default}",
            signatures.len(),
            scanner.memory().div_ceil(1024)
        )
    }

    fn verdicts(&self) -> Verdicts {
        let Program { signatures, default, .. } = &*self.0;
        let signatures: Vec<String> = signatures.iter().map(ToString::to_string).collect();
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
    /// Returns the drop reason, or `None` if the packet passes.
    fn decide(&mut self, frame: &[u8], headers: &Headers, now: u64) -> Option<Reason> {
        let program = &*self.program;
        let default_drop = (program.default == Verdict::Drop).then_some(Reason::SIGNATURE);
        let (Inspection::Key(key) | Inspection::Exception(_, Some(key))) = inspect(frame, headers)
        else {
            self.unread += 1;
            self.defaulted += 1;
            return default_drop;
        };
        let Some(payload) = payload(frame, headers, &key) else {
            self.unread += 1;
            self.defaulted += 1;
            return default_drop;
        };
        self.scanned += 1;
        for &index in program.scanner.scan(payload, &mut self.hits) {
            let rule = &program.signatures[index as usize].rule;
            if !rule.matches(&key) {
                continue;
            }
            self.matched[index as usize] += 1;
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

/// Returns the payload of the upper protocol. Returns `None` for a later fragment, because its
/// offset in the payload is unknown, and if a header is truncated or malformed.
fn payload<'f>(frame: &'f [u8], headers: &Headers, key: &Key) -> Option<&'f [u8]> {
    const SCTP_HEADER: usize = 12;
    if headers.fragment == Fragment::Later {
        return None;
    }
    let l4 = headers.l4(frame);
    let (header, end) = match IpProtocol(key.protocol) {
        IpProtocol::TCP => (tcp::Packet::new_checked(l4).ok()?.header_len(), l4.len()),
        // Receivers ignore bytes beyond the UDP length. (In a first fragment, the UDP length is
        // that of the whole datagram.)
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
            ("unread", self.unread),
            ("log_lost", log_lost),
        ]
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").field("matched", &self.matched).finish_non_exhaustive()
    }
}
