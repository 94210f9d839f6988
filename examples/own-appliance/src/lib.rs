//! An appliance on xdpfwd. It lets packets of known subscribers pass, drops or diverts those of
//! others, and counts packets and bytes per subscriber.

mod gate;
mod subscribers;

use std::io::{self, Write as _};

use subscribers::Subscribers;
use xdpfwd::App;

/// Creates the program.
pub fn app() -> App {
    let subscribers = Subscribers::default();
    let [gate_subscribers, ctl_subscribers] = [subscribers.clone(), subscribers.clone()];
    App::new("own-appliance", env!("CARGO_PKG_VERSION"))
        .about("Lets known subscribers pass and counts their traffic")
        .stage_with("subscribers", move |config, cx| {
            gate::plan(config, gate_subscribers.clone(), cx)
        })
        .ctl_parsed("subscribers", "List, add and remove subscribers", move |handle, arguments| {
            Ok(subscribers::run(&ctl_subscribers, handle.workers()?, arguments))
        })
        .on_stopped(move |_| {
            let packets = subscribers::packets(&subscribers);
            let _ = writeln!(io::stderr(), "own-appliance: {packets} packets of known subscribers");
        })
}
