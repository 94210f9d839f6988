//! Tests SIGHUP: a reload replaces the stages under load without packet loss or wrong decisions,
//! and an invalid configuration changes nothing. Needs root.

mod support;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use support::socket::Socket;
use support::{Config, Final, Running, TIMEOUT, chain, cross_connect, in_step};
use xdpfwd_lab::{Chain, Sink, Traffic};

/// A temporary rule file.
struct Rules(PathBuf);

impl Rules {
    fn new(name: &str, rules: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{}-{name}.rules", std::process::id()));
        fs::write(&path, rules).unwrap();
        Self(path)
    }

    fn write(&self, rules: &str) {
        // Replace the file atomically, as an editor does.
        let new = self.0.with_extension("new");
        fs::write(&new, rules).unwrap();
        fs::rename(new, &self.0).unwrap();
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Returns a cross-connect with a filter in each direction.
fn config(place: &str, forth: &Rules, back: &Rules) -> String {
    config_with(place, forth, back, "")
}

/// Returns the same configuration with additional lines of `[engine]`.
fn config_with(place: &str, forth: &Rules, back: &Rules, engine: &str) -> String {
    let stages = |text: String, to: &str, name: &str| {
        text.replace(&format!("to = \"{to}\""), &format!("to = \"{to}\"\nstages = [\"{name}\"]"))
    };
    let text = stages(
        stages(cross_connect(1, &format!("cores = [1]\n{engine}")), "wan", "forth"),
        "lan",
        "back",
    );
    let filter = |name: &str, rules: &Rules| {
        let rules = rules.0.to_str().unwrap();
        format!(
            "[stage.{name}]\nkind = \"filter\"\nplace = \"{place}\"\n\
             default = \"drop\"\nrules = {rules:?}\n"
        )
    };
    format!("{text}\n{}{}", filter("forth", forth), filter("back", back))
}

/// Returns rules that match no traffic, followed by one that does.
fn many(count: usize, shift: usize, last: &str) -> String {
    let others = (0..count)
        .map(|n| format!("drop src 198.18.{}.0/24 proto tcp dport {}\n", n % 256, shift + n / 256));
    others.collect::<String>() + last + "\n"
}

#[test]
fn hundred_reloads_under_load_lose_no_packet() {
    reload_in_user_space(100);
}

#[test]
#[ignore = "long: make test-long"]
fn thousand_reloads_under_load_lose_no_packet() {
    reload_in_user_space(1000);
}

fn reload_in_user_space(reloads: usize) {
    let last = reload_under_load("user", reloads);
    // Unchanged rules keep their counters: the last rule accepted all packets.
    let stages = last.json["stages"].as_array().unwrap();
    let own = stages.iter().find(|stage| stage["name"] == "forth").unwrap();
    assert_eq!(own["counters"]["accepted"], own["packets"], "{own}");
}

#[test]
fn hundred_reloads_of_kernel_filter_lose_no_packet() {
    reload_in_the_kernel(100);
}

#[test]
#[ignore = "long: make test-long"]
fn thousand_reloads_of_kernel_filter_lose_no_packet() {
    reload_in_the_kernel(1000);
}

fn reload_in_the_kernel(reloads: usize) {
    let last = reload_under_load("kernel", reloads);
    assert_eq!(last.report.drops["policy"], 0, "{}", last.json);
}

fn reload_under_load(place: &str, reloads: usize) -> Final {
    let chain = chain(Chain::builder());
    let unique = |name: &str| format!("{place}-{reloads}-{name}");
    let (accepting, dropping) = (
        Rules::new(&unique("accepting"), &many(1000, 1, "accept")),
        Rules::new(&unique("dropping"), &many(1000, 1, "drop")),
    );
    let socket = Socket::new(&unique("reload"));
    let control = format!("control = {:?}", socket.path());
    let running = Running::start(&chain, &config_with(place, &accepting, &dropping, &control));
    let forth = Sink::builder().check(true).attach(chain.sink(), "sink0").unwrap();
    let back = Sink::attach(chain.gen_(), "gen0").unwrap();
    // Send until the last reload is complete.
    let traffic = Traffic::new().size(60).flows(16).rate(10_000).on_grant().core(0);
    let generator_forth = traffic.start(chain.gen_(), "gen0").unwrap();
    let generator_back = traffic.start(chain.sink(), "sink0").unwrap();
    // All packets back are dropped, so both generators follow the packets that arrive forth; one
    // worker forwards both directions.
    in_step(&[(&generator_forth, &forth), (&generator_back, &forth)], || {
        for round in 0..reloads {
            let shift = 1 + round % 7;
            accepting.write(&many(1000 + 10 * shift, shift, "accept"));
            dropping.write(&many(2000 - 10 * shift, shift, "drop"));
            running.reload("INFO reloaded");
        }
    });
    let (sent_forth, sent_back) = (generator_forth.stop().unwrap(), generator_back.stop().unwrap());
    // Wait for packets in flight.
    let deadline = Instant::now() + TIMEOUT;
    while forth.seen().unwrap().arrived.packets < sent_forth.packets && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    // The last rule of each filter matched all packets, across all programs and stages.
    let filters = socket.query("rules")["filters"].clone();
    let counted = |filter: usize| {
        filters[filter]["rules"].as_array().unwrap().last().unwrap()["packets"].clone()
    };
    assert_eq!(
        filters[0]["rules"].as_array().unwrap().len(),
        1000 + 10 * (1 + (reloads - 1) % 7) + 1,
        "rules of the last file"
    );
    assert_eq!((counted(0), counted(1)), (sent_forth.packets.into(), sent_back.packets.into()));
    let (ended, last) = running.stop();
    assert!(ended.status.success(), "{ended:?}");
    last.assert_conserved();
    let seen = forth.seen().unwrap();
    assert!(seen.is_clean(), "{seen:?}: {}", last.json);
    assert_eq!(seen.arrived.packets, sent_forth.packets, "{}", last.json);
    assert_eq!(
        back.seen().unwrap().arrived.packets,
        0,
        "packets passed the rule that drops them: {}",
        last.json
    );
    let in_kernel = last.json["ports"][1]["xdp_dropped"].as_u64().unwrap();
    assert_eq!(last.report.drops["policy"] + in_kernel, sent_back.packets, "{}", last.json);
    println!(
        "{} packets forth and {} back, {reloads} reloads",
        sent_forth.packets, sent_back.packets
    );
    last
}

#[test]
fn reload_with_invalid_configuration_changes_nothing() {
    let chain = chain(Chain::builder());
    let (forth, back) = (Rules::new("good", "accept"), Rules::new("other", "drop"));
    let valid = config("user", &forth, &back);
    let config = Config::new(&valid);
    let mut forwarder = xdpfwd_lab::Forwarder::spawn(
        chain.fwd(),
        &[support::XDPFWD, "--config", config.path(), "--json", "--interval", "0.05"],
    )
    .unwrap();
    forwarder.wait_for_line(TIMEOUT, |line| line.contains(r#""type":"interval""#)).unwrap();
    let running = Running::of(forwarder, Config::new(""));
    let sink = Sink::builder().check(true).attach(chain.sink(), "sink0").unwrap();
    let assert_passes = |expected: u64| {
        let before = sink.seen().unwrap().arrived.packets;
        Traffic::new()
            .size(60)
            .rate(10_000)
            .count(100)
            .core(0)
            .start(chain.gen_(), "gen0")
            .unwrap()
            .finish(TIMEOUT)
            .unwrap();
        thread::sleep(Duration::from_millis(100));
        assert_eq!(
            sink.seen().unwrap().arrived.packets - before,
            expected,
            "{:#?}",
            running.forwarder.stderr()
        );
    };
    assert_passes(100);
    forth.write("drop\naccept proto nonsense\n");
    running.reload("not reloaded: the configuration is invalid");
    assert_eq!(
        running.count_log("good.rules:2:14: unknown protocol `nonsense`"),
        1,
        "{:#?}",
        running.forwarder.stderr()
    );
    assert_passes(100);
    forth.write("accept");
    fs::write(config.path(), valid.replace("cores = [1]", "cores = [0]")).unwrap();
    running.reload("not reloaded: `cores` cannot change on reload; restart to apply it");
    assert_passes(100);
    fs::write(config.path(), &valid).unwrap();
    forth.write("drop proto udp\naccept");
    running.reload("INFO reloaded");
    assert_passes(0);
    let (ended, last) = running.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(last.report.drops["policy"], 100, "{}", last.json);
    last.assert_conserved();
}
