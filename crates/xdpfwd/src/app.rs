//! A program that embeds the engine, with its own name, stages, commands and hooks.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{ArgMatches, ColorChoice};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use xdpfwd_engine::{Handle, Report};
use xdpfwd_pipeline::{PlanCx, PlanError, StageConfig, StagePlan};

use crate::registry::Registry;

/// An error of a hook or of a `ctl` command. `?` converts any error type to it; `"…".into()`
/// converts a text.
pub type BoxError = Box<dyn Error + Send + Sync>;

type Hook = Box<dyn Fn(&Handle) -> Result<(), BoxError> + Send + Sync>;
type RollbackHook = Box<dyn Fn(&Handle, &str) + Send + Sync>;
type StoppedHook = Box<dyn Fn(&Report) + Send + Sync>;
type RunCtl = Box<dyn Fn(&Handle, &[String]) -> Result<Value, BoxError> + Send + Sync>;
type RunSubcommand = Box<dyn Fn(&ArgMatches) -> ExitCode>;

/// A forwarder with its own stages: the command `xdpfwd` under another name, with all its features.
///
/// ```no_run
/// use std::process::ExitCode;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use xdpfwd::App;
/// # use xdpfwd_pipeline::{BuildCx, Cx, Stage, StagePlan, View};
/// # #[derive(serde::Deserialize)]
/// # struct LimitConfig {}
/// # #[derive(Debug)]
/// # struct LimitPlan(Arc<AtomicU64>);
/// # impl StagePlan for LimitPlan {
/// #     fn build(&self, _: &BuildCx<'_>) -> Box<dyn Stage> { Box::new(Limit) }
/// #     fn summary(&self) -> String { String::new() }
/// # }
/// # struct Limit;
/// # impl Stage for Limit { fn process(&mut self, _: &mut View<'_>, _: &mut Cx<'_>) {} }
///
/// fn main() -> ExitCode {
///     let limit = Arc::new(AtomicU64::new(1500)); // shared by stages and commands
///     let stage_limit = Arc::clone(&limit);
///     App::new("limiter", env!("CARGO_PKG_VERSION"))
///         .about("Drops packets that are longer than a limit; `ctl limit` sets the limit")
///         .stage_with("limit", move |_: LimitConfig, _| Ok(LimitPlan(stage_limit.clone())))
///         .ctl("limit", "Set the maximum packet length in bytes", move |_, arguments| {
///             let [bytes] = arguments else { return Err("expected one argument: bytes".into()) };
///             limit.store(bytes.parse()?, Ordering::Relaxed);
///             Ok(format!("limit is {bytes}"))
///         })
///         .main()
/// }
/// ```
pub struct App {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) about: Option<String>,
    pub(crate) registry: Registry,
    pub(crate) ctl: Vec<CustomCtl>,
    pub(crate) subcommands: Vec<(clap::Command, RunSubcommand)>,
    hooks: Hooks,
}

pub(crate) struct CustomCtl {
    pub(crate) name: &'static str,
    pub(crate) about: String,
    run: RunCtl,
}

#[derive(Default)]
struct Hooks {
    start: Vec<Hook>,
    stop: Vec<Hook>,
    commit: Vec<Hook>,
    roll_back: Vec<RollbackHook>,
    stopped: Vec<StoppedHook>,
}

impl App {
    /// Creates a program without stages. Its name and version appear in help, log, reports and `ctl
    /// status`. `ctl` connects to `/run/NAME.sock` unless `--socket` names another path; the
    /// program listens only on the path in `[engine] control`, if configured.
    pub fn new(name: &'static str, version: &'static str) -> Self {
        Self {
            name,
            version,
            about: None,
            registry: Registry::default(),
            ctl: Vec::new(),
            subcommands: Vec::new(),
            hooks: Hooks::default(),
        }
    }

    /// Sets the description in `--help`.
    pub fn about(mut self, about: impl Into<String>) -> Self {
        self.about = Some(about.into());
        self
    }

    /// Adds a kind of stage.
    pub fn stage<C: StageConfig>(mut self) -> Self {
        self.registry = self.registry.with::<C>();
        self
    }

