//! Configurations with the stages `esp-seal` and `esp-open`.

use super::{KeyFolder, MINIMAL, diagnose};

/// Returns a configuration with an `esp-seal` and an `esp-open` stage, each on a path. For each
/// pair in `changes`, replaces the first occurrence of the first text by the second text.
fn configuration(keys: &KeyFolder, changes: &[(&str, &str)]) -> String {
    let text = format!(
        r#"{MINIMAL}stages = ["seal"]
[[path]]
from = "wan"
to = "lan"
stages = ["open"]
[stage.seal]
kind = "esp-seal"
lab = true
state_file = "x.state"
[[stage.seal.sa]]
spi = 4097
transform = "aes-128-gcm"
key_file = "{0}/out.key"
source = "192.0.2.1"
destination = "192.0.2.2"
[stage.open]
kind = "esp-open"
lab = true
state_file = "x.state"
[[stage.open.sa]]
spi = 8193
transform = "aes-128-gcm"
key_file = "{0}/in.key"
"#,
        keys.display()
    );
    changes.iter().fold(text, |text, (old, new)| {
        assert!(text.contains(old), "{old}");
        text.replacen(old, &new.replace("KEYS", &keys.display().to_string()), 1)
    })
}

#[test]
fn invalid_esp_value_error_lists_accepted_values() {
    let keys = KeyFolder::new();
    let cases: &[&[(&str, &str)]] = &[
        // Without changes, the configuration is valid.
        &[],
        &[("lab = true\n", "")],
        &[("lab = true", "lab = false")],
        &[("spi = 4097", "spi = 255")],
        &[("spi = 4097", "spi = 0x1_0000_0000")],
        &[("aes-128-gcm", "aes-128-cbc")],
        &[("/out.key", "/none.key")],
        &[("/out.key", "/256.key")],
        &[("/in.key", "/out.key")],
        &[("source = \"192.0.2.1\"\n", "")],
        &[("source = \"192.0.2.1\"", "source = \"2001:db8::1\"")],
        &[("source = \"192.0.2.1\"", "source = \"192.0.2\"")],
        &[("source = \"192.0.2.1\"", "mode = \"transport\"")],
        &[(
            "destination = \"192.0.2.2\"",
            "destination = \"192.0.2.2\"\nselector = [\"10.0.0.1/8\"]",
        )],
        &[("destination = \"192.0.2.2\"", "destination = \"192.0.2.2\"\nudp_ports = [4500]")],
        &[("destination = \"192.0.2.2\"", "destination = \"192.0.2.2\"\ndscp = 64")],
        &[(
            "destination = \"192.0.2.2\"",
            "destination = \"192.0.2.2\"\nsoft_packets = 10\nhard_packets = 9",
        )],
        &[("destination = \"192.0.2.2\"", "destination = \"192.0.2.2\"\nwindow = 64")],
        &[("spi = 8193", "spi = 8193\nwindow = 100")],
        &[("spi = 8193", "spi = 8193\nqueue = 1")],
        &[("kind = \"esp-seal\"", "kind = \"esp-seal\"\nbypass = [\"arp\", \"ospf\"]")],
        &[("kind = \"esp-seal\"", "kind = \"esp-seal\"\nmtu = 100")],
        &[(
            "kind = \"esp-seal\"",
            "kind = \"esp-seal\"\nicmp_source = [\"192.0.2.1\", \"192.0.2.2\"]",
        )],
        &[("kind = \"esp-seal\"", "kind = \"esp-seal\"\nbackend = \"openssl\"")],
        // The second path uses `open` as well.
        &[("stages = [\"seal\"]", "stages = [\"open\"]")],
        &[(
            "spi = 8193",
            "spi = 8193\ntransform = \"aes-256-gcm\"\nkey_file = \
             \"KEYS/256.key\"\n[[stage.open.sa]]\nspi = 8193",
        )],
    ];
    let mut report = String::new();
    for changes in cases {
        let text =
            diagnose(&configuration(&keys, changes)).replace(&keys.display().to_string(), "KEYS");
        // The keys are random, so replace their fingerprints (16 digits).
        let mut parts = text.split("the fingerprint ");
        let first = parts.next().unwrap_or_default().to_owned();
        let text =
            parts.fold(first, |text, part| text + "the fingerprint FINGERPRINT" + &part[16..]);
        let change: Vec<_> =
            changes.iter().map(|(old, new)| format!("{old:?} -> {new:?}")).collect();
        report += &format!("--- {}\n{text}\n", change.join(", "));
    }
    assert_snapshot!(report);
}

#[test]
fn documented_sa_keys_equal_accepted_keys() {
    const PAGE: &str = include_str!("../../../../../docs/configuration.md");
    let keys = KeyFolder::new();
    for (kind, spi) in [("esp-seal", "spi = 4097"), ("esp-open", "spi = 8193")] {
        let (_, section) = PAGE.split_once(&format!("### `kind = \"{kind}\"`")).unwrap();
        let (section, _) = section.split_once("\n### ").unwrap();
        let (_, table) = section.split_once("| in an SA |").unwrap();
        let rows = table.lines().skip(2).map_while(|line| line.strip_prefix("| `"));
        let mut rows: Vec<&str> = rows.map(|row| row.split_once('`').unwrap().0).collect();
        let text = diagnose(&configuration(&keys, &[(spi, &format!("{spi}\nzzz = 1"))]));
        let (_, list) = text.split_once(", expected ").unwrap();
        let mut accepted: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
        rows.sort_unstable();
        accepted.sort_unstable();
        assert_eq!(rows, accepted, "{kind}");
    }
}
