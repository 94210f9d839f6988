//! The command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(feature = "esp")]
use clap::builder::TypedValueParser;
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
#[cfg(feature = "esp")]
use xdpfwd_ipsec::Transform;

use crate::app::App;

/// The line about `filter test` in the help, if this build has the command.
const FILTER_EXAMPLE: &str = if cfg!(feature = "filter") {
    "\n  xdpfwd filter test --config configs/filter.toml --pcap some.pcap  # what its rules would do"
} else {
    ""
};

/// The line about `esp` in the help, if this build has the command.
const ESP_EXAMPLE: &str = if cfg!(feature = "esp") {
    "\n  xdpfwd esp new-key --transform aes-128-gcm out.key    # what ESP stages need"
} else {
    ""
};

/// Forwards packets between network interfaces in user space, through AF_XDP sockets.
///
/// What it forwards from where to where, and through which stages, stands in a configuration file.
/// Runs until SIGINT or SIGTERM; then drains, detaches and prints what was done. On SIGHUP it reads
/// the file anew and exchanges the stages, without losing a packet.
#[derive(Clone, Debug, PartialEq, Parser)]
#[command(
    name = "xdpfwd",
    version,
    max_term_width = 110,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = format!("\
Exit codes:
  0  ended as asked
  1  could not start, or failed while running: an interface is missing, a queue is busy, …
  2  the command line or the configuration is no good
  3  a privilege, a capability or a kernel feature is missing

Examples:
  xdpfwd --config configs/cross-connect.toml --check    # would it run here? touches nothing
  xdpfwd doctor --config configs/cross-connect.toml     # what keeps it from running fast here, and the fix\
{FILTER_EXAMPLE}{ESP_EXAMPLE}
  sudo xdpfwd --config configs/cross-connect.toml
  sudo xdpfwd --config configs/demo.toml --duration 10 --interval 0.5 --json 2>log >report.ndjson")
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) run: Run,
}

/// Returns the command line of a program: that of xdpfwd under another name, with what the program
/// adds.
pub(crate) fn command(app: &App) -> clap::Command {
    let mut command = Cli::command().name(app.name).bin_name(app.name).version(app.version);
    if let Some(about) = &app.about {
        command = command.about(about.clone()).long_about(None);
    }
    if app.name != "xdpfwd" {
        command = renamed(command, app.name);
    }
    let own = app.ctl.iter().map(|own| PossibleValue::new(own.name).help(own.about.clone()));
    let commands = crate::ctl::Command::value_variants()
        .iter()
        .filter(|command| command.is_of_use(&app.registry));
    let commands = commands.filter_map(ValueEnum::to_possible_value).chain(own);
    command = command.mut_subcommand("ctl", |ctl| {
        ctl.mut_arg("command", |argument| {
            argument.value_parser(PossibleValuesParser::new(commands))
        })
        .mut_arg("arguments", |argument| argument.hide(app.ctl.is_empty()))
        .mut_arg("socket", |argument| argument.default_value(crate::ctl::default_socket(app.name)))
    });
    command.subcommands(app.subcommands.iter().map(|(command, _)| command.clone()))
}

/// Puts another name into the examples of the help.
fn renamed(command: clap::Command, name: &str) -> clap::Command {
    let command =
        match command.get_after_help().map(|help| help.to_string().replace("xdpfwd", name)) {
            Some(help) => command.after_help(help),
            None => command,
        };
    command.mut_subcommands(|subcommand| renamed(subcommand, name))
}

/// Exit code: the command line or the configuration is invalid.
pub(crate) const USAGE: u8 = 2;

/// What it can do besides forwarding.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub(crate) enum Command {
    /// Say what would keep it from running, or from running fast, and the fix
    Doctor(Doctor),
    /// Ask the one that runs, over its control socket
    Ctl(Ctl),
    /// Try a filter's rules
    #[cfg(feature = "filter")]
    #[command(subcommand)]
    Filter(Filter),
    /// Make the files that ESP stages need
    #[cfg(feature = "esp")]
    #[command(subcommand)]
    Esp(Esp),
}

/// Whom to ask, and what.
///
/// The running one listens where `[engine] control` of its configuration says.
#[derive(Clone, Debug, PartialEq, Args)]
#[command(after_help = "\
Exit codes:
  0  answered
  1  nobody listens there, or it could not be done: stderr says why
  2  the command line is no good
  3  only root, and the user that it runs as, may ask")]