    /// Adds a kind of stage. The closure `plan` turns the stage's table in the configuration (`C`,
    /// without the key `kind`) into a plan. It runs on the control thread whenever a configuration
    /// is read: at start, at each reload, and for `--check`, `doctor` and `filter test`.
    pub fn stage_with<C: DeserializeOwned, P: StagePlan>(
        mut self,
        kind: &'static str,
        plan: impl Fn(C, &PlanCx<'_>) -> Result<P, PlanError> + Send + Sync + 'static,
    ) -> Self {
        self.registry = self.registry.with_fn(kind, plan);
        self
    }

    /// Adds all kinds of a registry, such as `xdpfwd_stages::builtin()`.
    pub fn stages(mut self, registry: Registry) -> Self {
        self.registry = self.registry.with_all(registry);
        self
    }

    /// Adds a `ctl` command: `NAME ctl COMMAND [ARGUMENT]...` runs the closure on the control
    /// thread of the running program. With `--json`, `ctl` prints `{"schema": 1, "type": COMMAND,
    /// "answer": …}`. Without, it prints a string unchanged, a list of objects or a
    /// [`Table`](xdpfwd_pipeline::Table) as a table, and other values as JSON. A panic in the
    /// closure is reported as an error.
    ///
    /// # Panics
    ///
    /// If a command with this name already exists.
    pub fn ctl<A: Serialize>(
        mut self,
        name: &'static str,
        about: impl Into<String>,
        run: impl Fn(&Handle, &[String]) -> Result<A, BoxError> + Send + Sync + 'static,
    ) -> Self {
        let is_taken = crate::ctl::command::is_builtin(name)
            || self.ctl.iter().any(|custom| custom.name == name);
        assert!(!is_taken, "ctl command {name:?} already exists");
        let run: RunCtl =
            Box::new(move |handle, arguments| Ok(serde_json::to_value(run(handle, arguments)?)?));
        self.ctl.push(CustomCtl { name, about: about.into(), run });
        self
    }

    /// Adds a `ctl` command whose arguments clap parses as `C`; invalid ones fail with clap's error
    /// text. Options of the command must follow `--`, because `ctl` itself parses the options
    /// before it: `ctl sessions -- add --qfi 9`.
    ///
    /// ```
    /// # use std::net::Ipv4Addr;
    /// # use xdpfwd::App;
    /// #[derive(clap::Parser)]
    /// enum Sessions {
    ///     /// Add a session
    ///     Add {
    ///         address: Ipv4Addr,
    ///         #[arg(value_parser = clap::value_parser!(u8).range(..64))]
    ///         qfi: u8,
    ///     },
    ///     /// Remove a session
    ///     Remove { address: Ipv4Addr },
    /// }
    ///
    /// let app = App::new("sessions", "1.0.0").ctl_parsed(
    ///     "sessions",
    ///     "Change sessions",
    ///     |_, command| match command {
    ///         Sessions::Add { address, qfi } => Ok(format!("added {address} with QFI {qfi}")),
    ///         Sessions::Remove { address } => Ok(format!("removed {address}")),
    ///     },
    /// );
    /// ```
    ///
    /// # Panics
    ///
    /// If a command with this name already exists.
    pub fn ctl_parsed<C: clap::Parser, A: Serialize>(
        self,
        name: &'static str,
        about: impl Into<String>,
        run: impl Fn(&Handle, C) -> Result<A, BoxError> + Send + Sync + 'static,
    ) -> Self {
        let usage = format!("{} ctl {name}", self.name);
        self.ctl(name, about, move |handle, arguments| {
            let command = C::command()
                .name(name)
                .bin_name(usage.clone())
                .no_binary_name(true)
                .disable_help_flag(true)
                .color(ColorChoice::Never);
            let parsed = command
                .try_get_matches_from(arguments)
                .and_then(|matches| C::from_arg_matches(&matches));
            match parsed {
                Ok(arguments) => Ok(serde_json::to_value(run(handle, arguments)?)?),
                // clap returns help as an error that is meant for stdout.
                Err(help) if !help.use_stderr() => Ok(help.to_string().into()),
                Err(error) => {
                    Err(error.to_string().trim_end().trim_start_matches("error: ").into())
                }
            }
        })
    }

    /// Adds a subcommand. It runs in the process that the user starts, and does not connect to a
    /// running program.
    pub fn subcommand(
        mut self,
        command: clap::Command,
        run: impl Fn(&ArgMatches) -> ExitCode + 'static,
    ) -> Self {
        self.subcommands.push((command, Box::new(run)));
        self
    }

    /// Adds a hook that runs after forwarding has started. If it fails, the program stops with exit
    /// status 1.
    pub fn on_start(
        mut self,
        hook: impl Fn(&Handle) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.hooks.start.push(Box::new(hook));
        self
    }

    /// Adds a hook that runs before the data plane stops, whatever the reason, even if an
    /// [`on_start`](Self::on_start) hook failed. It does not run if the data plane never started.
    /// Packets still flow, so counters are not final; [`on_stopped`](Self::on_stopped) receives the
    /// final ones.
    pub fn on_stop(mut self, hook: impl Fn(&Handle) + Send + Sync + 'static) -> Self {
        self.hooks.stop.push(Box::new(move |handle| {
            hook(handle);
            Ok(())
        }));
        self
    }

    /// Adds a hook that runs with the final report after the data plane has stopped. Workers and
    /// stages no longer exist, and their [`SharedCounters`](xdpfwd_pipeline::SharedCounters) are
    /// final. The hook does not run if the data plane never started, or if another hook stopped it
    /// with [`Handle::stop`], which returns the report.
    pub fn on_stopped(mut self, hook: impl Fn(&Report) + Send + Sync + 'static) -> Self {
        self.hooks.stopped.push(Box::new(hook));
        self
    }

    /// Adds a hook that runs after a reload has replaced the stages.
    pub fn on_reload_commit(mut self, hook: impl Fn(&Handle) + Send + Sync + 'static) -> Self {
        self.hooks.commit.push(Box::new(move |handle| {
            hook(handle);
            Ok(())
        }));
        self
    }

    /// Adds a hook that runs after a failed reload, with the reason. The old stages keep running.
    /// The closures of [`stage_with`](Self::stage_with) may have run: undo their side effects here.
    pub fn on_reload_rollback(
        mut self,
        hook: impl Fn(&Handle, &str) + Send + Sync + 'static,
    ) -> Self {
        self.hooks.roll_back.push(Box::new(hook));
        self
    }

    pub(crate) fn run_start_hooks(&self, handle: &Handle) -> Result<(), BoxError> {
        self.hooks.start.iter().try_for_each(|hook| catch_panic(|| hook(handle)))
    }

    pub(crate) fn run_stop_hooks(&self, handle: &Handle) {
        run_all("on_stop", &self.hooks.stop, |hook| hook(handle));
    }

    pub(crate) fn run_stopped_hooks(&self, report: &Report) {
        run_all("on_stopped", &self.hooks.stopped, |hook| {
            hook(report);
            Ok(())
        });
    }

    pub(crate) fn run_commit_hooks(&self, handle: &Handle) {
        run_all("on_reload_commit", &self.hooks.commit, |hook| hook(handle));
    }

    pub(crate) fn run_rollback_hooks(&self, handle: &Handle, reason: &str) {
        run_all("on_reload_rollback", &self.hooks.roll_back, |hook| {
            hook(handle, reason);
            Ok(())
        });
    }
}

impl CustomCtl {
    pub(crate) fn run(&self, handle: &Handle, arguments: &[String]) -> Result<Value, BoxError> {
        catch_panic(|| (self.run)(handle, arguments))
    }
}

fn run_all<H>(name: &str, hooks: &[H], run: impl Fn(&H) -> Result<(), BoxError>) {
    for hook in hooks {
        if let Err(error) = catch_panic(|| run(hook)) {
            tracing::error!(%error, "{name} hook failed");
        }
    }
}

/// Converts a panic into an error, so that a hook or command cannot end the process.
fn catch_panic<R>(run: impl FnOnce() -> Result<R, BoxError>) -> Result<R, BoxError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(format!("panicked: {}", text.unwrap_or_default()).into())
    })
}
