//! Tests of invalid configurations, key files and state files.

use super::support::*;

#[test]
fn error_names_cause_of_invalid_table_or_key_file() {
    let folder = Folder::new();
    let valid_seal = table(&folder, "seal.state", &[SEAL], "");
    let valid_open = table(&folder, "open.state", &[OPEN], "");
    assert!(
        plan_for("esp-seal", &valid_seal, 1).is_ok()
            && plan_for("esp-open", &valid_open, 1).is_ok()
    );
    let key_path = valid_seal.split('\'').find(|part| part.ends_with(".key")).unwrap();
    // A valid text, the invalid text that replaces it, and words in the error.
    let invalid_seal_edits: [(&str, &str, &[&str]); 21] = [
        ("lab = true, ", "", &["lab"]),
        ("lab = true", "lab = false", &["lab", "true"]),
        ("spi = 0x12345678", "spi = 255", &["255", "256"]),
        ("spi = 0x12345678", "spi = 4294967296", &["4294967296", "4294967295"]),
        ("spi = 0x12345678, ", "", &["spi"]),
        (
            "aes-128-gcm'",
            "aes-128-cbc'",
            &["aes-128-cbc", "aes-128-gcm", "chacha20-poly1305", "null-aes-256-gmac"],
        ),
        ("aes-128-gcm'", "aes-256-gcm'", &["40", "72"]),
        ("source = '192.0.2.1', ", "", &["source", "tunnel"]),
        ("source = '192.0.2.1'", "source = '2001:db8::1'", &["2001:db8::1", "192.0.2.2"]),
        ("source = '192.0.2.1'", "mode = 'transport', source = '192.0.2.1'", &["transport"]),
        ("source = '192.0.2.1'", "source = 'here'", &["here"]),
        ("spi = ", "udp_ports = [4500], spi = ", &["udp_ports"]),
        ("spi = ", "udp_ports = [0, 4500], spi = ", &["0"]),
        ("spi = ", "dscp = 64, spi = ", &["64", "63"]),
        ("spi = ", "ttl = 0, spi = ", &["0", "255"]),
        ("spi = ", "df = 'keep', spi = ", &["keep", "copy", "set", "clear"]),
        ("spi = ", "selector = ['10.0.0.0/33'], spi = ", &["10.0.0.0/33"]),
        ("spi = ", "window = 64, spi = ", &["window"]),
        ("lab = true", "lab = true, mtu = 575", &["575", "576", "9216"]),
        (
            "lab = true",
            "lab = true, bypass = ['icmp']",
            &["icmp", "arp", "nd", "ike", "not-ip", "unmatched"],
        ),
        ("lab = true", "lab = true, backend = 'openssl'", &["openssl", "aws-lc", "rustcrypto"]),
    ];
    let invalid_open_edits: [(&str, &str, &[&str]); 5] = [
        ("spi = ", "window = 65, spi = ", &["65", "64", "4096"]),
        ("spi = ", "window = 4160, spi = ", &["4160", "4096"]),
        ("spi = ", "udp_port = 0, spi = ", &["0", "65535"]),
        ("lab = true", "lab = true, mtu = 1500", &["mtu"]),
        ("spi = ", "dscp = 1, spi = ", &["dscp"]),
    ];
    let cases = invalid_seal_edits
        .iter()
        .map(|case| ("esp-seal", &valid_seal, case))
        .chain(invalid_open_edits.iter().map(|case| ("esp-open", &valid_open, case)));
    for (kind, valid, (from, to, words)) in cases {
        assert!(valid.contains(from), "{from}");
        let error = plan_for(kind, &valid.replacen(from, to, 1), 1)
            .err()
            .unwrap_or_else(|| panic!("expected an error for a table with {from} → {to}"))
            .to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{from} → {to}: {error}");
    }
    // Invalid key files.
    let assert_error_contains = |words: &[&str]| {
        let error = plan_for("esp-seal", &valid_seal, 1)
            .err()
            .unwrap_or_else(|| panic!("no error; expected one with {words:?}"))
            .to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
        assert!(!error.contains(&KEY_128[8..20]), "the error reveals a key: {error}");
    };
    use std::os::unix::fs::PermissionsExt as _;
    let set_mode =
        |mode| std::fs::set_permissions(key_path, std::fs::Permissions::from_mode(mode)).unwrap();
    for mode in [0o640, 0o604, 0o660] {
        set_mode(mode);
        assert_error_contains(&[key_path, "chmod 600"]);
    }
    for (content, words) in [
        ("00112233", &[key_path, "40"][..]),
        (KEY_256, &[key_path, "40"]),
        ("not digits at all, but forty characters!", &[key_path]),
    ] {
        std::fs::write(key_path, content).unwrap();
        set_mode(0o600);
        assert_error_contains(words);
    }
    // Valid key files.
    for content in [format!("0x{KEY_128}\n"), format!("  {KEY_128} \n"), KEY_128.to_uppercase()] {
        std::fs::write(key_path, content).unwrap();
        assert!(plan_for("esp-seal", &valid_seal, 1).is_ok());
    }
    // A missing key file, and a symbolic link.
    std::fs::rename(key_path, format!("{key_path}.elsewhere")).unwrap();
    assert_error_contains(&[key_path]);
    std::os::unix::fs::symlink(format!("{key_path}.elsewhere"), key_path).unwrap();
    assert_error_contains(&[key_path]);
}

#[test]
fn plan_acquires_only_valid_state_file() {
    let folder = Folder::new();
    let table = table(&folder, "seal.state", &[SEAL], "");
    let state = folder.join("seal.state");
    let state_path = state.to_str().unwrap();
    let assert_error_contains = |words: &[&str]| {
        let error = acquire(&plan_for("esp-seal", &table, 1).unwrap(), &[])
            .err()
            .unwrap_or_else(|| panic!("no error; expected one with {words:?}"))
            .to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
    };
    std::fs::remove_file(&state).unwrap();
    assert_error_contains(&[state_path, "xdpfwd esp new-state"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for text in [
        "",
        "version = 1\n",
        "epoch = 5\n",
        "version = 2\nepoch = 5\n",
        "version = 1\nepoch = -5\n",
        "version = 1\nep",
        "\0\0\0",
    ] {
        std::fs::write(&state, text).unwrap();
        assert_error_contains(&[state_path]);
    }
    let future = now + 3600;
    std::fs::write(&state, format!("version = 1\nepoch = {future}\n# end\n")).unwrap();
    assert_error_contains(&["clock"]);
    // Acquisition writes a later epoch (the upper 32 bits of the IVs), which the first packet uses.
    std::fs::write(&state, format!("version = 1\nepoch = {}\n# end\n", now - 5)).unwrap();
    let plan = plan("esp-seal", &table);
    let epoch_of = |text: String| -> u64 {
        text.lines().find_map(|line| line.strip_prefix("epoch = ")).unwrap().trim().parse().unwrap()
    };
    let written = epoch_of(folder.read("seal.state"));
    assert!(written >= now, "the new epoch {written} is earlier than the clock, {now}");
    assert_eq!(iv(&bench(&plan).forward(&[udp_v4(0)])[0]) >> 32, written);
}
