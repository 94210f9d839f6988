//! Tests stages on a test bench, without root or interfaces.

use std::io;
use std::path::Path;
use std::sync::Arc;

use xdpfwd_engine::{Lockouts, PathPlan, Plan, PortPlan, ports_without_interfaces};
use xdpfwd_pipeline::testing::TestBench;
use xdpfwd_pipeline::{PortInfo, Ports, StagePlan};

use crate::app::App;
use crate::config::{self, Interface, Machine, NoMachine, Source};

const FILE_NAME: &str = "test.toml";

impl App {
    /// Creates a test bench with the ports and paths of `config`, which is checked like a
    /// configuration file, but its interfaces need not exist. File names are relative to the
    /// current directory. Requires the feature `testing`, in dev-dependencies only.
    ///
    /// ```
    /// use xdpfwd::App;
    /// use xdpfwd_pipeline::testing::Disposition;
    ///
    /// const CONFIG: &str = r#"
    /// [[port]]
    /// name = "lan"
    /// interface = "eth1"
    ///
    /// [[port]]
    /// name = "wan"
    /// interface = "eth2"
    ///
    /// [[path]]
    /// from = "lan"
    /// to = "wan"
    /// stages = ["ttl", "swap"]
    ///
    /// [stage.ttl]
    /// kind = "ttl"
    ///
    /// [stage.swap]
    /// kind = "mac-swap"
    /// "#;
    ///
    /// let app = App::new("my-forwarder", "1.0.0").stages(xdpfwd_stages::builtin());
    /// let mut bench = app.test_bench(CONFIG)?;
    ///
    /// let mut packet = vec![0; 60];
    /// packet[..34].copy_from_slice(
    ///     b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\0\
    ///       \x45\0\0\x2e\0\0\0\0\x40\xfd\x65\xd1\x0a\0\0\x01\x0a\0\0\x02",
    /// );
    /// let sent = bench.send("lan", &packet).expect_sent("wan");
    /// assert_eq!(sent[..12], *b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02");
    ///
    /// packet[22] = 1; // the TTL
    /// assert_eq!(bench.send("lan", &packet).drop_reason(), Some("ttl_expired"));
    ///
    /// let error = app.test_bench(&CONFIG.replace("mac-swap", "mac-swop")).unwrap_err();
    /// assert!(error.starts_with("test.toml:19:8: "), "{error}");
    /// # Ok::<(), String>(())
    /// ```
    ///
    /// The bench runs one worker, with one queue per port; stages see the configured numbers of
    /// workers and queues. Ports have MAC addresses (02:00:00:00:00:01 for the first, and so
    /// on), but no IP addresses and no MTU; [`test_bench_with_ports`](Self::test_bench_with_ports)
    /// sets them. Stages for the XDP program run in user space instead.
    ///
    /// # Errors
    ///
    /// - If the configuration is invalid: the errors that `--check` prints, one per line, with line
    ///   and column in `test.toml`.
    /// - If a stage cannot acquire its resources, such as a lock on a state file.
    pub fn test_bench(&self, config: &str) -> Result<TestBench, String> {
        self.test_bench_in(Path::new("."), config)
    }

    /// Creates a test bench like [`test_bench`](Self::test_bench), but with file names relative to
    /// `directory`.
    ///
    /// # Errors
    ///
    /// As [`test_bench`](Self::test_bench).
    pub fn test_bench_in(&self, directory: &Path, config: &str) -> Result<TestBench, String> {
        self.test_bench_with_ports(directory, config, &[])
    }

