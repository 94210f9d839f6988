//! Tests SIGHUP: a reload replaces the stages under load without packet loss or wrong decisions,
//! and an invalid configuration changes nothing.

mod support;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use support::socket::Socket;
use support::{Config, Final, LONG, Running, chain, cross_connect, in_step};
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

/// The same, with more lines of `[engine]`.
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
            "[stage.{name}]\nkind = \"filter\"\nplace = \"{place}\"\ndefault = \"drop\"\nrules = {rules:?}\n"
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
fn a_hundred_reloads_under_load_lose_nothing_and_judge_nothing_wrongly() {
    reload_in_user_space(100);
}

#[test]
#[ignore = "long: make test-long"]
fn a_thousand_reloads_under_load_lose_nothing_and_judge_nothing_wrongly() {
    reload_in_user_space(1000);
}

fn reload_in_user_space(reloads: usize) {
    let last = reload_under_load("user", reloads);
    // Of rules that stay as they are, the counters go on: all that came was accepted by the last
    // one.
    let stages = last.json["stages"].as_array().unwrap();
    let own = stages.iter().find(|stage| stage["name"] == "forth").unwrap();
    assert_eq!(own["counters"]["accepted"], own["packets"], "{own}");
}

#[test]
fn nor_do_a_hundred_in_the_kernel() {
    reload_in_the_kernel(100);
}

#[test]
#[ignore = "long: make test-long"]
fn a_thousand_reloads_in_the_kernel_lose_nothing_and_judge_nothing_wrongly() {
    reload_in_the_kernel(1000);
}

fn reload_in_the_kernel(reloads: usize) {
    let last = reload_under_load("kernel", reloads);
    assert_eq!(last.report.drops["policy"], 0, "{}", last.json);
}

fn reload_under_load(place: &str, reloads: usize) -> Final {
    let chain = chain(Chain::builder());
    let named = |name: &str| format!("{place}-{reloads}-{name}");
    let (accepting, dropping) = (
        Rules::new(&named("accepting"), &many(1000, 1, "accept")),
        Rules::new(&named("dropping"), &many(1000, 1, "drop")),
    );
    let socket = Socket::new(&named("reload"));
    let control = format!("control = {:?}", socket.path());
    let running = Running::start(&chain, &config_with(place, &accepting, &dropping, &control));
    let forth = Sink::builder().check(true).attach(chain.sink(), "sink0").unwrap();
    let back = Sink::attach(chain.gen_(), "gen0").unwrap();
    // Until the last reload is complete.
    let traffic = Traffic::new().size(60).flows(16).rate(10_000).on_grant().core(0);
    let there = traffic.start(chain.gen_(), "gen0").unwrap();
    let here = traffic.start(chain.sink(), "sink0").unwrap();
    // Nothing arrives on the way back: it keeps step with the way there, which has the same worker.
    in_step(&[(&there, &forth), (&here, &forth)], || {
        for round in 0..reloads {
            let shift = 1 + round % 7;
            accepting.write(&many(1000 + 10 * shift, shift, "accept"));
            dropping.write(&many(2000 - 10 * shift, shift, "drop"));
            running.reload("INFO reloaded");
        }
    });
    let (sent, against) = (there.stop().unwrap(), here.stop().unwrap());
    // Wait for packets in flight.
    let deadline = Instant::now() + LONG;
    while forth.seen().unwrap().arrived.packets < sent.packets && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    // The last rule of each decided about all that came, by whichever program or stage it was.
    let filters = socket.asked("rules")["filters"].clone();
    let counted = |filter: usize| {
        filters[filter]["rules"].as_array().unwrap().last().unwrap()["packets"].clone()
    };
    assert_eq!(
        filters[0]["rules"].as_array().unwrap().len(),
        1000 + 10 * (1 + (reloads - 1) % 7) + 1,
        "the last file's rules"
    );
    assert_eq!((counted(0), counted(1)), (sent.packets.into(), against.packets.into()));
    let (ended, last) = running.stop();
    assert!(ended.status.success(), "{ended:?}");
    last.assert_conserved();
    let seen = forth.seen().unwrap();
    assert!(seen.is_clean(), "{seen:?}: {}", last.json);
    assert_eq!(seen.arrived.packets, sent.packets, "{}", last.json);
    assert_eq!(
        back.seen().unwrap().arrived.packets,
        0,
        "what is to be dropped slipped through: {}",
        last.json
    );
    let in_kernel = last.json["ports"][1]["xdp_dropped"].as_u64().unwrap();
    assert_eq!(last.report.drops["policy"] + in_kernel, against.packets, "{}", last.json);
    println!("{} packets forth and {} back, {reloads} reloads", sent.packets, against.packets);
    last
}

#[test]
fn what_is_no_good_changes_nothing_and_is_said() {
    let chain = chain(Chain::builder());
    let (forth, back) = (Rules::new("good", "accept"), Rules::new("other", "drop"));
    let written = config("user", &forth, &back);
    let config = Config::new(&written);
    let mut forwarder = xdpfwd_lab::Forwarder::spawn(
        chain.fwd(),
        &[support::XDPFWD, "--config", config.path(), "--json", "--interval", "0.05"],
    )
    .unwrap();
    forwarder.wait_for_line(LONG, |line| line.contains(r#""type":"interval""#)).unwrap();
    let running = Running::of(forwarder, Config::new(""));
    let sink = Sink::builder().check(true).attach(chain.sink(), "sink0").unwrap();
    let passes = |expected: u64| {
        let before = sink.seen().unwrap().arrived.packets;
        Traffic::new()
            .size(60)
            .rate(10_000)
            .count(100)
            .core(0)
            .start(chain.gen_(), "gen0")
            .unwrap()
            .finish(LONG)
            .unwrap();
        thread::sleep(Duration::from_millis(100));
        assert_eq!(
            sink.seen().unwrap().arrived.packets - before,
            expected,
            "{:#?}",
            running.forwarder.stderr()
        );
    };
    passes(100);
    forth.write("drop\naccept proto nonsense\n");
    running.reload("not reloaded: the configuration is no good");
    assert_eq!(
        running.count_log("good.rules:2:14: unknown protocol `nonsense`"),
        1,
        "{:#?}",
        running.forwarder.stderr()
    );
    passes(100);
    forth.write("accept");
    fs::write(config.path(), written.replace("cores = [1]", "cores = [0]")).unwrap();
    running.reload("not reloaded: cores is another than the one that runs: that takes a restart");
    passes(100);
    fs::write(config.path(), &written).unwrap();
    forth.write("drop proto udp\naccept");
    running.reload("INFO reloaded");
    passes(0);
    let (ended, last) = running.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(last.report.drops["policy"], 100, "{}", last.json);
    last.assert_conserved();
}