pub(crate) struct Ctl {
    /// What to ask
    #[arg(value_name = "COMMAND")]
    pub(crate) command: String,

    /// Arguments of the command, if it takes any
    #[arg(value_name = "ARGUMENT")]
    pub(crate) arguments: Vec<String>,

    /// Where it listens
    // `command` sets the default, which has the name of the program in it.
    #[arg(long, value_name = "PATH", default_value = "")]
    pub(crate) socket: PathBuf,

    /// Print the answer as it comes, one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to do with a filter.
#[cfg(feature = "filter")]
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub(crate) enum Filter {
    /// Judge a capture by the rules of a configuration: a verdict for each packet, and counts
    Test(FilterTest),
}

/// What to judge, by what.
///
/// Runs the code of the data plane over a capture (pcap or pcapng, of Ethernet). No interface of
/// the configuration has to exist, and no privilege is needed. Rate limits go by the capture's
/// timestamps.
#[cfg(feature = "filter")]
#[derive(Clone, Debug, PartialEq, Args)]
#[command(after_help = "\
Exit codes:
  0  every packet was judged, whatever the verdicts
  1  the capture cannot be read
  2  the command line or the configuration is no good")]
pub(crate) struct FilterTest {
    /// The configuration with the filter
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,

    /// The capture
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: PathBuf,

    /// Which filter, if the configuration has several
    #[arg(long, value_name = "NAME")]
    pub(crate) stage: Option<String>,

    /// Print one JSON object a packet: index, verdict, rule (from 0; null if none decided), reason
    /// (null if accepted)
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to make.
#[cfg(feature = "esp")]
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub(crate) enum Esp {
    /// Make a key file with a new random key, and print its fingerprint
    NewKey(NewKey),
    /// Make a state file, for keys that were never used
    NewState(NewState),
}

/// Which key, and where to put it.
///
/// One line of hexadecimal digits: key and salt, as `ip xfrm … aead` takes them. Only the user who
/// makes it may read the file, and who forwards has to be that user. What is printed is the
/// fingerprint, which is no secret; the key is never shown. The peer needs the same key: take it
/// there by a way that nobody else can read.
#[cfg(feature = "esp")]
#[derive(Clone, Debug, PartialEq, Args)]
#[command(after_help = "\
Exit codes:
  0  made
  1  the file exists, which is left as it is, or it could not be written: stderr says why
  2  the command line is no good

Examples:
  xdpfwd esp new-key --transform aes-128-gcm /etc/xdpfwd/out.key
  xdpfwd esp new-key --transform chacha20-poly1305 /etc/xdpfwd/in.key")]
pub(crate) struct NewKey {
    /// What the key is for
    #[arg(long, value_name = "NAME", value_parser = transforms())]
    pub(crate) transform: Transform,

    /// The file, which must not exist
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// Where to put it.
///
/// A state file has what keys were used for, so that no number is used twice, whatever happens in
/// between. Each xdpfwd has one of its own. It is made once, together with new keys: a new state
/// for old keys would begin again.
#[cfg(feature = "esp")]
#[derive(Clone, Debug, PartialEq, Args)]
#[command(after_help = "\
Exit codes:
  0  made
  1  the file exists, which is left as it is, or it could not be written: stderr says why
  2  the command line is no good

Examples:
  xdpfwd esp new-state /var/lib/xdpfwd/wan.state")]
pub(crate) struct NewState {
    /// The file, which must not exist
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// Transforms by their names.
#[cfg(feature = "esp")]
fn transforms() -> impl TypedValueParser<Value = Transform> {
    PossibleValuesParser::new(Transform::ALL.map(Transform::name)).try_map(|name| {
        let named = Transform::ALL.into_iter().find(|transform| transform.name() == name);
        named.ok_or("no transform")
    })
}

/// What to forward, and how to report.
#[derive(Clone, Debug, PartialEq, Args)]
pub(crate) struct Run {
    /// The configuration file; docs/configuration.md describes its keys
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,

    /// Check the configuration against this machine, print the plan, and end; touches nothing
    #[arg(long)]
    pub(crate) check: bool,

    /// End by itself after so many seconds, such as 10 or 0.5
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    pub(crate) duration: Option<Duration>,

    /// Seconds from one report to the next
    #[arg(long, value_name = "SECS", value_parser = seconds, default_value = "1")]
    pub(crate) interval: Duration,

    /// Report in JSON, one object a line, on stdout
    #[arg(long)]
    pub(crate) json: bool,

