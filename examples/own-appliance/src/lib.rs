//! An appliance on xdpfwd: lets known subscribers pass, drops or diverts others, counts per
//! subscriber.

mod gate;
mod subscribers;

use subscribers::Subscribers;
use xdpfwd::App;

/// Creates the program.
pub fn app() -> App {
    let subscribers = Subscribers::default();
    let [of_gates, of_ctl] = [subscribers.clone(), subscribers.clone()];
    App::new("own-appliance", env!("CARGO_PKG_VERSION"))
        .about("Lets known subscribers pass and counts their traffic")
        .stage_with("subscribers", move |config, cx| gate::plan(config, of_gates.clone(), cx))
        .ctl_parsed("subscribers", "List, add and remove subscribers", move |handle, arguments| {
            Ok(subscribers::run(&of_ctl, handle.workers()?, arguments))
        })
        .on_stopped(move |_| {
            let packets = subscribers::packets(&subscribers);
            eprintln!("own-appliance: {packets} packets of known subscribers");
        })
}
