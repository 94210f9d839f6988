//! A small User Plane Function (UPF) of a 5G core network. N3, towards the base stations (gNBs),
//! has GTP-U tunnels; N6, towards the data network, has plain IP packets.

mod sessions;
mod stages;
#[cfg(test)]
mod tests;

use sessions::Sessions;
use xdpfwd::App;

/// Creates the program. Its stages and its command `ctl sessions`, which changes the table of
/// sessions, share the table.
fn app(sessions: Sessions) -> App {
    let [uplink_sessions, downlink_sessions] = [sessions.clone(), sessions.clone()];
    App::new("mini-upf", env!("CARGO_PKG_VERSION"))
        .about("Forwards packets of 5G sessions between N3 (GTP-U) and N6 (IP)")
        .stage_with("gtpu-decap", move |config, _| stages::decap(config, uplink_sessions.clone()))
        .stage_with("gtpu-encap", move |config, _| stages::encap(config, downlink_sessions.clone()))
        .ctl_parsed("sessions", "Add and remove sessions", move |handle, command| {
            Ok(sessions::run(&sessions, handle.workers()?, command)?)
        })
}

fn main() -> std::process::ExitCode {
    app(Sessions::default()).main()
}
