//! XDP programs that forward within the kernel (`benches/peers/redirect.bpf.c`), with the filter of
//! xdpfwd's XDP program.

use anyhow::{Context as _, Result};
use libbpf_rs::{MapCore as _, MapFlags, Object, ObjectBuilder, OpenObject};
use nix::net::if_::if_nametoindex;
use xdpfwd_bench::results;
use xdpfwd_filter::{Classifier, Rule, Verdict};
use xdpfwd_lab::{Chain, Traffic};
use xdpfwd_pipeline::XdpTables;
use xdpfwd_xsk::XdpLink;

use super::{kernel, rule_set::rule_set};
use crate::{
    forwarders::{Environment, ROUTE, brief, routed, set_up},
    matrix::{
        columns::Column,
        rows::row::{ConfiguredPath, FinalCounts, Row, RunningPath},
    },
    obstacle::Obstacle,
    xdp_programs::{attach, compile_bpf, receive_in_thread},
};

#[derive(Clone, Copy, Debug)]
struct XdpRedirect {
    /// Whether the program looks up routes with `bpf_fib_lookup`.
    fib: bool,
}

pub(super) fn rows() -> Vec<Box<dyn Row>> {
    [false, true].map(|fib| Box::new(XdpRedirect { fib }) as Box<dyn Row>).into()
}

impl Row for XdpRedirect {
    fn describe(&self) -> results::Row {
        let (name, title, task) = match self.fib {
            false => ("xdp-redirect", "XDP_REDIRECT", "Sets MAC addresses."),
            true => (
                "xdp-redirect-fib",
                "XDP_REDIRECT with bpf_fib_lookup",
                "Looks up the route; rewrites TTL, checksum and MAC addresses.",
            ),
        };
        results::Row {
            name: name.into(),
            title: title.into(),
            place: "kernel".into(),
            remark: format!(
                "Receives in a kernel thread on the forwarding core (threaded NAPI). {task}"
            ),
            copies: vec![],
        }
    }

    fn prepare(
        &self,
        column: &'static Column,
        environment: &Environment,
    ) -> Result<Box<dyn ConfiguredPath>, Obstacle> {
        if column.transform().is_some() {
            return Err(Obstacle::CannotExist("XDP programs have no AEAD function".into()));
        }
        kernel::check_stages(column, "the XDP program does not search payloads")?;
        let rules = column.filter().map(|(rules, _)| rules);
        let file = compile_bpf(environment, "redirect")?;
        let (object, tables) = open(self.program(rules), &file, rules, environment)?;
        let object = object.load().map_err(|error| {
            let error = brief(&error.into());
            Obstacle::CannotExist(format!("the kernel rejects the XDP program: {error}"))
        })?;
        xdpfwd_engine::fill_tables(&object, &tables).context("cannot load the filter's tables")?;
        let core = environment.core;
        Ok(Box::new(PreparedRedirect { row: *self, rules, object, core }))
    }
}

impl XdpRedirect {
    /// Returns the name of the XDP program.
    fn program(self, rules: Option<u32>) -> &'static str {
        match (self.fib, rules.is_some()) {
            (false, false) => "redirect",
            (false, true) => "redirect_filter",
            (true, false) => "redirect_fib",
            (true, true) => "redirect_fib_filter",
        }
    }
}

/// Opens a program with these rules. Returns it with the contents of its tables.
fn open(
    name: &str,
    file: &std::path::Path,
    rules: Option<u32>,
    environment: &Environment,
) -> Result<(OpenObject, XdpTables)> {
    let (mut parsed, mut drops): (Vec<Rule>, bool) = (vec![], false);
    if let Some(rules) = rules {
        let set = rule_set(environment, rules)?;
        drops = set.verdict_for_passing() == "drop";
        parsed = set.parsed(if drops { Verdict::Drop } else { Verdict::Accept })?;
    }
    let tables = xdpfwd_stages::filter::map_contents(Classifier::new(&parsed, 1).image(&parsed)?);
    let mut open = ObjectBuilder::default().open_file(file)?;
    open.progs_mut().for_each(|mut program| program.set_autoload(program.name() == name));
    let mut config = open.maps_mut().find(|map| map.name() == ".rodata.config");
    let config = config.as_mut().context("redirect.bpf.c has no map .rodata.config")?;
    config.set_initial_value(&u32::from(drops).to_ne_bytes())?;
    xdpfwd_engine::prepare_tables(&mut open, &tables)?;
    Ok((open, tables))
}

struct PreparedRedirect {
    row: XdpRedirect,
    rules: Option<u32>,
    /// Loaded once: the verifier takes longer than a run.
    object: Object,
    core: usize,
}

impl ConfiguredPath for PreparedRedirect {
    fn commands(&self) -> String {
        let mut lines: Vec<String> = vec![];
        if self.row.fib {
            lines.extend(ROUTE.map(str::to_owned));
        }
        lines.push(format!(
            "XDP program {} of benches/peers/redirect.bpf.c on fwd0, {} rules; \
             /sys/class/net/fwd0/threaded = 1, its thread on core {}",
            self.row.program(self.rules),
            self.rules.unwrap_or(0),
            self.core
        ));
        lines.join("\n")
    }

    fn address(&self, traffic: Traffic) -> Traffic {
        if self.row.fib { routed(traffic) } else { traffic }
    }

    fn start(&self, chain: &Chain) -> Result<Box<dyn RunningPath>> {
        if self.row.fib {
            ROUTE.iter().try_for_each(|line| set_up(chain, line))?;
        }
        receive_in_thread(chain, self.core)?;
        // The kernel looks up interface numbers in the namespace of the caller.
        let link = chain.fwd().run(|| -> Result<XdpLink> {
            let egress = if_nametoindex("fwd1")?;
            let map = self.object.maps().find(|map| map.name() == "egress");
            let map = map.context("redirect.bpf.c has no map egress")?;
            // The entries of the last lab vanished with its interfaces, but later.
            let old: Vec<Vec<u8>> = map.keys().collect();
            old.iter().try_for_each(|key| map.delete(key).or_else(ignore_missing))?;
            let key = if self.row.fib { egress } else { 0 };
            map.update(&key.to_ne_bytes(), &egress.to_ne_bytes(), MapFlags::ANY)?;
            attach(&self.object, self.row.program(self.rules))
        })??;
        Ok(Box::new(RunningRedirect { _link: link }))
    }
}

fn ignore_missing(error: libbpf_rs::Error) -> Result<(), libbpf_rs::Error> {
    if error.kind() == libbpf_rs::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

struct RunningRedirect {
    _link: XdpLink,
}

impl RunningPath for RunningRedirect {
    fn pid(&self) -> Option<u32> {
        None
    }

    fn check(&mut self) -> Result<()> {
        Ok(())
    }

    fn stop(self: Box<Self>, chain: &Chain) -> Result<FinalCounts> {
        Ok(FinalCounts { transmitted: Some(kernel::transmitted(chain)?), report: None })
    }
}
