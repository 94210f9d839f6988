//! `classbench`: writes a rule set and a trace to files and prints their statistics.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

use xdpfwd_lab::print;

use super::{Locality, Seed, Statistics, generate, trace, write_rules, write_trace};

/// Options of the subcommand.
#[derive(Args)]
pub struct Arguments {
    /// acl, fw or ipc, or a file: a seed in TOML, or a parameter file of ClassBench such as
    /// acl1_seed
    #[arg(long)]
    seed: String,
    /// Number of rules
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    rules: usize,
    /// Output file for the rules, in ClassBench's format
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Output file for a trace: packet headers that match the rules
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Number of headers in the trace
    #[arg(long, value_name = "N", default_value_t = 100_000, requires = "trace")]
    packets: usize,
    /// Repetition of headers: `uniform` (each header once) or `pareto` (bursts with a Pareto
    /// distribution)
    #[arg(
        long,
        value_enum,
        hide_possible_values = true,
        default_value_t = Skew::Uniform,
        requires = "trace"
    )]
    skew: Skew,
    /// Pareto shape, above 0
    #[arg(long, value_name = "SHAPE", default_value_t = 1.0, requires = "trace")]
    pareto_a: f64,
    /// Pareto scale; in ClassBench, 0.0001 is low locality and 1 is high locality
    #[arg(long, value_name = "SCALE", default_value_t = 0.1, requires = "trace")]
    pareto_b: f64,
    /// Share of random headers, most of which match no rule
    #[arg(long, value_name = "FRACTION", default_value_t = 0.1, requires = "trace")]
    random_share: f64,
    /// Seed of the random numbers; the same seed gives the same files
    #[arg(long, value_name = "N", default_value_t = 1)]
    random_seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Skew {
    /// Each header once.
    Uniform,
    /// Headers in bursts with a Pareto distribution.
    Pareto,
}

/// Writes the files and prints the statistics.
pub fn run(arguments: &Arguments) -> Result<()> {
    let locality = match arguments.skew {
        Skew::Uniform => Locality::Uniform,
        Skew::Pareto => Locality::Pareto { a: arguments.pareto_a, b: arguments.pareto_b },
    };
    ensure!(
        arguments.pareto_a > 0.0 && arguments.pareto_b >= 0.0,
        "invalid --pareto-a or --pareto-b: use --pareto-a above 0 and --pareto-b of at least 0"
    );
    ensure!((0.0..=1.0).contains(&arguments.random_share), "invalid --random-share: use 0 to 1");
    let seed = find_seed(&arguments.seed)?;
    let rules = generate(&seed, arguments.rules, arguments.random_seed);
    write_rules(create(&arguments.output)?, &rules)
        .with_context(|| format!("writing {}", arguments.output.display()))?;
    print(
        &(format!(
            "{}, seed {}, random seed {}",
            arguments.output.display(),
            seed.name(),
            arguments.random_seed
        ) + "\n"),
    )?;
    print(&(format!("{}", Statistics::of(&rules)) + "\n"))?;
    if rules.len() < arguments.rules {
        print(
            &(format!(
                "the seed yields only {} of {} distinct rules",
                rules.len(),
                arguments.rules
            ) + "\n"),
        )?;
    }
    if let Some(path) = &arguments.trace {
        let headers = trace(
            &rules,
            arguments.packets,
            locality,
            arguments.random_share,
            arguments.random_seed,
        );
        write_trace(create(path)?, &headers)
            .with_context(|| format!("writing {}", path.display()))?;
        let random_count = headers.iter().filter(|header| header.drawn_from.is_none()).count();
        print(
            &(format!(
                "{}: {} headers, {random_count} of them random",
                path.display(),
                headers.len()
            ) + "\n"),
        )?;
    }
    Ok(())
}

fn find_seed(name: &str) -> Result<Seed> {
    if let Some(seed) = Seed::built_in(name) {
        return Ok(seed);
    }
    let path = Path::new(name);
    if !path.exists() {
        let names: Vec<_> = Seed::names().collect();
        bail!("unknown seed {name:?}: use {} or the path of a file", names.join(", "));
    }
    Seed::parse(name, &fs::read_to_string(path).with_context(|| format!("reading {name}"))?)
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    Ok(BufWriter::new(File::create(path).with_context(|| format!("creating {}", path.display()))?))
}
