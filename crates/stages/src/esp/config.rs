//! The configuration tables and the planning of `esp-seal` and `esp-open`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use serde::Deserialize;
use serde_spanned::Spanned;
use xdpfwd_ipsec::{Aead, Fingerprint, KeyLengthError, KeyMaterial, Protection, Transform, Window};

use super::advice;
use super::bypass::{Bypass, Endpoints};
use super::key_file;
use super::outer::OuterHeader;
use super::plan::{Open, Plan, Seal, Settings};
use super::reasons;
use super::sa::{Association, Inbound, Limits, Outbound};
use super::selector::Selector;
use super::spi::SpiTable;
use super::state::Direction;
use super::values::{
    Address, Amount, Backend, Bounded, Bypassed, Df, Dscp, Element, FileName, List, Mode, Prefix,
};
use crate::enum_names::one_of;
use xdpfwd_pipeline::{
    ExclusiveResource, Location, PlanCx, PlanDiagnostic, PlanError, StageConfig, StagePlan,
};
use xdpfwd_wire::icmp;

/// The table of `kind = "esp-seal"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EspSealConfig {
    lab: Option<Spanned<bool>>,
    state_file: FileName,
    sa: List<Spanned<OutboundTable>>,
    #[serde(default)]
    bypass: List<Bypassed>,
    mtu: Option<Bounded<576, 9216>>,
    #[serde(default)]
    icmp_source: List<Spanned<Address>>,
    icmp_rate: Option<Bounded<0, 1_000_000>>,
    tcp_mss: Option<Bounded<88, 9176>>,
    #[serde(default)]
    backend: Backend,
}

/// The table of `kind = "esp-open"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EspOpenConfig {
    lab: Option<Spanned<bool>>,
    state_file: FileName,
    sa: List<Spanned<InboundTable>>,
    #[serde(default)]
    bypass: List<Bypassed>,
    tcp_mss: Option<Bounded<88, 9176>>,
    #[serde(default)]
    backend: Backend,
}

/// `[[stage.NAME.sa]]` in `esp-seal`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutboundTable {
    spi: Spanned<Bounded<256, { u32::MAX as u64 }>>,
    #[serde(deserialize_with = "one_of")]
    transform: Transform,
    key_file: Spanned<FileName>,
    #[serde(default)]
    mode: Mode,
    source: Option<Spanned<Address>>,
    destination: Option<Spanned<Address>>,
    udp_ports: Option<Spanned<List<Bounded<1, { u16::MAX as u64 }>>>>,
    esn: Option<bool>,
    #[serde(default)]
    selector: List<Prefix>,
    dscp: Option<Spanned<Dscp>>,
    ttl: Option<Spanned<Bounded<1, 255>>>,
    df: Option<Spanned<Df>>,
    soft_packets: Option<Amount>,
    hard_packets: Option<Amount>,
    soft_bytes: Option<Amount>,
    hard_bytes: Option<Amount>,
}

/// `[[stage.NAME.sa]]` in `esp-open`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InboundTable {
    spi: Spanned<Bounded<256, { u32::MAX as u64 }>>,
    #[serde(deserialize_with = "one_of")]
    transform: Transform,
    key_file: Spanned<FileName>,
    #[serde(default)]
    mode: Mode,
    source: Option<Address>,
    destination: Option<Address>,
    udp_port: Option<Bounded<1, { u16::MAX as u64 }>>,
    esn: Option<bool>,
    window: Option<Spanned<Bounded<0, { u32::MAX as u64 }>>>,
    queue: Option<Bounded<0, { u16::MAX as u64 }>>,
    #[serde(default)]
    selector: List<Prefix>,
    soft_packets: Option<Amount>,
    hard_packets: Option<Amount>,
    soft_bytes: Option<Amount>,
    hard_bytes: Option<Amount>,
}

impl Element for Spanned<OutboundTable> {
    const LIST: &'static str = "a list of tables, [[stage.NAME.sa]]";
}

impl Element for Spanned<InboundTable> {
    const LIST: &'static str = "a list of tables, [[stage.NAME.sa]]";
}

/// Maximum number of SAs per stage.
const MAX_SAS: usize = 1024;
/// In bytes.
const DEFAULT_MTU: u64 = 1500;
/// In messages per second.
const DEFAULT_ICMP_RATE: u64 = 100;
/// In packets.
const DEFAULT_WINDOW: u32 = 1024;
const DEFAULT_TTL: u64 = 64;

