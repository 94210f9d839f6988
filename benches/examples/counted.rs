//! `make bench-instructions` counts the instructions of this program.
//!
//! Usage: `counted SCENARIO ROUNDS`
//!
//! A round passes 64 packets of 60 bytes from the fake kernel through one part of the data path.
//! The difference of two counts with different numbers of rounds excludes startup and exit.

use std::process::ExitCode;

use xdpfwd_pipeline::{BuildCx, Chain, NamedStage, PortId, Worker};
use xdpfwd_stages::{MacSwap, Memcpy};
use xdpfwd_xsk::{
    BareRings, Batch, EgressQueue, HugePages, Port, Umem, UmemConfig,
    fake_kernel::{FakeKernel, FakeKernelConfig, FakeRingSizes},
};

const BATCH: u32 = 64;
/// Packet length in bytes.
const LENGTH: u32 = 60;
const SIZES: FakeRingSizes =
    FakeRingSizes { fill: 1024, rx: 512, tx: 512, completion: 1024, start: 0 };

fn umem() -> (Umem, xdpfwd_xsk::Pool) {
    let config = UmemConfig { frames: 4096, huge_pages: HugePages::Off, ..UmemConfig::default() };
    Umem::new(&config).expect("8 MiB of memory")
}

fn config_without_wakeup() -> FakeKernelConfig {
    FakeKernelConfig { wants_tx_wakeup: false, ..FakeKernelConfig::default() }
}

/// Runs only the fake kernel, which every other scenario includes. `pretend_user` replaces the work
/// of user space on the rings.
fn kernel(rounds: u64) {
    let (umem, mut pool) = umem();
    let (_port, kernel) =
        FakeKernel::port_with(&umem, &mut pool, 0, SIZES, config_without_wakeup());
    for _ in 0..rounds {
        kernel.deliver_unwritten(BATCH, LENGTH);
        kernel.pretend_user(BATCH);
        kernel.complete_all();
    }
}

/// Runs the four rings alone.
fn rings(rounds: u64) {
    let (umem, _pool) = umem();
    let (mut rings, kernel) = BareRings::new(&umem, SIZES);
    kernel.set(config_without_wakeup());
    for _ in 0..rounds {
        kernel.deliver_unwritten(BATCH, LENGTH);
        rings.receive(BATCH);
        rings.transmit();
        kernel.complete_all();
        rings.reclaim();
    }
}

/// Runs a port with frames, its record of each chunk's owner, a batch and an egress queue.
fn port(rounds: u64) {
    let (umem, mut pool) = umem();
    let (mut port, kernel) =
        FakeKernel::port_with(&umem, &mut pool, 0, SIZES, config_without_wakeup());
    let (mut batch, mut queue) = (Batch::new(), EgressQueue::new(&umem, 512));
    for _ in 0..rounds {
        kernel.deliver_unwritten(BATCH, LENGTH);
        port.receive(&mut batch, &mut pool);
        queue.push_batch(&mut batch, |refused| panic!("the egress queue is full: {refused}"));
        port.transmit(&mut queue);
        kernel.complete_all();
        port.reclaim(&mut pool);
    }
}

/// Runs a worker that forwards between two ports.
fn worker<C: Chain>(rounds: u64, chain: impl Fn() -> C) {
    let (umem, mut pool) = umem();
    let (lan, from) = FakeKernel::port_with(&umem, &mut pool, 0, SIZES, config_without_wakeup());
    let (wan, to) = FakeKernel::port_with(&umem, &mut pool, 1, SIZES, config_without_wakeup());
    let mut worker = Worker::builder(umem, pool)
        .port(vec![Box::new(lan)])
        .port(vec![Box::new(wan)])
        .path(PortId(0), PortId(1), chain())
        .path(PortId(1), PortId(0), chain())
        .build()
        .expect("a cross-connect");
    for _ in 0..rounds {
        from.deliver_unwritten(BATCH, LENGTH);
        worker.poll_once();
        to.complete_all();
    }
}

/// Returns a stage that copies each packet; its count shows whether the compiler removes copies.
fn memcpy(copies: u16) -> NamedStage {
    let plan = Memcpy::new(copies).expect("a valid number of copies");
    NamedStage::build("memcpy", &plan, &BuildCx::default())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [scenario, rounds] = &arguments[..] else {
        eprintln!("usage: counted SCENARIO ROUNDS");
        return ExitCode::from(2);
    };
    let Ok(rounds) = rounds.parse() else {
        eprintln!("counted: invalid number of rounds {rounds:?}");
        return ExitCode::from(2);
    };
    match scenario.as_str() {
        "kernel" => kernel(rounds),
        "rings" => rings(rounds),
        "port" => port(rounds),
        "worker" => worker(rounds, || ()),
        "worker-mac-swap" => worker(rounds, || (MacSwap,)),
        "worker-memcpy" => worker(rounds, || vec![memcpy(8)]),
        "worker-three-stages" => worker(rounds, || (MacSwap, MacSwap, MacSwap)),
        other => {
            eprintln!(
                "counted: unknown scenario {other:?}; use kernel, rings, port, worker, \
                 worker-mac-swap, worker-memcpy or worker-three-stages"
            );
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
