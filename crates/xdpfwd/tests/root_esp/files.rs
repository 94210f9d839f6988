//! Configuration, key files and state files.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use serde_json::json;
use xdpfwd_testkit::Folder;

use crate::support::esp::{Lab, Sender, Setup, key, received, spi};
use crate::support::socket::Socket;
use crate::support::wire::{hex, unhex};
use crate::support::{Config, Running, TIMEOUT, XDPFWD, stderr, until};
use crate::{for_side_0, stop};

/// Runs xdpfwd for 0.2 s, or until it rejects the configuration.
fn run_briefly(lab: &Lab, config: &str) -> Output {
    let config = Config::new(config);
    lab.namespaces
        .fwd()
        .command(XDPFWD)
        .args(["--config", config.path(), "--duration", "0.2"])
        .output()
        .unwrap()
}

/// Checks that xdpfwd rejects a configuration, with an error that contains all `parts`.
#[track_caller]
fn assert_rejected(lab: &Lab, config: &str, exit_code: i32, parts: &[&str]) {
    let output = run_briefly(lab, config);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(exit_code), "{parts:?}: {text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn invalid_esp_configuration_is_rejected() {
    let lab = Lab::with_silent_hosts(1);
    let valid = Setup::default().config(&lab, 0);
    assert_eq!(
        run_briefly(&lab, &valid).status.code(),
        Some(0),
        "{}",
        stderr(&run_briefly(&lab, &valid))
    );
    let valid_with = |from: &str, to: &str| {
        assert!(valid.contains(from), "{from}: {valid}");
        valid.replacen(from, to, 1)
    };
    let spis = ["spi = 4097\n", "spi = 8193\n"];
    let (key_0, key_1) =
        (lab.key_file(spi(0, 1), "aes-128-gcm"), lab.key_file(spi(1, 1), "aes-128-gcm"));
    let (key_0, key_1) = (format!("{key_0:?}"), format!("{key_1:?}"));
    for (config, parts) in [
        (valid_with("lab = true\n", ""), &["missing key `lab`"][..]),
        (valid_with("lab = true\n", "lab = false\n"), &["lab", "true"]),
        (valid_with("bypass", "bypas"), &["unknown key `bypas`", "bypass"]),
        (valid_with(spis[0], "spi = 4097\nnonce = 1\n"), &["unknown key `nonce`"]),
        (valid_with(spis[1], "spi = 8193\nttl = 3\n"), &["ttl"]),
        (valid_with(spis[0], "spi = 255\n"), &["255", "256"]),
        (valid_with("\"aes-128-gcm\"", "\"aes-128-cbc\""), &["aes-128-cbc", "aes-128-gcm"]),
        (valid_with("mode = \"tunnel\"", "mode = \"transport\""), &["source", "transport"]),
        (valid_with("source = \"192.0.2.1\"\n", ""), &["source", "tunnel"]),
        (
            valid_with("source = \"192.0.2.1\"", "source = \"2001:db8::1\""),
            &["192.0.2.2", "2001:db8::1"],
        ),
        (valid_with(spis[1], "spi = 8193\nwindow = 100\n"), &["100", "64"]),
        (valid_with("kind = \"esp-seal\"", "kind = \"esp-seal\"\nmtu = 575"), &["575", "576"]),
        (valid_with("bypass = [\"arp\"]", "bypass = [\"tcp\"]"), &["tcp", "unmatched"]),
        (
            valid_with("kind = \"esp-seal\"", "kind = \"esp-seal\"\nbackend = \"openssl\""),
            &["openssl", "aws-lc"],
        ),
        (
            valid_with(&key_1, &key_0),
            &["stage \"in\": the key", "is also used by stage \"out\"", "xdpfwd esp new-key"],
        ),
    ] {
        assert_rejected(&lab, &config, 2, parts);
    }
    // xdpfwd selects an inbound SA by SPI and destination, so two SAs must not share both.
    let same_spi = Setup { inbound: vec![1, 1], ..Setup::default() }.config(&lab, 0);
    assert_rejected(&lab, &same_spi, 2, &["8193"]);
}

