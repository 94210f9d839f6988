//! `classbench`: writes a rule set and a trace to files and prints their statistics.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

use super::{Locality, Seed, Statistics, generate, trace, write_rules, write_trace};

/// Options of the subcommand.
#[derive(Args)]
pub struct Arguments {
    /// acl, fw or ipc, or a file: a seed in TOML, or a parameter file of ClassBench such as
    /// acl1_seed
    #[arg(long)]
    seed: String,
    /// Number of rules
    #[arg(long, default_value_t = 10_000)]
    rules: usize,
    /// Seed of the random numbers; the same seed gives the same files
    #[arg(long, default_value_t = 1)]
    random_seed: u64,
    /// Output file for rules, in ClassBench's format
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Output file for headers that hit the rules
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Number of headers
    #[arg(long, default_value_t = 100_000, requires = "trace")]
    packets: usize,
    /// How often a header is repeated, back to back
    #[arg(long, value_enum, default_value_t = Skew::Uniform, requires = "trace")]
    skew: Skew,
    /// Pareto: the shape, above 0
    #[arg(long, default_value_t = 1.0, requires = "trace")]
    pareto_a: f64,
    /// Pareto: the scale; ClassBench calls 0.0001 low locality, 1 high
    #[arg(long, default_value_t = 0.1, requires = "trace")]
    pareto_b: f64,
    /// Share of random headers, which mostly match no rule
    #[arg(long, default_value_t = 0.1, requires = "trace")]
    random_share: f64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Skew {
    /// Once
    Uniform,
    /// Pareto distributed
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
        "--pareto-a is above 0, --pareto-b not below"
    );
    ensure!((0.0..=1.0).contains(&arguments.random_share), "--random-share is from 0 to 1");
    let seed = find(&arguments.seed)?;
    let rules = generate(&seed, arguments.rules, arguments.random_seed);
    write_rules(create(&arguments.output)?, &rules)
        .with_context(|| arguments.output.display().to_string())?;
    println!(
        "{}, seed {}, random seed {}",
        arguments.output.display(),
        seed.name(),
        arguments.random_seed
    );
    println!("{}", Statistics::of(&rules));
    if rules.len() < arguments.rules {
        println!(
            "the seed has no more than {} of {} different rules",
            rules.len(),
            arguments.rules
        );
    }
    if let Some(path) = &arguments.trace {
        let headers = trace(
            &rules,
            arguments.packets,
            locality,
            arguments.random_share,
            arguments.random_seed,
        );
        write_trace(create(path)?, &headers).with_context(|| path.display().to_string())?;
        let random = headers.iter().filter(|header| header.drawn_from.is_none()).count();
        println!("{}: {} headers, {random} of them random", path.display(), headers.len());
    }
    Ok(())
}

fn find(name: &str) -> Result<Seed> {
    if let Some(seed) = Seed::built_in(name) {
        return Ok(seed);
    }
    let path = Path::new(name);
    if !path.exists() {
        let names: Vec<_> = Seed::names().collect();
        bail!(
            "there is no seed {name}: {} are built in, anything else is the path of a file",
            names.join(", ")
        );
    }
    Seed::parse(name, &fs::read_to_string(path).with_context(|| format!("reading {name}"))?)
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    Ok(BufWriter::new(File::create(path).with_context(|| format!("creating {}", path.display()))?))
}
