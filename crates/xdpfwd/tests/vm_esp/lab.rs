//! Configures the hosts, xdpfwd and ESP in Linux, and reads their counters.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use xdpfwd_lab::{Chain, Forwarder, Namespace};
use xdpfwd_testkit::esp_state;
use xdpfwd_testkit::process::run;

use crate::case::Version::{V4, V6};
use crate::case::{Case, Version};
use crate::support::wire::{PYTHON, hex};
use crate::support::{FinalReport, Running, TIMEOUT, XDPFWD, build_lab, ip_batch};
use crate::{LEFT, RIGHT, SPI_FROM_LINUX, SPI_TO_LINUX};

pub(crate) struct Lab {
    pub(crate) case: Case,
    pub(crate) namespaces: Chain,
    pub(crate) folder: PathBuf,
    /// Key and salt of xdpfwd's and of Linux's outbound SA, in hexadecimal.
    pub(crate) keys: [String; 2],
    /// The process that makes Linux decapsulate ESP in UDP.
    _udp: Option<Forwarder>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Lab {
    pub(crate) fn new(case: Case) -> Self {
        load_modules();
        let namespaces = build_lab(Chain::builder().addresses(true).ipv6(case.has_ipv6()));
        // The MAC address of gen0 ends with 1, that of sink0 with 4.
        let mac = |last_byte: u8| format!("02:00:00:00:00:{last_byte:02x}");
        let mut commands = [String::new(), String::new()];
        for version in if case.has_ipv6() { &[V4, V6][..] } else { &[V4] } {
            // `near` is xdpfwd's tunnel endpoint, `far` Linux's.
            let ([left, right], [near, far]) =
                (version.host_addresses(), version.tunnel_addresses());
            let (bits, nodad) = if *version == V4 { (24, "") } else { (64, "nodad") };
            commands[LEFT] +=
                &format!("neigh replace {right} lladdr {} dev gen0 nud permanent\n", mac(4));
            commands[RIGHT] += &format!(
                "address add {far}/{bits} dev sink0 {nodad}\n\
                 neigh replace {left} lladdr {mac} dev sink0 nud permanent\n\
                 neigh replace {near} lladdr {mac} dev sink0 nud permanent\n",
                mac = mac(1)
            );
        }
        ip_batch(Some(namespaces.gen_()), &commands[LEFT]);
        ip_batch(Some(namespaces.sink()), &commands[RIGHT]);
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("esp-{}-{id}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
        let keys = [(); 2].map(|()| random_hex(case.transform.key_len));
        let [_inner_version, outer_version] = case.versions();
        let _udp = case.udp.then(|| start_udp_decapsulation(namespaces.sink(), outer_version));
        let lab = Self { case, namespaces, folder, keys, _udp };
        lab.write("out.key", &lab.keys[0]);
        lab.write("in.key", &lab.keys[1]);
        lab.write("state", "version = 1\nepoch = 1\n# end\n");
        lab
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.file(name))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn host(&self, side: usize) -> &Namespace {
        [self.namespaces.gen_(), self.namespaces.sink()][side]
    }

    pub(crate) fn config(&self) -> String {
        let case = &self.case;
        let [_, right] = case.inner.host_addresses();
        let prefix = if case.inner == V4 { 32 } else { 128 };
        let mode = if case.outer.is_some() { "tunnel" } else { "transport" };
        let (mut seal, mut open) = (case.seal.clone(), case.open.clone());
        if let Some(outer) = case.outer {
            let [near, far] = outer.tunnel_addresses();
            seal += &format!("\nsource = {near:?}\ndestination = {far:?}");
            open += &format!("\ndestination = {near:?}");
        }
        if case.udp {
            seal += "\nudp_ports = [4500, 4500]";
            open += "\nudp_port = 4500";
        }
        let sa =
            format!("transform = {:?}\nmode = {mode:?}\nesn = {}", case.transform.name, case.esn);
        let stage = |kind| {
            format!(
                "kind = {kind:?}\nlab = true\nstate_file = {:?}\nbypass = [\"arp\", \"nd\"]",
                self.file("state")
            )
        };
        format!(
            r#"
[engine]
control = {:?}
[umem]
frames = 4096
[[port]]
name = "lan"
interface = "fwd0"
[[port]]
name = "wan"
interface = "fwd1"
[[path]]
from = "lan"
to = "wan"
stages = ["out"]
[[path]]
from = "wan"
to = "lan"
stages = ["in"]
[stage.out]
{}
[[stage.out.sa]]
spi = {SPI_TO_LINUX}
key_file = {:?}
selector = ["{right}/{prefix}"]
{sa}
{seal}
[stage.in]
{}
[[stage.in.sa]]
spi = {SPI_FROM_LINUX}
key_file = {:?}
selector = ["{right}/{prefix}"]
{sa}
{open}
"#,
            self.file("control"),
            stage("esp-seal"),
            self.file("out.key"),
            stage("esp-open"),
            self.file("in.key"),
        )
    }

    pub(crate) fn start(&self) -> Running {
        Running::start(&self.namespaces, &self.config())
    }

    /// Replaces Linux's SAs, and the policies that require ESP, by those of the case.
    pub(crate) fn configure_linux(&self) {
        ip_batch(Some(self.namespaces.sink()), "xfrm state flush\nxfrm policy flush\n");
        let case = &self.case;
        let [left, right] = case.inner.host_addresses();
        let endpoints = case.outer.map_or([left, right], Version::tunnel_addresses);
        let mode = if case.outer.is_some() { "tunnel" } else { "transport" };
        let mut shared = String::new();
        let window = if case.esn { 128 } else { 32 };
        let is_mixed = case.outer.is_some_and(|outer| outer != case.inner);
        if case.esn || is_mixed {
            let flags = [(case.esn, "esn"), (is_mixed, "af-unspec")];
            shared += " flag";
            flags
                .iter()
                .filter(|(is_set, _)| *is_set)
                .for_each(|(_, flag)| shared += &format!(" {flag}"));
        }
        if case.udp {
            shared += " encap espinudp 4500 4500 ";
            shared += if case.versions()[1] == V4 { "0.0.0.0" } else { "::" };
        }
        let mut batch = String::new();
        for (key_index, spi, additional, from, to) in [
            (0, SPI_TO_LINUX, &case.linux_in, LEFT, RIGHT),
            (1, SPI_FROM_LINUX, &case.linux_out, RIGHT, LEFT),
        ] {
            let window = if additional.contains("replay-window") {
                String::new()
            } else {
                format!("replay-window {window}")
            };
            let inner = case.inner.host_addresses();
            batch += &format!(
                "xfrm state add src {from} dst {to} proto esp spi {spi} mode {mode} aead {aead} 0x{key} 128 {window} \
                 {additional} {shared}\n\
                 xfrm policy add src {} dst {} dir {dir} tmpl src {from} dst {to} proto esp mode {mode}\n",
                inner[from],
                inner[to],
                from = endpoints[from],
                to = endpoints[to],
                aead = case.transform.linux_name,
                key = self.keys[key_index],
                dir = if from == LEFT { "in" } else { "out" },
            );
        }
        ip_batch(Some(self.namespaces.sink()), &batch);
    }

    /// Returns the nonzero error counters of ESP in Linux.
    pub(crate) fn xfrm_stat(&self) -> BTreeMap<String, u64> {
        let text = run(self.namespaces.sink().command("cat").arg("/proc/net/xfrm_stat"));
        let lines = text.lines().map(|line| line.split_once(char::is_whitespace).unwrap());
        let counted = lines.map(|(name, count)| (name.to_owned(), count.trim().parse().unwrap()));
        counted.filter(|(_, count)| *count > 0).collect()
    }

    /// Waits until the error counters reach the sum of `expected`. Then checks that exactly the
    /// expected counters are nonzero, with these values.
    #[track_caller]
    pub(crate) fn assert_xfrm_stat(&self, expected: &[(&str, u64)]) {
        let expected = expected.iter().filter(|(_, count)| *count > 0);
        let expected: BTreeMap<String, u64> =
            expected.map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let sum = |counted: &BTreeMap<String, u64>| counted.values().sum::<u64>();
        let deadline = Instant::now() + TIMEOUT;
        while sum(&self.xfrm_stat()) < sum(&expected) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.xfrm_stat(), expected, "{}: /proc/net/xfrm_stat", self.case.name());
    }

    /// Returns bytes and packets of an SA, from `ip xfrm state`.
    pub(crate) fn linux_sa_counters(&self, spi: u32) -> (u64, u64) {
        let text = run(Command::new("ip").args([
            "-s",
            "-n",
            self.namespaces.sink().name(),
            "xfrm",
            "state",
        ]));
        let text_after = |text: &str, part: &str| {
            let start = text.find(part).unwrap_or_else(|| panic!("no {part:?} in {text}"));
            text[start + part.len()..].to_owned()
        };
        let current =
            text_after(&text_after(&text, &format!("spi 0x{spi:08x}")), "lifetime current:");
        let mut numbers =
            current.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty());
        let mut next = || numbers.next().unwrap().parse().unwrap();
        (next(), next())
    }

