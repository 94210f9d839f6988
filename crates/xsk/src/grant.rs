//! The command that lets a group run this program with capabilities.

use std::env;

/// The capabilities that AF_XDP needs: attaching programs, sockets, loading programs, locking
/// memory.
pub const CAPABILITIES: [&str; 5] =
    ["cap_net_admin", "cap_net_raw", "cap_bpf", "cap_perfmon", "cap_ipc_lock"];

/// Returns a command for a root shell that lets only root and the members of the group `xdpfwd` run
/// this program, and gives it capabilities.
///
/// A binary with capabilities that every user may execute would hand the interfaces to every user.
/// `setcap` comes last, because changing the group of a file removes its capabilities.
pub fn grant_command(capabilities: &[&str]) -> String {
    let program = env::current_exe().map_or_else(
        |_| "PROGRAM".to_owned(),
        |path| quoted(path.display().to_string().trim_end_matches(" (deleted)")),
    );
    format!(
        "groupadd --system --force xdpfwd && chgrp xdpfwd {program} && chmod 0750 {program} && \
         setcap {}+ep {program}",
        capabilities.join(",")
    )
}

/// Quotes a word for a shell if necessary.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:,=@".contains(&byte);
    if word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grant_command_restricts_execution_before_it_sets_capabilities() {
        let command = grant_command(&["cap_net_raw", "cap_net_admin"]);
        let position = |text: &str| command.find(text).unwrap_or_else(|| panic!("{command}"));
        assert!(position("chgrp xdpfwd ") < position("chmod 0750 "));
        assert!(position("chmod 0750 ") < position("setcap cap_net_raw,cap_net_admin+ep "));
    }

    #[test]
    fn quoted_path_is_one_shell_word() {
        assert_eq!(quoted("/usr/local/bin/xdpfwd-2.1"), "/usr/local/bin/xdpfwd-2.1");
        assert_eq!(quoted("/a b/it's"), r"'/a b/it'\''s'");
        assert_eq!(quoted("/$(id)"), "'/$(id)'");
    }
}
