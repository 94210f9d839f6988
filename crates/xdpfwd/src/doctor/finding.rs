//! Findings of `doctor`: one per check and subject.

use std::fmt::{self, Write as _};
use std::process::ExitCode;

use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The name of the check, which never changes, so that scripts can rely on it. docs/doctor.md
    /// lists all checks.
    pub(crate) check: &'static str,
    /// The name of an interface, or `host`.
    pub(crate) subject: String,
    pub(crate) level: Level,
    pub(crate) finding: String,
    /// Commands, or a line of the configuration. Present with every warning and error, and with
    /// some unknown findings.
    pub(crate) fix: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Ok,
    /// The check is impossible here; the finding states why.
    Unknown,
    /// xdpfwd runs, but not at full speed.
    Warning,
    /// xdpfwd does not run.
    Error,
}

impl Finding {
    pub(crate) fn ok(
        check: &'static str,
        subject: impl Into<String>,
        finding: impl Into<String>,
    ) -> Self {
        Self {
            check,
            subject: subject.into(),
            level: Level::Ok,
            finding: finding.into(),
            fix: None,
        }
    }

    pub(crate) fn unknown(
        check: &'static str,
        subject: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self { level: Level::Unknown, ..Self::ok(check, subject, why) }
    }

    pub(crate) fn warning(
        check: &'static str,
        subject: impl Into<String>,
        finding: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { level: Level::Warning, fix: Some(fix.into()), ..Self::ok(check, subject, finding) }
    }

    pub(crate) fn error(
        check: &'static str,
        subject: impl Into<String>,
        finding: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { level: Level::Error, fix: Some(fix.into()), ..Self::ok(check, subject, finding) }
    }
}

/// All findings of one `doctor` run; `--json` prints this.
#[derive(Debug, Serialize)]
pub(crate) struct Examination {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    /// The worst level; [`Level::Unknown`] counts as [`Level::Ok`].
    level: Level,
    findings: Vec<Finding>,
}

impl Examination {
    pub(crate) fn new(findings: Vec<Finding>) -> Self {
        let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
        let level = if worst == Level::Unknown { Level::Ok } else { worst };
        Self { schema: 1, kind: "doctor", level, findings }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.level {
            Level::Ok | Level::Unknown => 0,
            Level::Warning => 1,
            Level::Error => 3,
        })
    }

    pub(crate) fn text(&self, colour: bool) -> String {
        let mut text = String::new();
        let mut subject = "";
        for finding in &self.findings {
            if finding.subject != subject {
                subject = &finding.subject;
                let _ = writeln!(text, "{}{subject}", if text.is_empty() { "" } else { "\n" });
            }
            let _ = write!(text, "{}", finding.display(colour));
        }
        let count = |level| self.findings.iter().filter(|finding| finding.level == level).count();
        let (warnings, errors) = (count(Level::Warning), count(Level::Error));
        let verdict = match self.level {
            Level::Ok | Level::Unknown => "ready".to_owned(),
            Level::Warning => {
                format!("will run, but not at full speed: {}", counted(warnings, "warning"))
            }
            Level::Error => {
                format!(
                    "will not run: {}, {}",
                    counted(errors, "error"),
                    counted(warnings, "warning")
                )
            }
        };
        let _ = writeln!(text, "\n{}", paint(self.level, &verdict, colour));
        text
    }
}

fn counted(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

impl Finding {
    /// Formats the finding with its subject, for use without a heading.
    pub(crate) fn with_subject(&self) -> String {
        let finding =
            Self { finding: format!("{}: {}", self.subject, self.finding), ..self.clone() };
        let colour = false;
        finding.display(colour).to_string()
    }

    /// Formats a row of level, check and result, with the fix below.
    pub(crate) fn display(&self, colour: bool) -> FindingText<'_> {
        FindingText { finding: self, colour }
    }
}

pub(crate) struct FindingText<'a> {
    finding: &'a Finding,
    colour: bool,
}

impl fmt::Display for FindingText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { check, level, finding, fix, .. } = self.finding;
        let mark = match level {
            Level::Ok => "ok",
            Level::Unknown => "?",
            Level::Warning => "warn",
            Level::Error => "FAIL",
        };
        let mark = paint(*level, &format!("{mark:<4}"), self.colour);
        writeln!(f, "  {mark}  {check:<14} {finding}")?;
        if let Some(fix) = fix {
            for (number, line) in fix.lines().enumerate() {
                let arrow = if number == 0 { "→" } else { " " };
                writeln!(f, "  {:<4}  {:<14} {arrow} {line}", "", "")?;
            }
        }
        Ok(())
    }
}

fn paint(level: Level, text: &str, colour: bool) -> String {
    let code = match level {
        Level::Ok => "32",
        Level::Unknown => "36",
        Level::Warning => "33",
        Level::Error => "31;1",
    };
    if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examination() -> Examination {
        Examination::new(vec![
            Finding::ok("kernel", "host", "Linux 6.18"),
            Finding::warning(
                "huge-pages",
                "host",
                "none are reserved",
                "sysctl -w vm.nr_hugepages=16",
            ),
            Finding::unknown("irq", "eth1", "no MSI interrupts: it is virtual"),
            Finding::error(
                "mtu",
                "eth1",
                "MTU 9000 is beyond 1770",
                "ip link set eth1 mtu 1770\nor frame_size = 4096",
            ),
        ])
    }

    #[test]
    fn text_groups_findings_by_subject_with_fix_below() {
        insta::assert_snapshot!(examination().text(false), @r"
        host
          ok    kernel         Linux 6.18
          warn  huge-pages     none are reserved
                               → sysctl -w vm.nr_hugepages=16

        eth1
          ?     irq            no MSI interrupts: it is virtual
          FAIL  mtu            MTU 9000 is beyond 1770
                               → ip link set eth1 mtu 1770
                                 or frame_size = 4096

        will not run: 1 error, 1 warning
        ");
    }

    #[test]
    fn text_has_colour_only_if_requested() {
        assert!(!examination().text(false).contains('\u{1b}'));
        assert!(examination().text(true).contains("\u{1b}[31;1mFAIL\u{1b}[0m"));
    }

    #[test]
    fn examination_level_is_the_worst_except_unknown() {
        let level = |levels: &[Level]| {
            let findings =
                levels.iter().map(|&level| Finding { level, ..Finding::ok("a", "host", "b") });
            Examination::new(findings.collect()).level
        };
        assert_eq!(level(&[]), Level::Ok);
        assert_eq!(level(&[Level::Ok, Level::Unknown]), Level::Ok);
        assert_eq!(level(&[Level::Warning, Level::Unknown, Level::Ok]), Level::Warning);
        assert_eq!(level(&[Level::Warning, Level::Error]), Level::Error);
    }
}
