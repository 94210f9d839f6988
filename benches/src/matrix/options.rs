//! The options of a matrix, and the durations that follow from them.

use anyhow::{Result, bail};
use clap::{Arg, Args};

use super::{plan::Plan, rates};
use crate::common::{Common, GeneratorName, note, parse_seconds};

/// Columns of the quick matrix, and of the rates.
const MAIN_COLUMNS: [&str; 3] = ["none", "filter-1k-user", "aes-128-gcm"];
/// Sizes at which rates are measured.
const RATE_SIZES: [&str; 2] = ["60", "imix"];
/// Maximum durations in seconds, with a reserve below the 100 and 10 minutes that are promised.
const FULL_SECONDS: f64 = 90.0 * 60.0;
const QUICK_SECONDS: f64 = 8.5 * 60.0;
/// Value of `--seconds`: as long as the total time allows.
const AUTOMATIC: &str = "auto";
/// Limits of a window, in seconds.
const SHORTEST_WINDOW: f64 = 0.25;
const LONGEST_WINDOW: f64 = 1.0;
/// Windows are multiples of this, in seconds.
const WINDOW_STEP: f64 = 0.05;
/// Seconds to make the lab, start, stop and check a path.
const RUN_OVERHEAD: f64 = 1.2;
/// Usual numbers of trials of a search: short, and of the full duration.
const USUAL_TRIALS: [f64; 2] = [14.0, 10.0];
/// Seconds to start and stop the generator of a trial.
const TRIAL_OVERHEAD: f64 = 0.3;

#[derive(Args)]
#[command(
    mut_arg("only", |arg| {
        let arg = arg.long("rows").help("Measure only these rows, separated by commas");
        arg.long_help("Measure only these rows (packet paths), separated by commas")
    }),
    mut_arg("seconds", |arg| automatic(arg, "Seconds of each of the two windows of a run")),
    mut_arg("warmup", |arg| arg.default_value("0.15")),
    mut_arg("results", |arg| {
        arg.help("Write results to DIR/<date>-<host>/matrix, or …/matrix-quick")
    }),
    after_help = "\
A run has two windows: in the first, the generator sends as fast as it can; in the second, about \
5 % more than the path forwards. Unfinished matrices with the same options, commit and machine are \
continued, also on another day. Interrupt a matrix at any time: at most the run in progress is lost.

Examples:
  sudo target/release/xdpfwd-bench matrix --quick
  sudo target/release/xdpfwd-bench matrix --rows af_xdp-copy,testpmd --columns none --sizes 60,imix"
)]
pub(crate) struct Arguments {
    /// Short matrix: 60 and 1514 bytes, three columns, three rounds, no rates; at most 10 minutes
    #[arg(long)]
    quick: bool,
    /// Measure only these columns (security processing), separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
    /// Frame lengths in memory, in bytes without FCS, or imix [default: 60,508,1514,imix; with
    /// --generator pktgen 60,508,1514]
    #[arg(long, value_name = "SIZES", value_delimiter = ',')]
    pub(crate) sizes: Vec<String>,
    /// Rounds; each runs every cell once [default: 5, or 3 with --quick]
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Skip the search for rates and the measurement of latency
    #[arg(long)]
    no_rates: bool,
    /// Seconds of each trial that confirms a rate, and of each measurement of latency
    #[arg(long, value_name = "SECONDS", default_value_t = 0.75, value_parser = parse_seconds)]
    trial_seconds: f64,
    /// Accept second windows that other programs disturbed: shows whether rows work on a busy
    /// machine; the figures are worthless
    #[arg(long)]
    pub(crate) accept_disturbed: bool,
    /// List rows and columns, and exit (no root)
    #[arg(long)]
    pub(crate) list: bool,
    /// Start a new matrix instead of continuing an unfinished one
    #[arg(long)]
    pub(crate) fresh: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Gives a duration the default `auto`, which becomes NaN: [`Arguments::durations`] replaces it.
fn automatic(arg: Arg, help: &'static str) -> Arg {
    arg.default_value(AUTOMATIC)
        .hide_default_value(true)
        .value_parser(|text: &str| match text {
            AUTOMATIC => Ok(f64::NAN),
            text => parse_seconds(text),
        })
        .help(format!("{help} [default: as long as the total time allows, at most 1]"))
}

/// Durations in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Durations {
    pub(crate) window: f64,
    pub(crate) warmup: f64,
    pub(crate) trial: f64,
    /// Expected for one run, and for the rates of one cell.
    pub(crate) run: f64,
    pub(crate) rates: f64,
}

