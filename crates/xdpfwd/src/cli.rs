//! The command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(feature = "esp")]
use clap::builder::TypedValueParser;
use clap::builder::{PossibleValue, PossibleValuesParser, StyledStr};
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
#[cfg(feature = "esp")]
use xdpfwd_ipsec::Transform;

use crate::app::App;
use crate::config::FilePolicy;

/// The help line about `filter test`; empty if this build lacks the command.
const FILTER_EXAMPLE: &str = if cfg!(feature = "filter") {
    "\n  xdpfwd filter test --config configs/filter.toml --pcap some.pcap    # verdict per packet"
} else {
    ""
};

/// The help line about `top`; empty if this build lacks the command.
const TOP_EXAMPLE: &str = if cfg!(feature = "top") {
    "\n  sudo xdpfwd top                                          # a live view of them"
} else {
    ""
};

/// The help line about `esp`; empty if this build lacks the command.
const ESP_EXAMPLE: &str = if cfg!(feature = "esp") {
    "\n  xdpfwd esp new-key --transform aes-128-gcm out.key       # a key for ESP stages"
} else {
    ""
};

/// Forwards packets between network interfaces in user space, through AF_XDP sockets. Ends on
/// SIGINT or SIGTERM with a final report; reloads the stages from the configuration file on SIGHUP
#[derive(Clone, Debug, PartialEq, Parser)]
#[command(
    name = "xdpfwd",
    version,
    max_term_width = 110,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = format!("\
Exit codes:
  0  ended by a signal or --duration
  1  could not start, or failed while running: a queue is busy, an interface is gone, …
  2  the command line or the configuration is invalid
  3  a privilege, a capability or a kernel feature is missing

Examples:
  xdpfwd --config configs/cross-connect.toml --check       # validate; change nothing
  xdpfwd doctor --config configs/cross-connect.toml        # find problems here, with fixes
  sudo xdpfwd --config configs/cross-connect.toml          # forward until Ctrl-C
  sudo xdpfwd ctl stats                                    # counters of a running xdpfwd\
{TOP_EXAMPLE}{FILTER_EXAMPLE}{ESP_EXAMPLE}
  sudo xdpfwd --config configs/demo.toml --duration 10 --interval 0.5 --json 2>log >report.ndjson")
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) run: Run,
}

/// Returns the command line of xdpfwd with the name and the commands of `app`.
pub(crate) fn command(app: &App) -> clap::Command {
    let mut command = Cli::command().name(app.name).bin_name(app.name).version(app.version);
    if let Some(about) = &app.about {
        command = command.about(about.clone()).long_about(None);
    }
    if app.name != "xdpfwd" {
        command = rename_in_help(command, app.name);
    }
    let custom_commands =
        app.ctl.iter().map(|custom| PossibleValue::new(custom.name).help(custom.about.clone()));
    let builtin_commands = crate::ctl::Command::value_variants()
        .iter()
        .filter(|command| command.is_supported_by(&app.registry));
    let commands = builtin_commands.filter_map(ValueEnum::to_possible_value).chain(custom_commands);
    command = command.mut_subcommand("ctl", |ctl| {
        ctl.mut_arg("command", |argument| {
            argument.value_parser(PossibleValuesParser::new(commands))
        })
        .mut_arg("arguments", |argument| argument.hide(app.ctl.is_empty()))
        .mut_arg("socket", |argument| argument.default_value(crate::ctl::default_socket(app.name)))
    });
    #[cfg(feature = "top")]
    let command = command.mut_subcommand("top", |top| {
        top.mut_arg("socket", |argument| {
            argument.default_value(crate::ctl::default_socket(app.name))
        })
    });
    command.subcommands(app.subcommands.iter().map(|(command, _)| command.clone()))
}

fn rename_in_help(mut command: clap::Command, name: &str) -> clap::Command {
    let with_name = |help: &StyledStr| help.to_string().replace("xdpfwd", name);
    if let Some(help) = command.get_about().map(with_name) {
        command = command.about(help);
    }
    if let Some(help) = command.get_after_help().map(with_name) {
        command = command.after_help(help);
    }
    command.mut_subcommands(|subcommand| rename_in_help(subcommand, name))
}