impl StageConfig for EspSealConfig {
    const KIND: &'static str = "esp-seal";

    fn plan(self, cx: &PlanCx<'_>) -> Result<Arc<dyn StagePlan>, PlanError> {
        reasons::register()?;
        let mut errors = Vec::new();
        check_common_keys(self.lab.as_ref(), self.sa.0.len(), self.backend, &mut errors);
        let mut icmp_sources = icmp::Sources::default();
        for address in &self.icmp_source.0 {
            let is_duplicate = match address.get_ref().0 {
                IpAddr::V4(v4) => icmp_sources.v4.replace(v4).is_some(),
                IpAddr::V6(v6) => icmp_sources.v6.replace(v6).is_some(),
            };
            if is_duplicate {
                let message =
                    "icmp_source: must be at most one IPv4 and one IPv6 address".to_owned();
                errors.push(PlanDiagnostic {
                    location: Location::Configuration(address.span()),
                    message,
                });
            }
        }
        let mut sas: Vec<Outbound> = Vec::new();
        let mut exclusive_keys = Vec::new();
        for table in self.sa.0.iter().take(MAX_SAS) {
            let location = Location::Configuration(table.span());
            match table.get_ref().to_parts(self.backend, cx) {
                Ok(OutboundParts { sa, outer, udp }) => {
                    let destination = outer.as_ref().map(OuterHeader::destination);
                    let overlaps = |other: &Outbound| {
                        let other_destination = other.outer.as_ref().map(OuterHeader::destination);
                        other.sa.spi == sa.spi
                            && other_destination == destination
                            && other.udp == udp
                            && sa.mode == Mode::Tunnel
                    };
                    if sas.iter().any(overlaps) {
                        let message = format!(
                            "spi = {}: another SA of this stage has the same SPI and destination, \
                             so the receiver cannot tell them apart; use another SPI",
                            sa.spi
                        );
                        errors.push(PlanDiagnostic {
                            location: Location::Configuration(table.get_ref().spi.span()),
                            message,
                        });
                    }
                    exclusive_keys.push(exclusive_key(&sa));
                    sas.push(Outbound::new(sa, outer, udp));
                }
                Err(diagnostics) => errors.extend(
                    diagnostics.into_iter().map(|diagnostic| locate(diagnostic, &location)),
                ),
            }
        }
        if !errors.is_empty() {
            return Err(PlanError(errors));
        }
        let endpoints = sas.iter().filter_map(|sa| sa.outer.as_ref()).map(|outer| Endpoints {
            source: Some(outer.source()),
            destination: outer.destination(),
        });
        let selectors = sas.iter().map(|sa| &sa.sa.selector);
        let state_path = cx.directory.join(self.state_file.0);
        let bypass = Bypass::new(&self.bypass.0, endpoints, selectors, Direction::Out);
        let tables = || self.sa.0.iter().map(Spanned::get_ref);
        let addresses = tables().flat_map(|table| {
            let outer = [&table.source, &table.destination].into_iter().flatten();
            let outer = outer.map(|address| address.get_ref().0);
            outer.chain(table.selector.0.iter().map(|prefix| prefix.0.addr()))
        });
        Ok(Arc::new(Plan(Arc::new(Settings {
            sas,
            warnings: advice::warnings(&self.bypass.0, &bypass, addresses, &state_path),
            bypass,
            tcp_mss: self.tcp_mss.map(|mss| mss.0 as u16),
            state_path,
            state: ArcSwapOption::empty(),
            closed: OnceLock::new(),
            was_acquired: AtomicBool::new(false),
            exclusive_keys,
            key_files: key_files(tables().map(|table| &table.key_file), cx),
            direction: Seal {
                mtu: self.mtu.map_or(DEFAULT_MTU, |mtu| mtu.0) as usize,
                icmp_sources,
                icmp_rate: self.icmp_rate.map_or(DEFAULT_ICMP_RATE, |rate| rate.0) as u32,
                lacks_iv_range: AtomicBool::new(false),
            },
        }))))
    }
}

impl StageConfig for EspOpenConfig {
    const KIND: &'static str = "esp-open";

