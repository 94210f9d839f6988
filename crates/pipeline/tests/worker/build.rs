//! Building a worker from invalid ports, paths, queues or UMEMs.

use xdpfwd_pipeline::{BuildError, PortId, Worker};
use xdpfwd_testkit::wires::umem_config;
use xdpfwd_xsk::Umem;
use xdpfwd_xsk::fake_kernel::FakeKernel;

#[test]
fn builder_rejects_invalid_ports_paths_queues_and_foreign_umem() {
    let build = |queue_counts: &[usize], paths: &[(u8, u8)]| {
        let (umem, mut pool) = Umem::new(&umem_config()).unwrap();
        let mut index = 0;
        let mut ports: Vec<Vec<Box<dyn xdpfwd_xsk::Port>>> = vec![];
        for &queues in queue_counts {
            let mut port: Vec<Box<dyn xdpfwd_xsk::Port>> = vec![];
            for _ in 0..queues {
                port.push(Box::new(FakeKernel::port(&umem, &mut pool, index).0));
                index += 1;
            }
            ports.push(port);
        }
        let mut builder = Worker::builder(umem, pool);
        builder = ports.into_iter().fold(builder, |builder, port| builder.port(port));
        builder = paths
            .iter()
            .fold(builder, |builder, &(from, to)| builder.path(PortId(from), PortId(to), ()));
        builder.build().err()
    };
    assert_eq!(build(&[1, 1], &[(0, 1), (1, 0)]), None);
    assert_eq!(build(&[1], &[(0, 0)]), None, "a path from a port to the same port");
    assert_eq!(build(&[1, 1], &[(0, 2)]), Some(BuildError::NoSuchPort(2)));
    assert_eq!(build(&[1, 1], &[(3, 1)]), Some(BuildError::NoSuchPort(3)));
    assert_eq!(build(&[1, 1], &[(0, 1), (0, 0)]), Some(BuildError::TwoPaths(0)));
    assert_eq!(
        build(&[2, 1], &[]),
        Some(BuildError::UnequalQueues { port: 1, queues: 1, expected: 2 })
    );

    let (umem, mut pool) = Umem::new(&umem_config()).unwrap();
    let (other, mut other_pool) = Umem::new(&umem_config()).unwrap();
    let (port, _) = FakeKernel::port(&umem, &mut pool, 0);
    let (other_port, _) = FakeKernel::port(&other, &mut other_pool, 0);
    let mixed_port = Worker::<()>::builder(umem.clone(), pool)
        .port(vec![Box::new(port), Box::new(other_port)])
        .build();
    assert_eq!(mixed_port.err(), Some(BuildError::OtherUmem("a port")));
    assert_eq!(
        Worker::<()>::builder(umem, other_pool).build().err(),
        Some(BuildError::OtherUmem("the pool"))
    );

    let (umem, mut pool) = Umem::new(&umem_config()).unwrap();
    let queues = (0..2).map(|index| {
        Box::new(FakeKernel::port(&umem, &mut pool, index).0) as Box<dyn xdpfwd_xsk::Port>
    });
    let queues: Vec<_> = queues.collect();
    // The first queue has number 1, and the next one 65535 more: too large for 16 bits.
    let too_large = Worker::<()>::builder(umem, pool).queues(1, u16::MAX).port(queues).build();
    assert_eq!(too_large.err(), Some(BuildError::QueueNumber(65536)));
}
