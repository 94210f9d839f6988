//! Runs the commands of the section "Use it" of the README. Needs root.

mod support;

use std::process::Command;

use support::{XDPFWD, stderr};

const README: &str = include_str!("../../../README.md");

/// Returns the shell code blocks of a section of the README.
fn shell_blocks(section: &str) -> Vec<&str> {
    let (_, from_section) = README.split_once(&format!("## {section}\n")).unwrap();
    let (section, _) = from_section.split_once("\n## ").unwrap();
    section.split("```sh\n").skip(1).map(|block| block.split_once("```").unwrap().0).collect()
}

#[test]
fn readme_commands_work_as_written() {
    let mut script = String::from(
        "set -eu\n\
         sudo() { \"$@\"; }\n\
         mount -t tmpfs none /run && mkdir -p /run/netns\n\
         mount -t sysfs none /sys\n\
         cd \"$(mktemp -d)\"\n",
    );
    let mut line_count = 0;
    for block in shell_blocks("Use it") {
        for line in block.lines() {
            let line = line.replace("target/release/xdpfwd", XDPFWD);
            if line.starts_with("make ") {
                // Skip the build: xdpfwd was built for this test.
            } else if line.contains("--duration") {
                // Run xdpfwd in the background, in place of a second terminal. Remove `sudo`, which
                // is a function in this script: `$!` would be the pid of a shell instead of xdpfwd.
                script += &format!("{} >report 2>log &\n", line.trim_start_matches("sudo "));
                script += "until grep -q Mpps report; do kill -0 $! && sleep 0.05; done\n";
            } else if line.contains("netns del left") {
                // Stop xdpfwd before the first namespace is deleted.
                script += &format!("kill -INT $!; wait $!; cat report\n{line}\n");
            } else {
                script += &(line + "\n");
            }
            line_count += 1;
        }
    }
    assert!(line_count > 30, "the section has only {line_count} lines of commands: {script}");
    let mut command = Command::new("timeout");
    let output = command
        .args(["60", "unshare", "--net", "--mount", "bash", "-c", &script])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{script}\n{text}\n{}", stderr(&output));
    assert!(text.contains("fw.toml is valid"), "{text}");
    assert!(text.contains("3 received, 0% packet loss"), "{text}");
    // The row of the port lan: port, interface, mode, received packets.
    let row = text.lines().rfind(|line| line.starts_with("lan  ")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..3], ["lan", "eth1", "copy"], "{text}");
    assert!(cells[3].parse::<u32>().unwrap() >= 3, "{text}");
    assert!(text.contains("leaked 0"), "{text}");
}