/// Exit code: invalid command line or configuration.
pub(crate) const USAGE: u8 = 2;

/// Subcommands.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub(crate) enum Command {
    /// Report problems that would prevent or slow down forwarding on this machine, with a fix for
    /// each
    Doctor(Doctor),
    /// Query or reload a running xdpfwd over its control socket
    Ctl(Ctl),
    /// Show rates, losses, buffers and CPU cycles of a running xdpfwd in the terminal, live
    #[cfg(feature = "top")]
    Top(Top),
    /// Test the rules of a filter on a capture file
    #[cfg(feature = "filter")]
    #[command(subcommand)]
    Filter(Filter),
    /// Create the key and state files of ESP stages, or accept a state file that records a failed
    /// write
    #[cfg(feature = "esp")]
    #[command(subcommand)]
    Esp(Esp),
}

/// Queries or reloads a running xdpfwd over the control socket that `[engine] control` names.
#[derive(Clone, Debug, PartialEq, Args)]
#[command(after_help = "\
Exit codes:
  0  success
  1  no xdpfwd listens on the socket, or the command failed: see stderr
  2  the command line is invalid
  3  permission denied: only root and the user of the running xdpfwd may use the socket, and its server
     must belong to root or to the user of this command

Examples:
  sudo xdpfwd ctl rules --from 1000 --count 20
  sudo xdpfwd ctl rules --matching 'dport 443' --json
  sudo xdpfwd ctl ledger --interval 10                     # where CPU cycles go")]
pub(crate) struct Ctl {
    /// The command
    #[arg(value_name = "COMMAND")]
    pub(crate) command: String,

    /// Arguments of the command
    #[arg(value_name = "ARGUMENT")]
    pub(crate) arguments: Vec<String>,

    /// The control socket
    // The function `command` replaces the default by a path with the program's name.
    #[arg(long, value_name = "PATH", default_value = "")]
    pub(crate) socket: PathBuf,

    #[command(flatten)]
    pub(crate) window: crate::ctl::Window,

    /// `ledger`: show the costs of the next SECS seconds, not those since the start
    #[arg(long, value_name = "SECS", value_parser = refresh_seconds)]
    pub(crate) interval: Option<Duration>,

    /// Print the answer as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Shows a running xdpfwd in the terminal: packet and bit rates, losses and their remedies,
/// buffers, and CPU cycles by task, stage and function of the kernel. Keys are shown on screen.
#[cfg(feature = "top")]
#[derive(Clone, Debug, PartialEq, Args)]
#[command(after_help = "\
Exit codes:
  0  ended by q, Esc, Ctrl-C, SIGTERM or SIGHUP
  1  no xdpfwd listens on the socket, or stdout is not a terminal: see stderr
  2  the command line is invalid
  3  permission denied: see `xdpfwd ctl --help`

Set NO_COLOR=1 for a screen without colors. In scripts, use `xdpfwd ctl stats --json`.

Examples:
  sudo xdpfwd top
  sudo xdpfwd top --socket /run/fw1.sock --interval 5")]
pub(crate) struct Top {
    /// The control socket
    // The function `command` replaces the default by a path with the program's name.
    #[arg(long, value_name = "PATH", default_value = "")]
    pub(crate) socket: PathBuf,

