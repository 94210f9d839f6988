//! Programs in a terminal: tmux draws what they print.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use super::until;

/// A tmux server of its own, which ends on drop, also if the test fails.
pub struct Tmux {
    server: String,
}

impl Tmux {
    /// Runs a shell command in a terminal of this size. Behind the command, the terminal shows its
    /// exit code, as `exit 0`.
    pub fn start(command: &str, width: u16, height: u16) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let tmux = Self { server: format!("xdpfwd-test-{}-{number}", std::process::id()) };
        let shell = format!("echo 'text before'; {command}; echo exit $?; exec sleep 1000");
        let (width, height) = (width.to_string(), height.to_string());
        tmux.run(&["new-session", "-d", "-x", &width, "-y", &height, "sh", "-c", &shell]);
        tmux
    }

    fn output(&self, arguments: &[&str]) -> Output {
        // -u: UTF-8, whatever the locale. -f: no configuration of the user.
        let mut command = Command::new("tmux");
        command.args(["-u", "-L", &self.server, "-f", "/dev/null"]).args(arguments);
        let output = command.env_remove("TMUX").output();
        output.unwrap_or_else(|error| panic!("cannot run tmux: {error}; `make test` installs it"))
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "tmux {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns the text on the screen.
    pub fn screen(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    /// Returns the text with escape sequences for colors and attributes.
    pub fn styled_screen(&self) -> String {
        self.run(&["capture-pane", "-p", "-e"])
    }

    /// Waits until the screen is as expected, and returns it.
    #[track_caller]
    pub fn wait_for(&self, is_expected: impl Fn(&str) -> bool) -> String {
        let mut screen = String::new();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("the expected screen", || {
                screen = self.screen();
                is_expected(&screen)
            });
        }));
        assert!(result.is_ok(), "not the expected screen:\n{screen}");
        screen
    }

    #[track_caller]
    pub fn wait_for_text(&self, text: &str) -> String {
        self.wait_for(|screen| screen.contains(text))
    }

    pub fn press(&self, key: &str) {
        self.run(&["send-keys", key]);
    }

    pub fn resize(&self, width: u16, height: u16) {
        self.run(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// Returns the process id of the program that the shell runs.
    pub fn program_pid(&self) -> i32 {
        let shell = self.run(&["display-message", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        let path = format!("/proc/{shell}/task/{shell}/children");
        let children = std::fs::read_to_string(path).unwrap();
        children.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.output(&["kill-server"]);
    }
}