    /// Returns bytes and packets of an SA, from `xdpfwd ctl sa`.
    pub(crate) fn xdpfwd_sa_counters(&self, spi: u32) -> (u64, u64) {
        let text = run(Command::new(XDPFWD)
            .args(["ctl", "sa", "--json", "--socket"])
            .arg(self.file("control")));
        let sas: Value = serde_json::from_str(&text).unwrap();
        let sa = sas["sas"].as_array().unwrap().iter().find(|sa| sa["spi"] == spi);
        let sa = sa.unwrap_or_else(|| panic!("no SPI {spi:#x} in {sas}"));
        (sa["bytes"].as_u64().unwrap(), sa["packets"].as_u64().unwrap())
    }

    /// Returns a value of the newest state in the state file. `key` is unique there, because each
    /// direction has one SA.
    pub(crate) fn state_value(&self, key: &str) -> u64 {
        let text = esp_state::newest(&fs::read_to_string(self.file("state")).unwrap());
        let values = text.lines().filter_map(|line| line.split('#').next()?.split_once('='));
        let mut value = values
            .filter(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim().parse().unwrap());
        value.next().unwrap_or_else(|| panic!("no {key:?} in {text}"))
    }

    /// Runs xdpfwd briefly, so that the state file has all keys. Then replaces `values`.
    pub(crate) fn write_state(&self, values: &[(&str, u64)]) {
        self.start().stop();
        let text = esp_state::newest(&fs::read_to_string(self.file("state")).unwrap());
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for (key, value) in values {
            let line = lines.iter_mut().find(|line| line.split('=').next().unwrap().trim() == *key);
            *line.unwrap_or_else(|| panic!("no {key:?}")) = format!("{key} = {value}");
        }
        self.write("state", &esp_state::version_1(&lines.join("\n")));
    }