    /// Seconds between readings; rates are those of the time between two readings
    #[arg(long, value_name = "SECS", value_parser = refresh_seconds, default_value = "1")]
    pub(crate) interval: Duration,
}

/// Subcommands of `filter`.
#[cfg(feature = "filter")]
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub(crate) enum Filter {
    /// Apply a filter to a capture file: print the verdict of each packet, and counts
    Test(FilterTest),
}

/// Applies a filter to a capture with the code of the data plane. Captures are pcap or pcapng, also
/// compressed with gzip, of Ethernet, `tcpdump -i any`, IP without a link layer, or loopback.
/// Skips, counts and names packets of other link types. Needs no privileges, and the configured
/// interfaces need not exist. Rate limits use the timestamps of the capture.
#[cfg(feature = "filter")]
#[derive(Clone, Debug, PartialEq, Args)]
#[command(after_help = "\
Exit codes:
  0  the capture was read to its end (or the reader of stdout has closed it)
  1  the capture cannot be read, is truncated or damaged, or has no packet that can be judged
  2  the command line or the configuration is invalid

Examples:
  xdpfwd filter test --config fw.toml --pcap some.pcapng.gz --json
  sudo tcpdump -i any -U -w - | xdpfwd filter test --config fw.toml --pcap -")]
pub(crate) struct FilterTest {
    /// The configuration with the filter
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,

    /// The capture; - for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: PathBuf,

    /// The name of the filter, if the configuration has several
    #[arg(long, value_name = "NAME")]
    pub(crate) stage: Option<String>,

    /// Print one JSON object per packet: index, verdict, rule (from 0; null if no rule decided),
    /// reason (null if accepted), and skipped (why; present only for skipped packets)
    #[arg(long)]
    pub(crate) json: bool,
}

/// Subcommands of `esp`.
#[cfg(feature = "esp")]
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub(crate) enum Esp {
    /// Create a key file with a random key, and print the fingerprint
    NewKey(NewKey),
    /// Create a state file for new keys
    NewState(NewState),
    /// Accept a state file that records a failed write, so that xdpfwd starts with it
    AcceptState(AcceptState),
}

/// Creates a key file with a random key, and prints the fingerprint of the key.
///
/// The file has one line of hexadecimal digits: the key and the salt, in the format of
/// `ip xfrm … aead`. Only the user who creates the file can read it, and xdpfwd must run as that
/// user. The fingerprint is not secret; the key is never printed. Copy the file to the peer over a
/// confidential channel.
#[cfg(feature = "esp")]
#[derive(Clone, Debug, PartialEq, Args)]
#[command(after_help = "\
Exit codes:
  0  created
  1  the file exists already (it is not changed) or cannot be written: see stderr
  2  the command line is invalid

Examples:
  xdpfwd esp new-key --transform aes-128-gcm /etc/xdpfwd/out.key
  xdpfwd esp new-key --transform chacha20-poly1305 /etc/xdpfwd/in.key")]
pub(crate) struct NewKey {
    /// The ESP transform of the key
    #[arg(long, value_name = "NAME", value_parser = transforms())]
    pub(crate) transform: Transform,

    /// The file, which must not exist
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// Creates a state file for new keys.
///
/// A state file records the used sequence numbers and IVs, so that none is used twice, even after a
/// crash. Each xdpfwd needs its own file. Create a state file only together with new keys: with old
/// keys, sequence numbers would restart and IVs would repeat.
#[cfg(feature = "esp")]
#[derive(Clone, Debug, PartialEq, Args)]
#[command(after_help = "\
Exit codes:
  0  created
  1  the file exists already (it is not changed) or cannot be written: see stderr
  2  the command line is invalid

Examples:
  xdpfwd esp new-state /var/lib/xdpfwd/wan.state")]
pub(crate) struct NewState {
    /// The file, which must not exist
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// Accepts a state file that records a failed write, so that xdpfwd starts with it.
///
/// If a write of the state file fails, xdpfwd records this in the file, and does not start with it
/// again: the file may lack the sequence numbers of packets received after its last successful
/// write, at most one second before, so these packets could be accepted again. New keys and a new
/// state file avoid this. This command keeps the keys and accepts the risk.
#[cfg(feature = "esp")]
#[derive(Clone, Debug, PartialEq, Args)]
#[command(after_help = "\
Exit codes:
  0  accepted, or the file records no failed write
  1  the file is in use, invalid, or cannot be written: see stderr
  2  the command line is invalid

Examples:
  xdpfwd esp accept-state /var/lib/xdpfwd/wan.state")]
pub(crate) struct AcceptState {
    /// The state file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[cfg(feature = "esp")]
fn transforms() -> impl TypedValueParser<Value = Transform> {
    PossibleValuesParser::new(Transform::ALL.map(Transform::name)).try_map(|name| {
        let named = Transform::ALL.into_iter().find(|transform| transform.name() == name);
        named.ok_or("unknown transform")
    })
}

/// Options of forwarding and of its reports.
#[derive(Clone, Debug, PartialEq, Args)]
pub(crate) struct Run {
    /// The configuration file (docs/configuration.md describes its keys)
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,

