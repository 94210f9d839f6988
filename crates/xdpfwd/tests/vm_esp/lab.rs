//! The hosts, xdpfwd and Linux's ESP between them, and their counters.

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
use xdpfwd_testkit::process::run;

use crate::case::Version::{V4, V6};
use crate::case::{Case, Version};
use crate::support::wire::{PYTHON, hex};
use crate::support::{Final, Running, TIMEOUT, XDPFWD, chain, ip_batch};
use crate::{FROM_LINUX, LEFT, RIGHT, TO_LINUX};

/// The namespaces, and files that xdpfwd reads and writes.
pub(crate) struct Lab {
    pub(crate) case: Case,
    pub(crate) chain: Chain,
    pub(crate) folder: PathBuf,
    /// Keys of xdpfwd's and of Linux's outbound SA, in hexadecimal.
    pub(crate) keys: [String; 2],
    /// Holds a socket that passes ESP in UDP to the kernel.
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
        let chain = chain(Chain::builder().addresses(true).ipv6(case.has_ipv6()));
        let lladdr = |n: u8| format!("02:00:00:00:00:{n:02x}");
        let mut commands = [String::new(), String::new()];
        for version in if case.has_ipv6() { &[V4, V6][..] } else { &[V4] } {
            let ([left, right], [near, far]) = (version.inner(), version.outer());
            let (bits, nodad) = if *version == V4 { (24, "") } else { (64, "nodad") };
            commands[LEFT] +=
                &format!("neigh replace {right} lladdr {} dev gen0 nud permanent\n", lladdr(4));
            commands[RIGHT] += &format!(
                "address add {far}/{bits} dev sink0 {nodad}\n\
                 neigh replace {left} lladdr {mac} dev sink0 nud permanent\n\
                 neigh replace {near} lladdr {mac} dev sink0 nud permanent\n",
                mac = lladdr(1)
            );
        }
        ip_batch(Some(chain.gen_()), &commands[LEFT]);
        ip_batch(Some(chain.sink()), &commands[RIGHT]);
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("esp-{}-{number}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
        let keys = [(); 2].map(|()| random_hex(case.transform.bytes));
        let _udp = case.udp.then(|| udp_encapsulation(chain.sink(), case.versions()[1]));
        let lab = Self { case, chain, folder, keys, _udp };
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

    pub(crate) fn side(&self, side: usize) -> &Namespace {
        [self.chain.gen_(), self.chain.sink()][side]
    }

    pub(crate) fn config(&self) -> String {
        let case = &self.case;
        let [_, right] = case.inner.inner();
        let prefix = if case.inner == V4 { 32 } else { 128 };
        let mode = if case.outer.is_some() { "tunnel" } else { "transport" };
        let (mut seal, mut open) = (case.seal.clone(), case.open.clone());
        if let Some(outer) = case.outer {
            let [near, far] = outer.outer();
            seal += &format!("\nsource = {near:?}\ndestination = {far:?}");
            open += &format!("\ndestination = {near:?}");
        }
        if case.udp {
            seal += "\nudp_ports = [4500, 4500]";
            open += "\nudp_port = 4500";
        }
        let both =
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
spi = {TO_LINUX}
key_file = {:?}
selector = ["{right}/{prefix}"]
{both}
{seal}
[stage.in]
{}
[[stage.in.sa]]
spi = {FROM_LINUX}
key_file = {:?}
selector = ["{right}/{prefix}"]
{both}
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
        Running::start(&self.chain, &self.config())
    }

    /// Replaces Linux's SAs, and the policies that require them.
    pub(crate) fn configure_linux(&self) {
        ip_batch(Some(self.chain.sink()), "xfrm state flush\nxfrm policy flush\n");
        let case = &self.case;
        let [left, right] = case.inner.inner();
        let ends = case.outer.map_or([left, right], Version::outer);
        let mode = if case.outer.is_some() { "tunnel" } else { "transport" };
        let mut shared = String::new();
        let window = if case.esn { 128 } else { 32 };
        let is_mixed = case.outer.is_some_and(|outer| outer != case.inner);
        if case.esn || is_mixed {
            let words = [(case.esn, "esn"), (is_mixed, "af-unspec")];
            shared += " flag";
            words
                .iter()
                .filter(|(is_set, _)| *is_set)
                .for_each(|(_, word)| shared += &format!(" {word}"));
        }
        if case.udp {
            shared += " encap espinudp 4500 4500 ";
            shared += if case.versions()[1] == V4 { "0.0.0.0" } else { "::" };
        }
        let mut batch = String::new();
        for (key, spi, additional, from, to) in [
            (0, TO_LINUX, &case.linux_in, LEFT, RIGHT),
            (1, FROM_LINUX, &case.linux_out, RIGHT, LEFT),
        ] {
            // Add the default window only if the SA's additional words do not set one.
            let window = if additional.contains("replay-window") {
                String::new()
            } else {
                format!("replay-window {window}")
            };
            let inner = case.inner.inner();
            batch += &format!(
                "xfrm state add src {from} dst {to} proto esp spi {spi} mode {mode} aead {aead} 0x{key} 128 {window} \
                 {additional} {shared}\n\
                 xfrm policy add src {} dst {} dir {dir} tmpl src {from} dst {to} proto esp mode {mode}\n",
                inner[from],
                inner[to],
                from = ends[from],
                to = ends[to],
                aead = case.transform.linux,
                key = self.keys[key],
                dir = if from == LEFT { "in" } else { "out" },
            );
        }
        ip_batch(Some(self.chain.sink()), &batch);
    }

    /// Returns Linux's nonzero error counters.
    pub(crate) fn xfrm_stat(&self) -> BTreeMap<String, u64> {
        let text = run(self.chain.sink().command("cat").arg("/proc/net/xfrm_stat"));
        let lines = text.lines().map(|line| line.split_once(char::is_whitespace).unwrap());
        let counted = lines.map(|(name, count)| (name.to_owned(), count.trim().parse().unwrap()));
        counted.filter(|(_, count)| *count > 0).collect()
    }

    /// Waits until exactly these counters are nonzero.
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

    /// Returns bytes and packets of one of Linux's SAs.
    pub(crate) fn xfrm_usage(&self, spi: u32) -> (u64, u64) {
        let text =
            run(Command::new("ip").args(["-s", "-n", self.chain.sink().name(), "xfrm", "state"]));
        let after = |text: &str, part: &str| {
            let at = text.find(part).unwrap_or_else(|| panic!("no {part:?} in {text}"));
            text[at + part.len()..].to_owned()
        };
        let current = after(&after(&text, &format!("spi 0x{spi:08x}")), "lifetime current:");
        let mut numbers =
            current.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty());
        let mut next = || numbers.next().unwrap().parse().unwrap();
        (next(), next())
    }