impl Arguments {
    /// Returns the kind of the matrix: the name of its folder.
    pub(crate) fn kind(&self) -> &'static str {
        if self.quick { "matrix-quick" } else { "matrix" }
    }

    /// Adds the defaults that depend on `--quick` and on the generator, and checks values.
    pub(crate) fn complete(mut self, generator: GeneratorName) -> Result<Self> {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let can_send_imix = generator == GeneratorName::Live;
        if self.sizes.is_empty() {
            self.sizes = match (self.quick, can_send_imix) {
                (true, _) => list(&["60", "1514"]),
                (false, true) => list(&["60", "508", "1514", "imix"]),
                (false, false) => {
                    note("measuring without imix: pktgen sends packets of one length");
                    list(&["60", "508", "1514"])
                }
            };
        }
        if !can_send_imix && self.sizes.iter().any(|size| size == "imix") {
            bail!("cannot send imix with pktgen; use --sizes 60,508,1514 or --generator live");
        }
        if self.quick && self.columns.is_empty() {
            self.columns = list(&MAIN_COLUMNS);
        }
        if self.rounds == Some(0) {
            bail!("invalid value 0 for --rounds: a matrix has at least one round");
        }
        let traffic = &self.common.traffic;
        let is_valid = |seconds: f64| (0.01..=3600.0).contains(&seconds);
        if !(traffic.seconds.is_nan() || is_valid(traffic.seconds)) || !is_valid(self.trial_seconds)
        {
            bail!("invalid --seconds or --trial-seconds: use 0.01 to 3600");
        }
        Ok(self)
    }

    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 3 } else { 5 })
    }

    /// Returns the columns and the sizes for which rates are measured.
    pub(crate) fn rate_cells(&self) -> [Vec<String>; 2] {
        let has_rates = !self.quick && !self.no_rates;
        [&MAIN_COLUMNS[..], &RATE_SIZES[..]].map(|names| {
            let names = names.iter().filter(|_| has_rates);
            names.map(|&name| name.to_owned()).collect()
        })
    }

    /// Returns how long windows and trials are, so that the plan takes no longer than promised.
    pub(crate) fn durations(&self, plan: &Plan) -> Durations {
        let (trial, warmup) = (self.trial_seconds, self.common.traffic.warmup);
        let trials = rates::limits(trial).seconds.into_iter().zip(USUAL_TRIALS);
        // The search, then the latencies, each in a new lab.
        let rates = 2.0 * RUN_OVERHEAD
            + trials.map(|(seconds, count)| count * (seconds + TRIAL_OVERHEAD)).sum::<f64>()
            + rates::LOADS.len() as f64 * (trial + TRIAL_OVERHEAD);
        let rate_cells = plan.rate_cells().len();
        let runs = plan.steps().len() - rate_cells;
        let total = if self.quick { QUICK_SECONDS } else { FULL_SECONDS };
        let fixed = RUN_OVERHEAD + 2.0 * warmup;
        let window = match self.common.traffic.seconds {
            seconds if seconds.is_nan() => {
                let per_run = (total - rates * rate_cells as f64) / (runs.max(1) as f64);
                let longest = ((per_run - fixed) / 2.0 / WINDOW_STEP).floor() * WINDOW_STEP;
                longest.clamp(SHORTEST_WINDOW, LONGEST_WINDOW)
            }
            seconds => seconds,
        };
        Durations { window, warmup, trial, run: fixed + 2.0 * window, rates }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::matrix::fake;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(arguments: &[&str]) -> Arguments {
        let arguments = ["matrix"].iter().chain(arguments);
        Cli::try_parse_from(arguments).unwrap().arguments.complete(GeneratorName::Live).unwrap()
    }

    /// A plan with all cells of 11 rows and the given numbers of columns and sizes.
    fn plan(arguments: &Arguments, columns: usize) -> Plan {
        let names: Vec<String> = (0..13).map(|number| format!("name {number}")).collect();
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        names[..3].copy_from_slice(&MAIN_COLUMNS);
        let sizes: Vec<&str> = arguments.sizes.iter().map(String::as_str).collect();
        let [rate_columns, rate_sizes] = arguments.rate_cells();
        Plan {
            rounds: arguments.rounds(),
            rate_columns,
            rate_sizes,
            ..fake::plan(&names[..11], &names[..columns], &sizes)
        }
    }

    fn total_minutes(arguments: &Arguments, plan: &Plan) -> f64 {
        let durations = arguments.durations(plan);
        let rates = plan.rate_cells().len();
        let runs = plan.steps().len() - rates;
        (runs as f64 * durations.run + rates as f64 * durations.rates) / 60.0
    }

    #[test]
    fn durations_of_full_matrix_fit_into_100_minutes() {
        let arguments = parse(&[]);
        // 11 rows × 8 columns: about as many cells as exist.
        let plan = plan(&arguments, 8);
        assert_eq!(plan.rate_cells().len(), 11 * 3 * 2);
        let minutes = total_minutes(&arguments, &plan);
        assert!((80.0..=95.0).contains(&minutes), "{minutes}");
    }

    #[test]
    fn durations_of_quick_matrix_fit_into_ten_minutes() {
        let arguments = parse(&["--quick"]);
        assert_eq!(arguments.columns, MAIN_COLUMNS);
        let plan = plan(&arguments, 3);
        assert!(plan.rate_cells().is_empty());
        let minutes = total_minutes(&arguments, &plan);
        assert!((7.0..=9.0).contains(&minutes), "{minutes}");
    }

    #[test]
    fn durations_of_few_cells_have_the_longest_window() {
        let arguments = parse(&["--no-rates"]);
        assert_eq!(arguments.durations(&plan(&arguments, 1)).window, LONGEST_WINDOW);
    }

    #[test]
    fn seconds_option_replaces_the_automatic_window() {
        let arguments = parse(&["--quick", "--seconds", "2.5"]);
        assert_eq!(arguments.durations(&plan(&arguments, 3)).window, 2.5);
        for invalid in [["--seconds", "0"], ["--rounds", "0"], ["--trial-seconds", "0"]] {
            let arguments = Cli::try_parse_from(["matrix"].iter().chain(&invalid)).unwrap();
            assert!(arguments.arguments.complete(GeneratorName::Live).is_err(), "{invalid:?}");
        }
    }

    #[test]
    fn durations_that_are_not_numbers_of_seconds_are_rejected() {
        for option in ["--seconds", "--warmup", "--trial-seconds"] {
            for invalid in ["nan", "inf", "3601", "x"] {
                let error = Cli::try_parse_from(["matrix", option, invalid]).err().unwrap();
                let text = error.to_string();
                assert!(text.contains("0 to 3600"), "{option} {invalid}: {text}");
            }
        }
        assert!(parse(&["--seconds", "auto"]).common.traffic.seconds.is_nan());
    }

    #[test]
    fn imix_is_left_out_or_refused_with_pktgen() {
        let complete = |arguments: &[&str]| {
            let arguments = ["matrix"].iter().chain(arguments);
            Cli::try_parse_from(arguments).unwrap().arguments.complete(GeneratorName::Pktgen)
        };
        assert_eq!(complete(&[]).unwrap().sizes, ["60", "508", "1514"]);
        let error = complete(&["--sizes", "60,imix"]).err().unwrap().to_string();
        assert!(error.contains("--generator live"), "{error}");
    }

    #[test]
    fn rows_option_selects_rows() {
        assert_eq!(parse(&["--rows", "a,b"]).common.only, ["a", "b"]);
        assert!(Cli::try_parse_from(["matrix", "--only", "a"]).is_err());
    }
}
