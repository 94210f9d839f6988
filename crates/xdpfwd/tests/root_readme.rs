//! Runs the commands of the README as written. Needs root.

mod support;

use std::process::Command;

use support::{XDPFWD, stderr};

const README: &str = include_str!("../../../README.md");

fn shell_blocks(section: &str) -> Vec<&str> {
    let (_, from_section) = README.split_once(&format!("## {section}\n")).unwrap();
    let (section, _) = from_section.split_once("\n## ").unwrap();
    section.split("```sh\n").skip(1).map(|block| block.split_once("```").unwrap().0).collect()
}

/// Runs the commands of a section, with xdpfwd in the background, and then `end`. Returns the
/// script and its stdout.
fn run_section(section: &str, end: &str) -> (String, String) {
    let mut script = String::from(
        "set -eu\n\
         sudo() { \"$@\"; }\n\
         mount -t tmpfs none /run && mkdir -p /run/netns\n\
         mount -t sysfs none /sys\n\
         cd \"$(mktemp -d)\"\n\
         n=0\n",
    );
    let mut line_count = 0;
    for line in shell_blocks(section).into_iter().flat_map(str::lines) {
        let line = line.replace("target/release/xdpfwd", XDPFWD);
        if line.starts_with("make ") {
            // Skip: cargo has built xdpfwd for this test.
        } else if line.contains("--duration") {
            // `sudo` is a function here; without it, `$!` is the pid of xdpfwd, not of a shell.
            let command = line.trim_start_matches("sudo ");
            script +=
                &format!("n=$((n + 1)); {command} >report$n 2>log$n &\npids=\"${{pids-}} $!\"\n");
            script += "until grep -q Mpps report$n; do kill -0 $! && sleep 0.05; done\n";
        } else if line.contains("netns del left") {
            // Before the section deletes its namespaces, stop xdpfwd and print the reports.
            script += &format!("kill -INT $pids; wait $pids; cat report*\n{line}\n");
        } else {
            script += &(line + "\n");
        }
        line_count += 1;
    }
    assert!(line_count > 30, "{script}");
    script += end;
    let mut command = Command::new("timeout");
    let output = command
        .args(["60", "unshare", "--net", "--mount", "bash", "-c", &script])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{script}\n{text}\n{}", stderr(&output));
    (script, text)
}

#[test]
fn readme_cross_connect_works_as_written() {
    let (_, text) = run_section("Use it", "");
    assert!(text.contains("fw.toml is valid"), "{text}");
    assert!(text.contains("3 received, 0% packet loss"), "{text}");
    let row = text.lines().rfind(|line| line.starts_with("lan  ")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..3], ["lan", "eth1", "copy"], "{text}");
    assert!(cells[3].parse::<u32>().unwrap() >= 3, "{text}");
    assert!(text.contains("leaked 0"), "{text}");
}

#[test]
fn readme_filter_and_esp_work_as_written() {
    let end = "kill -INT $pids; wait $pids; cat report*\n\
               for name in left fw1 fw2 right; do ip netns del $name; done\n";
    let (script, text) = run_section("Filter and encrypt", end);
    assert!(text.contains("3 received, 0% packet loss"), "{script}\n{text}");
    assert!(text.contains("drop proto udp dport 9999"), "{text}");
    // `ctl sa` shows at least the three pings, encapsulated and decapsulated.
    let sa_packets: Vec<u32> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("sequence number ")?.split_once("; "))
        .map(|(_, packets)| packets.split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(sa_packets.len(), 2, "{text}");
    assert!(sa_packets.iter().all(|&packets| packets >= 3), "{text}");
    assert_eq!(text.matches("leaked 0").count(), 2, "{text}");
}
