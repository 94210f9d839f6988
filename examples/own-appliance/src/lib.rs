//! An appliance on xdpfwd: lets known subscribers pass, drops or diverts others, counts per subscriber.

mod gate;
mod subscribers;

use serde::Serialize;
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
                Ok(list(&of_ctl))
            }
        })
        .on_stop(move |_| {
            let packets: u64 = list(&subscribers).iter().map(|row| row.packets).sum();
            eprintln!("own-appliance: {packets} packets of known subscribers");
        })
}

/// A row of `ctl subscribers`.
#[derive(Serialize)]
struct Row {
    address: String,
    packets: u64,
    bytes: u64,
}

fn list(subscribers: &Subscribers) -> Vec<Row> {
    let row = |(address, [packets, bytes]): (std::net::Ipv4Addr, [u64; 2])| Row {
        address: address.to_string(),
        packets,
        bytes,
    };
    subscribers.counters().into_iter().map(row).collect()
}