    /// Returns bytes and packets of one of xdpfwd's SAs, from `ctl sa`.
    pub(crate) fn usage(&self, spi: u32) -> (u64, u64) {
        let text = run(Command::new(XDPFWD)
            .args(["ctl", "sa", "--json", "--socket"])
            .arg(self.file("control")));
        let sas: Value = serde_json::from_str(&text).unwrap();
        let sa = sas["sas"].as_array().unwrap().iter().find(|sa| sa["spi"] == spi);
        let sa = sa.unwrap_or_else(|| panic!("no SPI {spi:#x} in {sas}"));
        (sa["bytes"].as_u64().unwrap(), sa["packets"].as_u64().unwrap())
    }

    /// Returns a value of the state file by its key. (There is one SA in each direction.)
    pub(crate) fn state(&self, key: &str) -> u64 {
        let text = fs::read_to_string(self.file("state")).unwrap();
        let values = text.lines().filter_map(|line| line.split('#').next()?.split_once('='));
        let mut value = values
            .filter(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim().parse().unwrap());
        value.next().unwrap_or_else(|| panic!("no {key:?} in {text}"))
    }

    /// Creates the state file by a first run, and replaces numbers in it.
    pub(crate) fn start_with_state(&self, numbers: &[(&str, u64)]) {
        self.start().stop();
        let text = fs::read_to_string(self.file("state")).unwrap();
        let mut text: Vec<String> = text.lines().map(str::to_owned).collect();
        for (key, number) in numbers {
            let line = text.iter_mut().find(|line| line.split('=').next().unwrap().trim() == *key);
            *line.unwrap_or_else(|| panic!("no {key:?}")) = format!("{key} = {number}");
        }
        self.write("state", &(text.join("\n") + "\n"));
    }

    /// Checks that a run dropped these packets, and no others.
    #[track_caller]
    pub(crate) fn assert_dropped(&self, running: Running, expected: &[(&str, u64)]) -> Final {
        let (ended, last) = running.stop();
        let name = self.case.name();
        assert!(ended.status.success(), "{name}: {ended:?}");
        last.assert_conserved();
        // The hosts' own IPv6 multicast packets match no SA and are not encapsulated.
        let noise = ["no_sa", "unprotected"];
        let dropped = last.report.drops.iter().map(|(reason, count)| (reason.as_str(), *count));
        let dropped: BTreeMap<&str, u64> = dropped
            .filter(|(reason, count)| {
                *count > 0 && !(self.case.has_ipv6() && noise.contains(reason))
            })
            .collect();
        let expected: BTreeMap<&str, u64> =
            expected.iter().copied().filter(|(_, count)| *count > 0).collect();
        assert_eq!(dropped, expected, "{name}: {}", last.json);
        last
    }
}

/// Loads all modules that Linux's ESP needs. (Most would load automatically, but not AES-NI, and a
/// missing one is hard to diagnose.)
pub(crate) fn load_modules() {
    let modules = ["aesni_intel", "esp4", "esp6", "xfrm_user", "gcm", "seqiv", "chacha20poly1305"];
    run(Command::new("modprobe").arg("-a").args(modules));
}

/// Returns random bytes in hexadecimal.
#[track_caller]
pub(crate) fn random_hex(bytes: usize) -> String {
    let mut key = vec![0; bytes];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut key).unwrap();
    hex(&key)
}

/// Makes Linux decapsulate ESP in UDP, with a socket configured for that.
pub(crate) fn udp_encapsulation(namespace: &Namespace, version: Version) -> Forwarder {
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
