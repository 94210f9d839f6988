//! Parses parameter files of ClassBench, such as `acl1_seed`. Sections start with `-name` and end
//! with `#`.

use std::{collections::BTreeMap, str::FromStr};

use anyhow::{Context, Result, ensure};

use super::seed_file::{ProtocolEntry, SeedFile};

/// The pairs of port classes, in the order of a line of `-prots`.
const PAIRS: [&str; 25] = [
    "wc-wc", "wc-hi", "hi-wc", "hi-hi", "wc-lo", "lo-wc", "hi-lo", "lo-hi", "lo-lo", "wc-ar",
    "ar-wc", "hi-ar", "ar-hi", "wc-em", "em-wc", "hi-em", "em-hi", "lo-ar", "ar-lo", "lo-em",
    "em-lo", "ar-ar", "ar-em", "em-ar", "em-em",
];

/// Parses a parameter file. Ignores the sections `-flags` and `-extra`.
pub(crate) fn read(text: &str) -> Result<SeedFile> {
    let sections = sections(text);
    let lines = |name: &str| {
        sections.get(name).map(Vec::as_slice).with_context(|| format!("section -{name} is missing"))
    };
    let mut file = SeedFile {
        filters: single(lines("scale")?).context("-scale")?,
        source_nesting: single(lines("snest")?).context("-snest")?,
        destination_nesting: single(lines("dnest")?).context("-dnest")?,
        source_ranges: ranges(lines("spar")?).context("-spar")?,
        destination_ranges: ranges(lines("dpar")?).context("-dpar")?,
        source_exact: exact(lines("spem")?).context("-spem")?,
        destination_exact: exact(lines("dpem")?).context("-dpem")?,
        source_branching: branching(lines("sskew")?).context("-sskew")?,
        destination_branching: branching(lines("dskew")?).context("-dskew")?,
        ..SeedFile::default()
    };
    for line in lines("prots")? {
        file.protocol.push(protocol(line).context("-prots")?);
    }
    for pair in PAIRS {
        let section = pair.replace('-', "_");
        let values = lengths(lines(&section)?).with_context(|| format!("-{section}"))?;
        if !values.is_empty() {
            file.lengths.insert(pair.to_owned(), values);
        }
    }
    for line in lines("pcorr")? {
        let [level, probability] = fields(line).context("-pcorr")?;
        let level = number(level)?;
        file.correlation.push((level, level, number(probability)?));
    }
    Ok(file)
}

fn sections(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut sections: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(start) = line.strip_prefix('-') {
            sections.entry(start).or_default();
            name = Some(start);
        } else if line.starts_with('#') {
            name = None;
        } else if let Some(name) = name {
            sections.entry(name).or_default().push(line);
        }
    }
    sections
}

fn number<T: FromStr>(word: &str) -> Result<T> {
    word.parse().ok().with_context(|| format!("invalid number {word:?}"))
}

fn single<T: FromStr>(lines: &[&str]) -> Result<T> {
    ensure!(lines.len() == 1, "expected one line, found {}", lines.len());
    number(lines[0])
}

fn words(line: &str) -> Vec<&str> {
    line.split([' ', '\t', ',', ':']).filter(|word| !word.is_empty()).collect()
}

fn fields<const N: usize>(line: &str) -> Result<[&str; N]> {
    words(line).try_into().ok().with_context(|| format!("expected {N} fields in {line:?}"))
}

fn ranges(lines: &[&str]) -> Result<Vec<(f64, u16, u16)>> {
    lines
        .iter()
        .map(|line| {
            fields(line).and_then(|[p, low, high]| Ok((number(p)?, number(low)?, number(high)?)))
        })
        .collect()
}

fn exact(lines: &[&str]) -> Result<Vec<(f64, u16)>> {
    Ok(ranges(lines)?.into_iter().map(|(share, port, _)| (share, port)).collect())
}

/// Parses lines with a level, the shares of nodes with one and with two children, and the skew.
fn branching(lines: &[&str]) -> Result<Vec<(u8, u8, f64, f64)>> {
    let level = |line: &&str| {
        let [level, _, two_children, skew] = fields(line)?;
        let level = number(level)?;
        // Some files have rounded values above 1, such as 1.00000001.
        Ok((level, level, number::<f64>(two_children)?.min(1.0), number::<f64>(skew)?.min(1.0)))
    };
    lines.iter().map(level).collect()
}