    fn plan(self, cx: &PlanCx<'_>) -> Result<Arc<dyn StagePlan>, PlanError> {
        reasons::register()?;
        let mut errors = Vec::new();
        check_common_keys(self.lab.as_ref(), self.sa.0.len(), self.backend, &mut errors);
        let mut sas: Vec<Inbound> = Vec::new();
        let mut exclusive_keys = Vec::new();
        for table in self.sa.0.iter().take(MAX_SAS) {
            let location = Location::Configuration(table.span());
            match table.get_ref().to_sa(self.backend, cx) {
                Ok(sa) => {
                    let overlaps = |other: &&Inbound| {
                        other.sa.spi == sa.sa.spi
                            && other.udp_port == sa.udp_port
                            && (other.destination == sa.destination
                                || other.destination.is_none()
                                || sa.destination.is_none())
                    };
                    if sas.iter().find(overlaps).is_some() {
                        let message = format!(
                            "spi = {}: another SA of this stage has the same SPI and destination; \
                             use another SPI, or set different values of `destination`",
                            sa.sa.spi
                        );
                        errors.push(PlanDiagnostic {
                            location: Location::Configuration(table.get_ref().spi.span()),
                            message,
                        });
                    }
                    exclusive_keys.push(exclusive_key(&sa.sa));
                    sas.push(sa);
                }
                Err(diagnostics) => errors.extend(
                    diagnostics.into_iter().map(|diagnostic| locate(diagnostic, &location)),
                ),
            }
        }
        if !errors.is_empty() {
            return Err(PlanError(errors));
        }
        let mut udp_ports: Vec<u16> = sas.iter().filter_map(|sa| sa.udp_port).collect();
        udp_ports.sort_unstable();
        udp_ports.dedup();
        let endpoints = sas
            .iter()
            .filter_map(|sa| Some(Endpoints { source: sa.source, destination: sa.destination? }));
        let selectors = sas.iter().map(|sa| &sa.sa.selector);
        let state_path = cx.directory.join(self.state_file.0);
        let bypass = Bypass::new(&self.bypass.0, endpoints, selectors, Direction::In);
        let tables = || self.sa.0.iter().map(Spanned::get_ref);
        let addresses = tables().flat_map(|table| {
            let outer = table.destination.iter().map(|address| address.0);
            outer.chain(table.selector.0.iter().map(|prefix| prefix.0.addr()))
        });
        Ok(Arc::new(Plan(Arc::new(Settings {
            direction: Open { by_spi: SpiTable::new(sas.iter().map(|sa| sa.sa.spi)), udp_ports },
            sas,
            warnings: advice::warnings(&self.bypass.0, &bypass, addresses, &state_path),
            bypass,
            tcp_mss: self.tcp_mss.map(|mss| mss.0 as u16),
            state_path,
            state: ArcSwapOption::empty(),
            closed: OnceLock::new(),
            was_acquired: AtomicBool::new(false),
            exclusive_keys,
            key_files: key_files(tables().map(|table| &table.key_file), cx),
        }))))
    }
}

fn key_files<'a>(
    names: impl Iterator<Item = &'a Spanned<FileName>>,
    cx: &PlanCx<'_>,
) -> Vec<PathBuf> {
    names.map(|name| cx.directory.join(&name.get_ref().0)).collect()
}

/// Adds the location of the SA's table if the diagnostic has no more precise one.
fn locate(diagnostic: PlanDiagnostic, table: &Location) -> PlanDiagnostic {
    match diagnostic.location {
        Location::Stage => PlanDiagnostic { location: table.clone(), ..diagnostic },
        _ => diagnostic,
    }
}

/// Checks the configuration keys that both stages have.
fn check_common_keys(
    lab: Option<&Spanned<bool>>,
    sa_count: usize,
    backend: Backend,
    errors: &mut Vec<PlanDiagnostic>,
) {
    if lab.is_none_or(|lab| !lab.get_ref()) {
        let reason = "keys in files are static, which RFC 4106 (2) and RFC 8221 (4) forbid; set \
                   `lab = true` to confirm that you use them in a laboratory only";
        let message = match lab {
            Some(_) => format!("lab = false: must be true: {reason}"),
            None => format!("missing key `lab`: {reason}"),
        };
        let location = lab.map_or(Location::Stage, |lab| Location::Configuration(lab.span()));
        errors.push(PlanDiagnostic { location, message });
    }
    if !(1..=MAX_SAS).contains(&sa_count) {
        let message = format!("{sa_count} SAs: must be 1 to {MAX_SAS} tables [[stage.NAME.sa]]");
        errors.push(PlanDiagnostic { location: Location::Stage, message });
    }
    if backend == Backend::IpsecMb && !cfg!(feature = "ipsec-mb") {
        let message =
            "backend = \"ipsec-mb\": not in this build; build with `--features ipsec-mb` \
                       (Debian: libipsec-mb-dev), or use \"aws-lc\" or \"rustcrypto\""
                .to_owned();
        errors.push(PlanDiagnostic { location: Location::Stage, message });
    }
}

