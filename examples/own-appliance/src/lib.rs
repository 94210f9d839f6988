//! An appliance on xdpfwd: lets known subscribers pass, drops or diverts others, counts per
//! subscriber.

mod gate;
mod subscribers;

use xdpfwd::App;

use gate::{GateConfig, GatePlan};
use subscribers::Subscribers;

/// The program.
pub fn app() -> App {
    let subscribers = Subscribers::default();
    let (of_gates, of_ctl) = (subscribers.clone(), subscribers.clone());
    App::new("own-appliance", env!("CARGO_PKG_VERSION"))
        .about("Lets known subscribers pass and counts their traffic")
        .stage_with("subscribers", move |config: GateConfig, cx| {
            GatePlan::new(config, of_gates.clone(), cx)
        })
        .ctl("subscribers", "List subscribers; `add IP` or `remove IP` change them", {
            move |handle, arguments| {
                let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
                match words[..] {
                    [] => {}
                    ["add", address] => of_ctl.add(address.parse()?, handle.workers()?),
                    ["remove", address] => of_ctl.remove(address.parse()?),
                    _ => return Err("expected nothing, `add IP` or `remove IP`".into()),
                }
                Ok(of_ctl.table())
            }
        })
        .on_stopped(move |_| {
            let packets: u64 = subscribers.counters().iter().map(|(_, [packets, _])| packets).sum();
            eprintln!("own-appliance: {packets} packets of known subscribers");
        })
}