    /// Creates a test bench like [`test_bench_in`](Self::test_bench_in). Each [`PortInfo`] in
    /// `properties` sets MAC address, MTU and IP addresses of the port with the same name.
    ///
    /// # Errors
    ///
    /// As [`test_bench`](Self::test_bench).
    pub fn test_bench_with_ports(
        &self,
        directory: &Path,
        config: &str,
        properties: &[PortInfo],
    ) -> Result<TestBench, String> {
        let machine = KnownPorts(properties);
        let plan = self.plan_for_test(directory, config, &machine)?;
        let ports = machine.describe(&plan.ports);
        let mut builder = TestBench::builder().workers(plan.workers.len()).ports(ports);
        for path in &plan.paths {
            let (from, to) = ends(&plan, path);
            builder = builder.plans(from, to, stages(path));
        }
        builder.build().map_err(|error| error.to_string())
    }

    /// Reloads a test bench with another configuration. A new stage keeps counters and state of the
    /// old stage with the same name and kind. Returns the names of the other new stages, whose
    /// counters start from zero.
    ///
    /// # Errors
    ///
    /// - If the configuration is invalid, as for [`test_bench`](Self::test_bench), or if its ports
    ///   or paths differ from those of the bench. The bench keeps its stages.
    /// - If a stage cannot acquire its resources. New stages of earlier paths run already; other
    ///   paths keep their old stages.
    ///
    /// # Panics
    ///
    /// If a stage loses a frame.
    #[track_caller]
    pub fn reload_test_bench(
        &self,
        bench: &mut TestBench,
        directory: &Path,
        config: &str,
    ) -> Result<Vec<String>, String> {
        let plan = self.plan_for_test(directory, config, &NoMachine)?;
        let names = |port: &PortInfo| port.name.clone();
        let ports = ports_without_interfaces(&plan.ports);
        let has_same_ports = ports.iter().map(names).eq(bench.ports().iter().map(names));
        if !has_same_ports || !plan.paths.iter().map(|path| ends(&plan, path)).eq(bench.paths()) {
            return Err("ports and paths cannot change on reload; only stages can".to_owned());
        }
        // New stages that inherit no counters.
        let mut restarted = Vec::new();
        for path in &plan.paths {
            let (from, _) = ends(&plan, path);
            let swapped = bench.reload_plans(from, stages(path));
            let swapped = swapped.map_err(|error| error.to_string())?;
            restarted.extend(swapped.afresh);
        }
        Ok(restarted)
    }

    fn plan_for_test(
        &self,
        directory: &Path,
        config: &str,
        machine: &dyn Machine,
    ) -> Result<Plan, String> {
        let source = Source::new(FILE_NAME.to_owned(), config.to_owned());
        let planned = config::plan(&source, directory, &self.registry, machine);
        planned.map(|(plan, _)| plan).map_err(|errors| errors.to_string().trim_end().to_owned())
    }
}

/// [`NoMachine`], but with these addresses and MTUs of ports.
struct KnownPorts<'a>(&'a [PortInfo]);

impl Machine for KnownPorts<'_> {
    fn cores(&self) -> Vec<usize> {
        NoMachine.cores()
    }

    fn interface(&self, name: &str) -> Option<Interface> {
        NoMachine.interface(name)
    }

    /// Returns no lockouts: the ports take none of this host's own traffic.
    fn lockouts(&self, plan: &Plan) -> io::Result<Lockouts> {
        NoMachine.lockouts(plan)
    }

    fn interfaces(&self) -> Vec<String> {
        NoMachine.interfaces()
    }

    fn describe(&self, ports: &[PortPlan]) -> Ports {
        let configured = ports_without_interfaces(ports);
        let with_test_properties =
            |port: &PortInfo| match self.0.iter().find(|info| info.name == port.name) {
                Some(PortInfo { mac, mtu, addresses, .. }) => {
                    PortInfo { mac: *mac, mtu: *mtu, addresses: addresses.clone(), ..port.clone() }
                }
                None => port.clone(),
            };
        configured.iter().map(with_test_properties).collect()
    }
}

fn ends<'a>(plan: &'a Plan, path: &PathPlan) -> (&'a str, &'a str) {
    let [from, to] = [path.from, path.to].map(|id| &*plan.ports[usize::from(id.0)].name);
    (from, to)
}