    /// How the log on stderr is written, warnings and errors included
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
}

impl Run {
    /// The configuration file.
    pub(crate) fn config(&self) -> &Path {
        // It is required, but for a subcommand.
        self.config.as_deref().unwrap_or(Path::new(""))
    }
}

/// What to examine.
///
/// Looks at this machine with the eyes of a configuration, or of an interface alone: driver and XDP
/// features, the mode that will really be got, queues and RSS, MTU, offloads, memory, privileges,
/// cores, interrupts, who else is attached. Each finding that is not as it should be comes with its
/// fix; docs/doctor.md lists all checks.
#[derive(Clone, Debug, PartialEq, Args)]
#[command(after_help = "\
Exit codes:
  0  ready
  1  will run, not at its best (or the report could not be written)
  2  the command line or the configuration is no good
  3  will not run")]
pub(crate) struct Doctor {
    /// The configuration that is to run
    #[arg(long, value_name = "FILE", conflicts_with = "interfaces")]
    pub(crate) config: Option<PathBuf>,

    /// Interfaces, without a configuration
    #[arg(value_name = "IFACE", required_unless_present = "config")]
    pub(crate) interfaces: Vec<String>,

    /// Do not try which mode is got: trying attaches a program and binds a socket, for which some
    /// drivers set their queues up anew
    #[arg(long)]
    pub(crate) no_probe: bool,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For a person
    Text,
    /// One JSON object a line
    Json,
}

/// Adding this to the time of day stays far from where that would overflow.
const MOST_SECONDS: f64 = 1e9;

/// Positive decimal seconds: digits, and perhaps a point among them.
fn seconds(text: &str) -> Result<Duration, String> {
    let accepted = "expected seconds above 0 and up to 1000000000, such as 10 or 0.5";
    // `f64` would also take `inf`, `nan`, `1e3` and `+1`.
    if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(accepted.to_owned());
    }
    let seconds: f64 = text.parse().map_err(|_| accepted.to_owned())?;
    if seconds > MOST_SECONDS {
        return Err(accepted.to_owned());
    }
    let duration =
        Duration::try_from_secs_f64(seconds).map_err(|error| format!("{error}; {accepted}"))?;
    if duration.is_zero() { Err(accepted.to_owned()) } else { Ok(duration) }
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
    fn is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn has_the_defaults_it_promises() {
        let cli = parse(&["--config", "a.toml"]).unwrap();
        let run = Run {
            config: Some("a.toml".into()),
            check: false,
            duration: None,
            interval: Duration::from_secs(1),
            json: false,
            log_format: LogFormat::Text,
        };
        assert_eq!(cli, Cli { command: None, run });
    }

    #[test]
    fn the_doctor_takes_a_configuration_or_interfaces() {
        let doctor = |arguments: &[&str]| {
            parse(&[&["doctor"], arguments].concat()).map(|cli| match cli.command {
                Some(Command::Doctor(doctor)) => doctor,
                other => panic!("no doctor: {other:?}"),
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
    fn takes_decimal_seconds_above_zero() {
        for (text, milliseconds) in [
            ("10", 10_000),
            ("0.1", 100),
            (".5", 500),
            ("2.", 2_000),
            ("1000000000", 1_000_000_000_000),
        ] {
            assert_eq!(seconds(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        let refused = [
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
        for text in refused {
            assert!(seconds(text).unwrap_err().ends_with("such as 10 or 0.5"), "{text}");
        }
        assert!(seconds(&"9".repeat(1000)).is_err());
    }

    #[test]
    fn negative_seconds_are_refused_as_such() {
        for arguments in [["--duration=-1"], ["--interval=0"]] {
            let error = parse(&[&["--config", "a"], &arguments[..]].concat()).unwrap_err();
            assert_eq!((error.kind(), error.exit_code()), (ErrorKind::ValueValidation, 2));
        }
    }

    #[test]
    fn what_is_not_built_is_refused() {
        for arguments in
            [&[][..], &["ctl"], &["top"], &["--config", "a", "--metrics"], &["--config"]]
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
        fn seconds_never_panic_and_can_be_waited_for(text in "[-+0-9.eE]{0,30}|\\PC{0,30}") {
            if let Ok(duration) = seconds(&text) {
                prop_assert!(!duration.is_zero());
                prop_assert!(std::time::Instant::now().checked_add(duration).is_some());
            }
        }
    }
}