/// Returns an SA's key as a resource that no other SA may use: SAs that share a key, even in
/// opposite directions, could use the same nonce.
fn exclusive_key(sa: &Association) -> ExclusiveResource {
    ExclusiveResource {
        id: format!("key {}", sa.identity),
        description: format!("the key with the fingerprint {}", sa.fingerprint),
        advice: "SAs that share a key can repeat a nonce; create a key for each SA and direction \
                 (xdpfwd esp new-key)",
    }
}

const LIMITS: [&str; 4] = ["soft_packets", "hard_packets", "soft_bytes", "hard_bytes"];

/// The configuration keys that outbound and inbound SAs share.
struct CommonKeys<'a> {
    spi: u64,
    transform: Transform,
    key_file: &'a Spanned<FileName>,
    mode: Mode,
    esn: Option<bool>,
    selector: &'a [Prefix],
    /// In the order of [`LIMITS`].
    limits: [Option<Amount>; 4],
}

impl CommonKeys<'_> {
    /// Reads the key file, and creates the SA.
    fn association(
        &self,
        backend: Backend,
        cx: &PlanCx<'_>,
    ) -> Result<Association, Vec<PlanDiagnostic>> {
        let key_file_error = |message: String| {
            vec![PlanDiagnostic {
                location: Location::Configuration(self.key_file.span()),
                message,
            }]
        };
        let [soft_packets, hard_packets, soft_bytes, hard_bytes] =
            self.limits.map(|limit| limit.map(|limit| limit.0));
        for (soft, hard) in [(0, 1), (2, 3)] {
            let (soft_name, hard_name) = (LIMITS[soft], LIMITS[hard]);
            if let (Some(Bounded(soft)), Some(Bounded(hard))) =
                (self.limits[soft], self.limits[hard])
                && soft > hard
            {
                let message = format!("{soft_name} = {soft}: must be at most {hard_name}, {hard}");
                return Err(vec![PlanDiagnostic { location: Location::Stage, message }]);
            }
        }
        let path = cx.directory.join(&self.key_file.get_ref().0);
        let material = key_file::read(&path, self.transform)
            .map_err(|error| key_file_error(format!("key_file: {error}")))?;
        let fingerprint: Fingerprint = material.fingerprint(self.transform);
        let aead = aead(backend, self.transform, &material)
            .map_err(|error| key_file_error(format!("key_file: {error}")))?;
        let spi = self.spi as u32;
        let esn = self.esn.unwrap_or(true);
        Ok(Association {
            spi,
            transform: self.transform,
            fingerprint,
            identity: material.identity(),
            mode: self.mode,
            esn,
            backend,
            limits: Limits { soft_packets, hard_packets, soft_bytes, hard_bytes },
            selector: Selector::new(self.selector.iter().map(|prefix| prefix.0)),
            protection: Protection::new(aead, self.transform, material.salt(), spi, esn),
        })
    }
}

fn aead(
    backend: Backend,
    transform: Transform,
    material: &KeyMaterial,
) -> Result<Box<dyn Aead>, String> {
    let to_text = |error: KeyLengthError| error.to_string();
    Ok(match backend {
        Backend::AwsLc => {
            Box::new(xdpfwd_ipsec::AwsLc::new(transform, material.key()).map_err(to_text)?)
        }
        Backend::RustCrypto => {
            Box::new(xdpfwd_ipsec::RustCrypto::new(transform, material.key()).map_err(to_text)?)
        }
        #[cfg(feature = "ipsec-mb")]
        Backend::IpsecMb => Box::new(
            xdpfwd_ipsec::IpsecMb::new(transform, material.key())
                .map_err(|error| error.to_string())?,
        ),
        #[cfg(not(feature = "ipsec-mb"))]
        Backend::IpsecMb => {
            return Err("backend \"ipsec-mb\" is not in this build".to_owned());
        }
    })
}

struct OutboundParts {
    sa: Association,
    outer: Option<OuterHeader>,
    udp: Option<[u16; 2]>,
}