    /// Validate the configuration against this machine, print the plan, and exit; change nothing
    #[arg(long)]
    pub(crate) check: bool,

    /// Accept files that other users can change; root must not use this option
    #[arg(long)]
    pub(crate) allow_writable_files: bool,

    /// Stop after this many seconds, such as 10 or 0.5
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    pub(crate) duration: Option<Duration>,

    /// Seconds between reports
    #[arg(long, value_name = "SECS", value_parser = seconds, default_value = "1")]
    pub(crate) interval: Duration,

    /// Print reports as JSON, one object per line
    #[arg(long)]
    pub(crate) json: bool,

    /// Format of the log on stderr
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
}

impl Run {
    pub(crate) fn config(&self) -> &Path {
        // clap requires `--config` unless there is a subcommand.
        self.config.as_deref().unwrap_or(Path::new(""))
    }

    pub(crate) fn file_policy(&self) -> FilePolicy {
        FilePolicy::of_start(self.allow_writable_files)
    }
}

/// Checks a configuration, or interfaces without a configuration: drivers and XDP features, the
/// mode that sockets get, queues and RSS, MTU, offloads, memory, privileges, cores, interrupts, and
/// other programs on the interfaces. docs/doctor.md lists all checks.
#[derive(Clone, Debug, PartialEq, Args)]
#[command(after_help = "\
Exit codes:
  0  ready
  1  will run, but not at full speed (or the report could not be written)
  2  the command line or the configuration is invalid
  3  will not run")]
pub(crate) struct Doctor {
    /// The configuration to check
    #[arg(long, value_name = "FILE", conflicts_with = "interfaces")]
    pub(crate) config: Option<PathBuf>,

    /// Interfaces to check without a configuration
    #[arg(value_name = "IFACE", required_unless_present = "config")]
    pub(crate) interfaces: Vec<String>,

    /// Do not probe the mode: probing attaches an XDP program and binds a socket, and some drivers
    /// reset their queues for that
    #[arg(long)]
    pub(crate) no_probe: bool,