#[test]
fn invalid_key_or_state_file_is_rejected() {
    let lab = Lab::with_silent_hosts(1);
    let setup = Setup::default();
    let config = setup.config(&lab, 0);
    let path = lab.key_file(spi(0, 1), "aes-128-gcm");
    let name = path.to_str().unwrap();
    let valid = fs::read_to_string(&path).unwrap();
    let restore = || {
        let _ = fs::remove_file(&path);
        lab.folder.secret(path.file_name().unwrap().to_str().unwrap(), &valid);
    };

    fs::remove_file(&path).unwrap();
    assert_rejected(&lab, &config, 2, &[name, "xdpfwd esp new-key"]);
    restore();
    for mode in [0o644, 0o640, 0o602] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_rejected(&lab, &config, 2, &[name, "chmod 600"]);
    }
    restore();
    let real = lab.folder.secret("real.key", &valid);
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&real, &path).unwrap();
    assert_rejected(&lab, &config, 2, &[name, "link"]);
    restore();
    std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
    assert_rejected(&lab, &config, 2, &[name, "65534"]);
    restore();
    for (invalid, error) in [
        (&valid[..38], "38 hexadecimal digits"),
        ("00", "expected 40"),
        ("", "expected 40"),
        ("nonsense", "hex"),
    ] {
        lab.folder.secret(path.file_name().unwrap().to_str().unwrap(), invalid);
        let output = run_briefly(&lab, &config);
        assert!(
            output.status.code() == Some(2) && stderr(&output).contains(name),
            "{invalid:?}: {}",
            stderr(&output)
        );
        assert!(stderr(&output).contains(error), "{invalid:?}: {}", stderr(&output));
        // Errors must not quote the content of the file.
        assert!(
            invalid.len() < 4 || !stderr(&output).contains(&invalid[..4]),
            "{invalid:?}: {}",
            stderr(&output)
        );
    }
    // As in `ip xfrm`, a key may have the prefix 0x.
    lab.folder.secret(
        path.file_name().unwrap().to_str().unwrap(),
        &format!("  0x{}\n\n", valid.trim().to_uppercase()),
    );
    assert_eq!(
        run_briefly(&lab, &config).status.code(),
        Some(0),
        "{}",
        stderr(&run_briefly(&lab, &config))
    );
    restore();

    let path = lab.state_file(0);
    let name = path.to_str().unwrap();
    let valid = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert_rejected(&lab, &config, 1, &[name, "xdpfwd esp new-state"]);
    // Neither checksum in the file matches any more.
    let damaged = valid.replace("epoch = ", "epoch  = ");
    for invalid in
        ["", "garbage", &valid[..valid.len() / 2], "version = 3\nepoch = 1\n# end\n", &damaged]
    {
        lab.folder.secret("0.state", invalid);
        assert_rejected(&lab, &config, 1, &[name]);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            invalid,
            "xdpfwd changed an invalid state file"
        );
    }
    // Files of version 1 with other epochs. At a start, xdpfwd sets the epoch (the upper half of
    // IVs) to the time in seconds, but always above the epoch in the file.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let epoch = |text: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("epoch = "))
            .unwrap_or_else(|| panic!("{text}"));
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let with_epoch = |value: u64| format!("version = 1\nepoch = {value}\n# end\n");
    lab.folder.secret("0.state", &with_epoch(now + 100_000));
    assert_rejected(&lab, &config, 1, &[name, "clock"]);
    // If that epoch is only two seconds ahead of the clock, xdpfwd waits and then starts.
    let ahead = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 2;
    lab.folder.secret("0.state", &with_epoch(ahead));
    assert_eq!(run_briefly(&lab, &config).status.code(), Some(0));
    let written = fs::read_to_string(&path).unwrap();
    let epochs = written.split("\ngeneration").skip(1).map(epoch);
    let new_epoch = epochs.max().unwrap();
    assert!(new_epoch > ahead, "the new epoch {new_epoch} is not above the stored epoch {ahead}");

    // The second xdpfwd has other interfaces, but the same state file.
    let mut first = lab.start_one(&setup, 0);
    let second_config = config.replace("fwd0", "fwd1").replace("wan0", "wan1");
    assert_rejected(&lab, &second_config, 1, &[name, "is in use", &format!("fuser {name}")]);
    first.forwarder.check_running().unwrap();
    stop(first);
    assert_eq!(
        run_briefly(&lab, &second_config).status.code(),
        Some(0),
        "{}",
        stderr(&run_briefly(&lab, &second_config))
    );
}

