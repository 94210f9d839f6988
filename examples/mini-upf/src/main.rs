//! A small UPF: GTP-U tunnels from and to gNBs on N3, plain IPv4 packets on N6.

mod sessions;
mod stages;
#[cfg(test)]
mod tests;

use sessions::Sessions;
use xdpfwd::App;

/// The program, on these sessions.
fn app(sessions: Sessions) -> App {
    let (uplink, downlink) = (sessions.clone(), sessions.clone());
    App::new("mini-upf", env!("CARGO_PKG_VERSION"))
        .about("Forwards packets of 5G sessions between N3 (GTP-U) and N6 (IPv4)")
        .stage_with("gtpu-decap", move |config, _| stages::plan(config, &uplink, stages::decap))
        .stage_with("gtpu-encap", move |config, _| stages::plan(config, &downlink, stages::encap))
        .ctl_parsed("sessions", "List, add and remove sessions", move |handle, command| {
            sessions::run(&sessions, handle.workers()?, command)
        })
}

fn main() -> std::process::ExitCode {
    app(Sessions::default()).main()
}