    /// Stops xdpfwd. Checks that it dropped exactly these packets, by reason.
    #[track_caller]
    pub(crate) fn assert_dropped(&self, running: Running, expected: &[(&str, u64)]) -> FinalReport {
        let (exit, final_report) = running.stop();
        let name = self.case.name();
        assert!(exit.status.success(), "{name}: {exit:?}");
        final_report.assert_frames_and_packets_add_up();
        // With IPv6, the hosts also send multicast packets, which match no SA or are not
        // encapsulated.
        let ignored = ["no_sa", "unprotected"];
        let dropped =
            final_report.parsed.drops.iter().map(|(reason, count)| (reason.as_str(), *count));
        let dropped: BTreeMap<&str, u64> = dropped
            .filter(|(reason, count)| {
                *count > 0 && !(self.case.has_ipv6() && ignored.contains(reason))
            })
            .collect();
        let expected: BTreeMap<&str, u64> =
            expected.iter().copied().filter(|(_, count)| *count > 0).collect();
        assert_eq!(dropped, expected, "{name}: {}", final_report.json);
        final_report
    }
}

/// Loads the kernel modules of ESP. Linux does not load the AES-NI module by itself, and its errors
/// do not name a missing module.
pub(crate) fn load_modules() {
    let modules = ["aesni_intel", "esp4", "esp6", "xfrm_user", "gcm", "seqiv", "chacha20poly1305"];
    run(Command::new("modprobe").arg("-a").args(modules));
}

#[track_caller]
pub(crate) fn random_hex(bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut buffer).unwrap();
    hex(&buffer)
}

/// Starts a process whose socket makes Linux decapsulate ESP in UDP to port 4500.
pub(crate) fn start_udp_decapsulation(namespace: &Namespace, version: Version) -> Forwarder {
    let family = if version == V4 { "AF_INET" } else { "AF_INET6" };
    let script = format!(
        "import signal, socket\n\
         s = socket.socket(socket.{family}, socket.SOCK_DGRAM)\n\
         s.setsockopt(socket.IPPROTO_UDP, 100, 2)  # UDP_ENCAP, UDP_ENCAP_ESPINUDP\n\
         s.bind(('', 4500))\n\
         print('ready', flush=True)\n\
         signal.pause()\n"
    );
    let mut holder = Forwarder::spawn(namespace, &[PYTHON, "-c", &script]).unwrap();
    holder.wait_for_line(TIMEOUT, |line| line == "ready").unwrap();
    holder
}