#[test]
fn new_key_and_new_state_never_overwrite_a_file() {
    let folder = Folder::new();
    let run_esp = |arguments: &[&str], path: &Path| {
        Command::new(XDPFWD).arg("esp").args(arguments).arg(path).output().unwrap()
    };
    let mut keys = vec![];
    for (transform, bytes) in
        [("aes-128-gcm", 20), ("null-aes-256-gmac", 36), ("chacha20-poly1305", 36)]
    {
        for index in 0..2 {
            let path = folder.join(format!("{transform}-{index}"));
            let output = run_esp(&["new-key", "--transform", transform], &path);
            assert!(output.status.success(), "{output:?}");
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            let key = fs::read_to_string(&path).unwrap();
            assert_eq!((mode, unhex(key.trim().trim_start_matches("0x")).len()), (0o600, bytes));
            let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
            assert!(!printed.contains(&key.trim()[2..10]), "{printed}");
            let again = run_esp(&["new-key", "--transform", transform], &path);
            assert!(
                !again.status.success() && stderr(&again).contains(path.to_str().unwrap()),
                "{again:?}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), key);
            keys.push(key);
        }
    }
    let distinct: BTreeSet<_> = keys.iter().map(|key| &key[..20]).collect();
    assert_eq!(distinct.len(), keys.len());
    let path = folder.join("state");
    assert!(run_esp(&["new-state"], &path).status.success());
    let state = fs::read_to_string(&path).unwrap();
    let again = run_esp(&["new-state"], &path);
    assert!(
        !again.status.success() && stderr(&again).contains(path.to_str().unwrap()),
        "{again:?}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), state);
}

/// Returns whether a text contains four consecutive bytes of a key, in hexadecimal or decimal.
fn contains_key(text: &str, key: &str) -> bool {
    let bytes = unhex(key);
    let text = text.to_lowercase();
    bytes.windows(4).any(|part| {
        let list = format!("{part:?}");
        text.contains(&hex(part)) || text.contains(list.trim_matches(['[', ']']))
    })
}

#[test]
fn keys_are_in_no_output_and_no_core_dump() {
    let lab = Lab::with_silent_hosts(1);
    let socket = Socket::new("esp");
    let setup =
        Setup { engine: for_side_0(&format!("control = {:?}", socket.path())), ..Setup::default() };
    let keys = [0, 1].map(|side| key(spi(side, 1), setup.transform));
    // `contains_key` must find both forms of a key.
    assert!(
        contains_key(&format!("x{}x", keys[0].to_uppercase()), &keys[0])
            && contains_key(&format!("{:?}", unhex(&keys[0])), &keys[0])
    );
    let config = Config::new(&setup.config(&lab, 0));
    let start = |config: &Config| {
        let arguments = [XDPFWD, "--config", config.path(), "--json", "--interval", "0.05"];
        // A core dump may go to the working directory, so run in a folder that the lab removes.
        let folder = lab.folder.to_path_buf();
        let prefix = [
            "env",
            "-C",
            folder.to_str().unwrap(),
            "RUST_LOG=trace",
            "prlimit",
            "--core=unlimited",
        ];
        let mut forwarder =
            xdpfwd_lab::Forwarder::spawn(lab.namespaces.fwd(), &[&prefix[..], &arguments].concat())
                .unwrap();
        forwarder.wait_for_line(TIMEOUT, |line| line.contains(r#""type":"interval""#)).unwrap();
        let unused = Config::new(""); // `config` is the file that xdpfwd reads
        Running::from_forwarder(forwarder, unused)
    };
    let receiver = lab.start_one(&setup, 1);
    let running = start(&config);
    Sender::start(lab.namespaces.gen_(), "gen0", 2_000, 1, Some(100)).finish();
    until("xdpfwd has received all packets", || received(&running, "fwd0") >= 100);
    let sa = socket.query("sa");
    let out = &sa["sas"][0];
    let fields = ["stage", "direction", "spi", "transform", "sequence", "packets", "drops"];
    assert_eq!(
        fields.map(|key| out[key].clone()),
        [
            "out".into(),
            "out".into(),
            spi(0, 1).into(),
            "aes-128-gcm".into(),
            100.into(),
            100.into(),
            json!({})
        ],
        "{sa}"
    );
    assert_eq!(
        (&sa["sas"][1]["spi"], sa["sas"].as_array().unwrap().len()),
        (&spi(1, 1).into(), 2),
        "{sa}"
    );
    let mut texts = vec![sa.to_string(), String::from_utf8(socket.ctl(&["sa"]).stdout).unwrap()];
    for command in ["status", "stats"] {
        texts.push(socket.query(command).to_string());
    }
    running.reload("INFO reloaded");
    let abort = |mut running: Running| {
        // Not SIGSEGV: Rust's handler for stack overflows would ignore the first SIGSEGV.
        running.signal(Signal::SIGABRT);
        running.wait();
        let output = [running.forwarder.stdout(), running.forwarder.stderr()].concat().join("\n");
        (running.forwarder.stop(TIMEOUT).unwrap().status, output)
    };
    let (status, output) = abort(running);
    assert_eq!((status.signal(), status.core_dumped()), (Some(Signal::SIGABRT as i32), false));
    texts.push(output);
    texts.push(fs::read_to_string(lab.state_file(0)).unwrap());
    for text in &texts {
        assert!(text.len() > 20 && keys.iter().all(|key| !contains_key(text, key)), "{text}");
    }
    // The check above proves something only if the texts are about the keys: `ctl sa` must print
    // the fingerprints of the keys.
    let state = texts.last().unwrap();
    let fingerprints: Vec<_> = state
        .lines()
        .filter_map(|line| line.strip_prefix("fingerprint = \"")?.split('"').next())
        .collect();
    assert!(!fingerprints.is_empty(), "{state}");
    for fingerprint in fingerprints {
        assert!(
            fingerprint.len() == 16
                && texts[0].contains(fingerprint)
                && texts[1].contains(fingerprint),
            "{fingerprint}: {}",
            texts[0]
        );
    }
    // Without ESP, the same signal causes a core dump. So ESP prevents it above.
    let without_esp = Config::new(&crate::support::cross_connect_between(["fwd0", "wan0"], 1, ""));
    assert!(abort(start(&without_esp)).0.core_dumped(), "no core dump without ESP");
    stop(receiver);
}