    /// Accept files that other users can change; root must not use this option
    #[arg(long)]
    pub(crate) allow_writable_files: bool,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Formats of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    // No doc comments on the values: clap would then print each value on its own line.
    Text,
    Json,
}

/// Maximum of `--duration` and `--interval`. The current time plus this cannot overflow.
const MAX_SECONDS: f64 = 1e9;

/// Accepts only decimal digits with an optional point.
fn seconds(text: &str) -> Result<Duration, String> {
    let expected = "expected seconds above 0 and up to 1000000000, such as 10 or 0.5";
    // `f64` would also accept `inf`, `nan`, `1e3` and `+1`.
    if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(expected.to_owned());
    }
    let seconds: f64 = text.parse().map_err(|_| expected.to_owned())?;
    if seconds > MAX_SECONDS {
        return Err(expected.to_owned());
    }
    let duration =
        Duration::try_from_secs_f64(seconds).map_err(|error| format!("{error}; {expected}"))?;
    if duration.is_zero() { Err(expected.to_owned()) } else { Ok(duration) }
}

/// Accepts the same as `seconds`, from 0.1 to 3600: each reading costs the forwarder some time.
fn refresh_seconds(text: &str) -> Result<Duration, String> {
    let is_accepted = |duration: &Duration| {
        (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(duration)
    };
    let seconds = seconds(text).ok().filter(is_accepted);
    seconds.ok_or_else(|| "expected seconds from 0.1 to 3600, such as 1 or 0.5".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use proptest::prelude::*;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["xdpfwd"].iter().chain(arguments))
    }

    #[test]
    fn command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn cli_without_options_has_documented_defaults() {
        let cli = parse(&["--config", "a.toml"]).unwrap();
        let run = Run {
            config: Some("a.toml".into()),
            check: false,
            allow_writable_files: false,
            duration: None,
            interval: Duration::from_secs(1),
            json: false,
            log_format: LogFormat::Text,
        };
        assert_eq!(cli, Cli { command: None, run });
    }

    #[test]
    fn doctor_accepts_either_configuration_or_interfaces() {
        let doctor = |arguments: &[&str]| {
            parse(&[&["doctor"], arguments].concat()).map(|cli| match cli.command {
                Some(Command::Doctor(doctor)) => doctor,
                other => panic!("not the command doctor: {other:?}"),
            })
        };
        assert_eq!(doctor(&["eth1", "eth2"]).unwrap().interfaces, ["eth1", "eth2"]);
        assert_eq!(
            doctor(&["--config", "a.toml", "--json"]).unwrap().config,
            Some("a.toml".into())
        );
        for arguments in [&[][..], &["--config", "a.toml", "eth1"], &["eth1", "--duration", "1"]] {
            assert_eq!(doctor(arguments).unwrap_err().exit_code(), 2, "{arguments:?}");
        }
        assert_eq!(parse(&["--config", "a.toml", "doctor", "eth1"]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn seconds_accepts_only_positive_decimals() {
        for (text, milliseconds) in [
            ("10", 10_000),
            ("0.1", 100),
            (".5", 500),
            ("2.", 2_000),
            ("1000000000", 1_000_000_000_000),
        ] {
            assert_eq!(seconds(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        let rejected_texts = [
            "0",
            "0.0",
            "-1",
            "NaN",
            "nan",
            "inf",
            "1e3",
            "+1",
            "",
            ".",
            "1.2.3",
            "1s",
            " 1",
            "1,5",
            "1000000001",
            "0.0000000000001",
            "٣",
        ];
        for text in rejected_texts {
            assert!(seconds(text).unwrap_err().ends_with("such as 10 or 0.5"), "{text}");
        }
        assert!(seconds(&"9".repeat(1000)).is_err());
    }

    #[test]
    fn refresh_seconds_accepts_only_a_tenth_of_a_second_to_an_hour() {
        for (text, milliseconds) in [("0.1", 100), ("1", 1000), ("3600", 3_600_000)] {
            assert_eq!(refresh_seconds(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["0.05", "0", "3601", "1s", "-1", ""] {
            assert!(refresh_seconds(text).unwrap_err().contains("0.1 to 3600"), "{text}");
        }
    }

    #[test]
    fn zero_or_negative_seconds_are_value_errors() {
        for arguments in [["--duration=-1"], ["--interval=0"]] {
            let error = parse(&[&["--config", "a"], &arguments[..]].concat()).unwrap_err();
            assert_eq!((error.kind(), error.exit_code()), (ErrorKind::ValueValidation, 2));
        }
    }

    #[test]
    fn invalid_arguments_exit_with_2_and_help_with_0() {
        for arguments in
            [&[][..], &["ctl"], &["bottom"], &["--config", "a", "--metrics"], &["--config"]]
        {
            assert_eq!(parse(arguments).unwrap_err().exit_code(), 2, "{arguments:?}");
        }
        for arguments in [["--help"], ["--version"], ["-h"], ["-V"]] {
            assert_eq!(parse(&arguments).unwrap_err().exit_code(), 0, "{arguments:?}");
        }
    }

    #[test]
    fn help_has_examples_and_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
    }

    proptest! {
        #[test]
        fn parsed_seconds_can_be_added_to_an_instant(text in "[-+0-9.eE]{0,30}|\\PC{0,30}") {
            if let Ok(duration) = seconds(&text) {
                prop_assert!(!duration.is_zero());
                prop_assert!(std::time::Instant::now().checked_add(duration).is_some());
            }
        }
    }
}
