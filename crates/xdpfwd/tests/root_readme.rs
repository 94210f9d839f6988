//! The README's way to a first cross-connect, each command run as it is written. Needs root.

mod support;

use std::process::Command;

use support::{XDPFWD, stderr};

const README: &str = include_str!("../../../README.md");

/// The commands of a section, block by block.
fn commands(section: &str) -> Vec<&str> {
    let (_, rest) = README.split_once(&format!("## {section}\n")).unwrap();
    let (section, _) = rest.split_once("\n## ").unwrap();
    section.split("```sh\n").skip(1).map(|block| block.split_once("```").unwrap().0).collect()
}

#[test]
fn readme_cross_connect_works_as_written() {
    let mut script = String::from(
        "set -eu\n\
         sudo() { \"$@\"; }\n\
         mount -t tmpfs none /run && mkdir -p /run/netns\n\
         mount -t sysfs none /sys\n\
         cd \"$(mktemp -d)\"\n",
    );
    let mut ran = 0;
    for block in commands("Use it") {
        for line in block.lines() {
            let line = line.replace("target/release/xdpfwd", XDPFWD);
            if line.starts_with("make ") {
                // This very test was built instead.
            } else if line.contains("--duration") {
                // The reader has a second terminal. (What a function starts in the background is
                // not what it calls.)
                script += &format!("{} >report 2>log &\n", line.trim_start_matches("sudo "));
                script += "until grep -q Mpps report; do kill -0 $! && sleep 0.05; done\n";
            } else if line.contains("netns del left") {
                script += &format!("kill -INT $!; wait $!; cat report\n{line}\n");
            } else {
                script += &(line + "\n");
            }
            ran += 1;
        }
    }
    assert!(ran > 30, "{script}");
    let mut command = Command::new("timeout");
    let output = command
        .args(["60", "unshare", "--net", "--mount", "bash", "-c", &script])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{script}\n{text}\n{}", stderr(&output));
    assert!(text.contains("fw.toml is fine"), "{text}");
    assert!(text.contains("3 received, 0% packet loss"), "{text}");
    let row = text.lines().rfind(|line| line.starts_with("lan  ")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..3], ["lan", "eth1", "copy"], "{text}");
    assert!(cells[3].parse::<u32>().unwrap() >= 3, "{text}");
    assert!(text.contains("leaked 0"), "{text}");
}