fn stages(path: &PathPlan) -> impl Iterator<Item = (&str, Arc<dyn StagePlan>)> {
    path.stages.iter().map(|stage| (&*stage.name, Arc::clone(&stage.plan)))
}

#[cfg(test)]
mod tests {
    use xdpfwd_pipeline::testing::Disposition;
    use xdpfwd_pipeline::{BuildCx, Cx, DropReason, PlanCx, PlanError};
    use xdpfwd_pipeline::{PortAddress, PortId, PortName, Stage, View};
    use xdpfwd_wire::MacAddr;

    use super::*;

    static DENIED: DropReason =
        DropReason::new("test_bench_denied", "Denied by the stage of a test.");

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct SteerConfig {
        to: Option<PortName>,
    }

    #[derive(Clone, Debug)]
    struct Steer {
        to: Option<PortId>,
        workers: usize,
        from: String,
        mac: Option<MacAddr>,
        ipv4: Option<std::net::Ipv4Addr>,
        seen: u64,
    }

    impl StagePlan for Steer {
        fn build(&self, cx: &BuildCx<'_>) -> Box<dyn Stage> {
            let port = cx.from_port().unwrap();
            let (from, mac, ipv4) = (port.interface.clone(), port.mac, port.ipv4());
            Box::new(Self { workers: cx.workers, from, mac, ipv4, ..self.clone() })
        }

        fn summary(&self) -> String {
            String::new()
        }
    }

    impl Stage for Steer {
        fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
            for mut packet in view.packets() {
                self.seen += 1;
                match self.to {
                    Some(port) => packet.send_to(port),
                    None => packet.drop(&DENIED),
                }
            }
        }