impl OutboundTable {
    fn to_parts(
        &self,
        backend: Backend,
        cx: &PlanCx<'_>,
    ) -> Result<OutboundParts, Vec<PlanDiagnostic>> {
        let outer = self.outer()?;
        let udp = self.udp()?;
        let common = CommonKeys {
            spi: self.spi.get_ref().0,
            transform: self.transform,
            key_file: &self.key_file,
            mode: self.mode,
            esn: self.esn,
            selector: &self.selector.0,
            limits: [self.soft_packets, self.hard_packets, self.soft_bytes, self.hard_bytes],
        };
        Ok(OutboundParts { sa: common.association(backend, cx)?, outer, udp })
    }

    fn udp(&self) -> Result<Option<[u16; 2]>, Vec<PlanDiagnostic>> {
        let Some(ports) = &self.udp_ports else { return Ok(None) };
        match ports.get_ref().0[..] {
            [source, destination] => Ok(Some([source, destination].map(|port| port.0 as u16))),
            _ => {
                let location = Location::Configuration(ports.span());
                let message = format!(
                    "udp_ports: must be {}",
                    <Bounded<1, { u16::MAX as u64 }> as Element>::LIST
                );
                Err(vec![PlanDiagnostic { location, message }])
            }
        }
    }

    /// Returns the outer header; `None` in transport mode.
    fn outer(&self) -> Result<Option<OuterHeader>, Vec<PlanDiagnostic>> {
        let error = |location, message: &str| {
            Err(vec![PlanDiagnostic { location, message: message.to_owned() }])
        };
        if self.mode == Mode::Transport {
            let keys = [
                ("source", self.source.as_ref().map(Spanned::span)),
                ("destination", self.destination.as_ref().map(Spanned::span)),
                ("dscp", self.dscp.as_ref().map(Spanned::span)),
                ("ttl", self.ttl.as_ref().map(Spanned::span)),
                ("df", self.df.as_ref().map(Spanned::span)),
            ];
            let configured = keys.into_iter().find_map(|(key, span)| Some((key, span?)));
            return match configured {
                Some((key, span)) => error(
                    Location::Configuration(span),
                    &format!(
                        "{key}: only for mode = \"tunnel\": remove it, because in transport mode \
                         packets keep their IP header"
                    ),
                ),
                None => Ok(None),
            };
        }
        let (Some(source), Some(destination)) = (&self.source, &self.destination) else {
            let missing = if self.source.is_none() { "source" } else { "destination" };
            return error(
                Location::Stage,
                &format!(
                    "missing key `{missing}`: mode = \"tunnel\" requires both addresses of the \
                     outer header"
                ),
            );
        };
        let dscp = self.dscp.as_ref().map_or(Dscp::Copy, |dscp| *dscp.get_ref());
        let ttl = self.ttl.as_ref().map_or(DEFAULT_TTL, |ttl| ttl.get_ref().0) as u8;
        let df = self.df.as_ref().map_or(Df::Copy, |df| *df.get_ref());
        match OuterHeader::new(source.get_ref().0, destination.get_ref().0, dscp, ttl, df) {
            Some(outer) => Ok(Some(outer)),
            None => error(
                Location::Configuration(destination.span()),
                &format!(
                    "destination = \"{}\": must have the same IP version as the source, {}",
                    destination.get_ref().0,
                    source.get_ref().0
                ),
            ),
        }
    }
}

impl InboundTable {
    fn to_sa(&self, backend: Backend, cx: &PlanCx<'_>) -> Result<Inbound, Vec<PlanDiagnostic>> {
        let window = self
            .window
            .as_ref()
            .map_or(DEFAULT_WINDOW, |window| u32::try_from(window.get_ref().0).unwrap_or(u32::MAX));
        // Checks only the size. The argument `true` (ESN) does not matter.
        if let Err(error) = Window::new(window, true) {
            let location = self
                .window
                .as_ref()
                .map_or(Location::Stage, |window| Location::Configuration(window.span()));
            return Err(vec![PlanDiagnostic {
                location,
                message: format!("window = {window}: {error}"),
            }]);
        }
        let common = CommonKeys {
            spi: self.spi.get_ref().0,
            transform: self.transform,
            key_file: &self.key_file,
            mode: self.mode,
            esn: self.esn,
            selector: &self.selector.0,
            limits: [self.soft_packets, self.hard_packets, self.soft_bytes, self.hard_bytes],
        };
        let sa = common.association(backend, cx)?;
        let udp_port = self.udp_port.map(|port| port.0 as u16);
        let queue = self.queue.map_or(0, |queue| queue.0 as u16);
        let outer = [self.source, self.destination].map(|address| address.map(|address| address.0));
        Ok(Inbound::new(sa, outer, udp_port, window, queue))
    }
}