fn protocol(line: &str) -> Result<ProtocolEntry> {
    let [value, share, pairs @ ..] = &words(line)[..] else {
        anyhow::bail!("{line:?} has no share")
    };
    ensure!(
        pairs.len() == PAIRS.len(),
        "protocol {value} has {} pairs of port classes, not 25",
        pairs.len()
    );
    let mut ports = BTreeMap::new();
    for (pair, share) in PAIRS.iter().zip(pairs) {
        ports.insert((*pair).to_owned(), number(share)?);
    }
    let value: u8 = number(value)?;
    Ok(ProtocolEntry { number: (value != 0).then_some(value), share: number(share)?, ports })
}

/// Parses lines such as `48,0.75 16,0.5 24,0.5`: the sum of the two prefix lengths and its share of
/// the rules, then each source length and its share of the rules with this sum.
fn lengths(lines: &[&str]) -> Result<Vec<(f64, u8, u8)>> {
    let mut values = Vec::new();
    for line in lines {
        let words = words(line);
        ensure!(
            words.len() >= 4 && words.len().is_multiple_of(2),
            "expected pairs of numbers in {line:?}"
        );
        let (total, share): (u8, f64) = (number(words[0])?, number(words[1])?);
        for pair in words[2..].chunks_exact(2) {
            let (source, part): (u8, f64) = (number(pair[0])?, number(pair[1])?);
            let destination = total.checked_sub(source).with_context(|| {
                format!("source length {source} exceeds the total length {total}")
            })?;
            values.push((share * part, source, destination));
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::super::seed::{ClassPair, Lengths, PortClass, Seed};
    use super::*;

    fn parameter_file() -> String {
        let mut text = "-scale\n100\n#\n-prots\n0\t0.5\t1.0".to_owned() + &"\t0.0".repeat(24);
        text += "\n6\t0.5\t0.25";
        text += &"\t0.0".repeat(12);
        text += "\t0.75";
        text += &"\t0.0".repeat(11);
        text += "\n#\n-flags\n6\t0x0000/0x0000,1.0\t\n#\n-extra\n0\n#\n-spar\n#\n";
        text += "-spem\n#\n-dpar\n#\n-dpem\n0.4\t80:80\n0.6\t22:22\n#\n";
        for pair in PAIRS {
            let lines = match pair {
                "wc-wc" => "0,0.25\t0,1.0\n48,0.75\t16,0.5\t24,0.5\n",
                "wc-em" => "64,1.0\t32,1.0\n",
                _ => "",
            };
            text += &format!("-{}\n{lines}#\n", pair.replace('-', "_"));
        }
        for side in ["s", "d"] {
            text += &format!(
                "-{side}nest\n4\n#\n-{side}skew\n0\t0.0\t1.0\t0.5\n1\t0.5\t0.5\t0.25\n#\n"
            );
        }
        text + "-pcorr\n1\t0.5\n2\t1.0\n#\n"
    }

    #[test]
    fn seed_parse_reads_classbench_parameter_file() {
        let seed = Seed::parse("artificial", &parameter_file()).unwrap();
        assert_eq!((seed.filters, seed.source.nesting), (100, 4));
        assert_eq!(
            (seed.correlation[1], seed.correlation[2], seed.correlation[3]),
            (0.5, 1.0, 0.0)
        );
        assert_eq!(
            (
                seed.source.levels[1].two_children,
                seed.source.levels[1].skew,
                seed.source.levels[2].two_children
            ),
            (0.5, 0.25, 0.0)
        );
        let any = &seed.lengths[&ClassPair { source: PortClass::Any, destination: PortClass::Any }];
        let shares: Vec<_> = any.shares().map(|(share, &lengths)| (share, lengths)).collect();
        let lengths = |source, destination| Lengths { source, destination };
        assert_eq!(
            shares,
            [(0.25, lengths(0, 0)), (0.375, lengths(16, 32)), (0.375, lengths(24, 24))]
        );
        assert_eq!(seed.protocols.shares().count(), 2);
        assert_eq!(super::super::generate(&seed, 50, 1).len(), 50);
    }

    #[test]
    fn incomplete_file_error_names_missing_part() {
        let error = |from, to| {
            format!("{:#}", Seed::parse("x", &parameter_file().replacen(from, to, 1)).unwrap_err())
        };
        assert!(error("-dpem", "-other").contains("-dpem"));
        assert!(error("64,1.0\t32,1.0", "64,1.0").contains("-wc_em"));
        // The destination length 70 - 32 exceeds 32.
        assert!(error("64,1.0\t32,1.0", "70,1.0\t32,1.0").contains("38"));
        assert!(error("6\t0.5\t0.25", "6\t0.5").contains("24 pairs"));
    }
}