        fn counters(&self) -> Vec<(&'static str, u64)> {
            vec![("seen", self.seen)]
        }
    }

    fn app() -> App {
        let plan = |config: SteerConfig, cx: &PlanCx<'_>| {
            DENIED.register()?;
            let to = config.to.map(|to| Ok::<_, PlanError>(to.resolve(cx)?.id)).transpose()?;
            Ok(Steer { to, workers: 0, from: String::new(), mac: None, ipv4: None, seen: 0 })
        };
        App::new("test", "0").stages(xdpfwd_stages::builtin()).stage_with("steer", plan)
    }

    /// Returns a configuration with the stage `s` on the path from n3 to n6.
    fn config(stage: &str) -> String {
        let port = |name: &str| {
            let queues = "queues = 2";
            format!(
                "[[port]]
name = \"{name}\"
interface = \"if-{name}\"
{queues}

"
            )
        };
        let ports: String = ["n3", "n6", "n9"].map(port).concat();
        let path = "[[path]]\nfrom = \"n3\"\nto = \"n6\"\nstages = [\"s\"]\n";
        let workers = "[engine]\ncores = [0, 1]\n\n";
        format!("{workers}{ports}{path}\n[stage.s]\n{stage}\n")
    }

    #[test]
    fn test_bench_builds_stages_with_configured_ports_and_workers() {
        let mut bench = app().test_bench(&config("kind = \"steer\"\nto = \"n9\"")).unwrap();
        assert_eq!(bench.send("n3", &[1; 60]), Disposition::sent("n9", [1; 60]));
        let stage_values = bench.worker().stages_mut(|name, steer: &mut Steer| {
            assert_eq!(name, "s");
            (steer.workers, steer.from.clone())
        });
        assert_eq!(stage_values, [(2, "if-n3".to_owned())]);
        assert_eq!(bench.counters("s"), [("seen", 1)]);
    }

    #[test]
    fn test_bench_with_ports_gives_stages_the_port_addresses() {
        let address = PortAddress { ip: [192, 0, 2, 1].into(), prefix_len: 24 };
        let mac = Some(MacAddr([2, 0, 0, 0, 0, 3]));
        let n3 =
            PortInfo { mac, addresses: vec![address], ..PortInfo::new(PortId(7), "n3", "other") };
        let stage = config("kind = \"steer\"");
        let mut bench = app().test_bench_with_ports(Path::new("."), &stage, &[n3]).unwrap();
        let stage_values =
            bench.worker().stages_mut(|_, steer: &mut Steer| (steer.mac, steer.ipv4));
        assert_eq!(stage_values, [(mac, Some([192, 0, 2, 1].into()))]);
        let port = bench.ports().by_name("n3").unwrap();
        assert_eq!((port.id, &*port.interface, port.queues), (PortId(0), "if-n3", 2));
        assert_eq!(bench.ports().by_name("n6").unwrap().mac, Some(MacAddr([2, 0, 0, 0, 0, 2])));
    }

    #[test]
    fn test_bench_returns_errors_with_line_and_column() {
        let error = |stage: &str| app().test_bench(&config(stage)).unwrap_err();
        assert_eq!(
            error("kind = \"steer\"\nto = \"n8\""),
            "test.toml:26:6: no port is called \"n8\"; the ports are: \"n3\", \"n6\", \"n9\""
        );
        let two_errors = error("kind = \"ttl\"\n[stage.t]\nkind = \"ttl\"\nby = 1\nat = 1");
        assert!(two_errors.lines().count() >= 2, "{two_errors}");
        // Both errors are on lines 20 to 29.
        assert!(two_errors.lines().all(|line| line.starts_with("test.toml:2")), "{two_errors}");
    }

    #[test]
    fn reload_test_bench_keeps_counters_and_rejects_other_paths() {
        let app = app();
        let directory = Path::new(".");
        let mut bench = app.test_bench(&config("kind = \"steer\"")).unwrap();
        assert_eq!(bench.send("n3", &[1; 60]), Disposition::dropped(&DENIED));

        let to_n9 = config("kind = \"steer\"\nto = \"n9\"");
        let restarted = app.reload_test_bench(&mut bench, directory, &to_n9).unwrap();
        assert_eq!(restarted, Vec::<String>::new());
        assert_eq!(bench.send("n3", &[1; 60]), Disposition::sent("n9", [1; 60]));
        assert_eq!(bench.counters("s"), [("seen", 2)]);

        let other_path = to_n9.replace("to = \"n6\"", "to = \"n9\"");
        let error = app.reload_test_bench(&mut bench, directory, &other_path).unwrap_err();
        assert_eq!(error, "ports and paths cannot change on reload; only stages can");
        let restarted =
            app.reload_test_bench(&mut bench, directory, &config("kind = \"mac-swap\""));
        assert_eq!(restarted.unwrap(), ["s"]);
    }

    #[cfg(feature = "filter")]
    #[test]
    fn filter_rate_limit_refills_as_time_advances() {
        use std::time::Duration;

        use xdpfwd_pipeline::Reason;

        let rules = "rules = [\"accept limit 10pps burst 1\"]";
        let limited = format!(
            "kind = \"filter\"
default = \"drop\"
{rules}"
        );
        let one_worker = config(&limited).replace("cores = [0, 1]", "cores = [0]");
        let mut packet = [0; 60];
        packet[..16].copy_from_slice(b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\0\x45\0");
        packet[17] = 46; // total length in the IPv4 header
        let passed = Disposition::sent("n6", packet);
        let rate_limited = Disposition::dropped(Reason::RATE_LIMIT);

        let mut bench = app().test_bench(&one_worker).unwrap();
        assert_eq!(bench.send_all("n3", [packet; 2]), [passed.clone(), rate_limited.clone()]);
        bench.advance(Duration::from_millis(99));
        assert_eq!(bench.send("n3", &packet), rate_limited);
        bench.advance(Duration::from_millis(1));
        assert_eq!(bench.send("n3", &packet), passed);
    }
}
