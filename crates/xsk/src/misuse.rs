//! Misuse of frames that must not compile. Each example has a counterpart that compiles, which
//! shows that the failure has the intended cause. The two most important examples are at
//! [`Frame`](crate::Frame) and [`EgressQueue`](crate::EgressQueue).
//!
//! # After it was dropped
//!
//! ```compile_fail,E0382
//! # let (_umem, mut pool) = xdpfwd_xsk::Umem::new(&xdpfwd_xsk::UmemConfig::default())?;
//! let frame = pool.alloc().unwrap();
//! drop(frame);
//! println!("{}", frame.len()); // borrow of moved value
//! # Ok::<(), xdpfwd_xsk::UmemError>(())
//! ```
//! ```
//! # let (_umem, mut pool) = xdpfwd_xsk::Umem::new(&xdpfwd_xsk::UmemConfig::default())?;
//! let frame = pool.alloc().unwrap();
//! println!("{}", frame.len());
//! drop(frame);
//! # Ok::<(), xdpfwd_xsk::UmemError>(())
//! ```
//!
//! # After it was put into a batch
//!
//! ```compile_fail,E0382
//! # let (_umem, mut pool) = xdpfwd_xsk::Umem::new(&xdpfwd_xsk::UmemConfig::default())?;
//! let mut batch = xdpfwd_xsk::Batch::new();
//! let mut frame = pool.alloc().unwrap();
//! batch.push(frame).unwrap();
//! frame.append(4).unwrap(); // borrow of moved value
//! # Ok::<(), xdpfwd_xsk::UmemError>(())
//! ```
//! ```
//! # let (_umem, mut pool) = xdpfwd_xsk::Umem::new(&xdpfwd_xsk::UmemConfig::default())?;
//! let mut batch = xdpfwd_xsk::Batch::new();
//! let mut frame = pool.alloc().unwrap();
//! frame.append(4).unwrap();
//! batch.push(frame).unwrap();
//! # Ok::<(), xdpfwd_xsk::UmemError>(())
//! ```
//!
//! # Its bytes, after it was transmitted
//!
//! A slice borrows its frame: while the slice is in use, the frame cannot be moved.
//!
//! ```compile_fail,E0505
//! # use xdpfwd_xsk::Port;
//! # let (umem, mut pool) = xdpfwd_xsk::Umem::new(&xdpfwd_xsk::UmemConfig::default())?;
//! # let (mut port, _kernel) = xdpfwd_xsk::fake_kernel::FakeKernel::port(&umem, &mut pool, 0);
//! let mut queue = xdpfwd_xsk::EgressQueue::new(&umem, 64);
//! let mut frame = pool.alloc().unwrap();
//! let payload = frame.append(60).unwrap();
//! queue.push(frame).unwrap(); // cannot move out of `frame` because it is borrowed
//! port.transmit(&mut queue);
//! payload.fill(1);
//! # Ok::<(), xdpfwd_xsk::UmemError>(())
//! ```
//! ```
//! # use xdpfwd_xsk::Port;
//! # let (umem, mut pool) = xdpfwd_xsk::Umem::new(&xdpfwd_xsk::UmemConfig::default())?;
//! # let (mut port, _kernel) = xdpfwd_xsk::fake_kernel::FakeKernel::port(&umem, &mut pool, 0);
//! let mut queue = xdpfwd_xsk::EgressQueue::new(&umem, 64);
//! let mut frame = pool.alloc().unwrap();
//! let payload = frame.append(60).unwrap();
//! payload.fill(1);
//! queue.push(frame).unwrap();
//! port.transmit(&mut queue);
//! # Ok::<(), xdpfwd_xsk::UmemError>(())
//! ```
//!
//! # Twice
//!
//! ```compile_fail,E0599
//! # let (_umem, mut pool) = xdpfwd_xsk::Umem::new(&xdpfwd_xsk::UmemConfig::default())?;
//! let frame = pool.alloc().unwrap();
//! let copy = frame.clone(); // no method named `clone` found
//! pool.free(frame).unwrap();
//! pool.free(copy).unwrap();
//! # Ok::<(), xdpfwd_xsk::UmemError>(())
//! ```
//! ```compile_fail,E0382
//! # let (_umem, mut pool) = xdpfwd_xsk::Umem::new(&xdpfwd_xsk::UmemConfig::default())?;
//! let frame = pool.alloc().unwrap();
//! pool.free(frame).unwrap();
//! pool.free(frame).unwrap(); // use of moved value
//! # Ok::<(), xdpfwd_xsk::UmemError>(())
//! ```
//! ```
//! # let (_umem, mut pool) = xdpfwd_xsk::Umem::new(&xdpfwd_xsk::UmemConfig::default())?;
//! let frame = pool.alloc().unwrap();
//! pool.free(frame).unwrap();
//! # Ok::<(), xdpfwd_xsk::UmemError>(())
//! ```
//!
//! # On another thread
//!
//! Frames cannot be sent to or shared with another thread, nor can types that contain or create
//! them.
//!
//! ```compile_fail,E0277
//! # let (_umem, mut pool) = xdpfwd_xsk::Umem::new(&xdpfwd_xsk::UmemConfig::default())?;
//! let frame = pool.alloc().unwrap();
//! std::thread::spawn(move || frame.len()); // cannot be sent between threads safely
//! # Ok::<(), xdpfwd_xsk::UmemError>(())
//! ```
//! ```compile_fail,E0277
//! # let (_umem, mut pool) = xdpfwd_xsk::Umem::new(&xdpfwd_xsk::UmemConfig::default())?;
//! let frame = pool.alloc().unwrap();
//! std::thread::scope(|scope| scope.spawn(|| frame.len()).join()).unwrap(); // cannot be shared between threads safely
//! # Ok::<(), xdpfwd_xsk::UmemError>(())
//! ```
//! ```
//! # let (_umem, mut pool) = xdpfwd_xsk::Umem::new(&xdpfwd_xsk::UmemConfig::default())?;
//! let frame = pool.alloc().unwrap();
//! let copied = frame.to_vec(); // bytes may go where they like
//! std::thread::spawn(move || copied.len()).join().unwrap();
//! pool.free(frame).unwrap();
//! # Ok::<(), xdpfwd_xsk::UmemError>(())
//! ```
//! ```compile_fail,E0277
//! fn goes_to_another_thread<T: Send>() {}
//! goes_to_another_thread::<xdpfwd_xsk::Batch>();
//! ```
//! ```compile_fail,E0277
//! fn goes_to_another_thread<T: Send>() {}
//! goes_to_another_thread::<xdpfwd_xsk::EgressQueue>();
//! ```
//! ```compile_fail,E0277
//! fn goes_to_another_thread<T: Send>() {}
//! goes_to_another_thread::<xdpfwd_xsk::Pool>();
//! ```
//! ```compile_fail,E0277
//! fn goes_to_another_thread<T: Send>() {}
//! goes_to_another_thread::<xdpfwd_xsk::Umem>();
//! ```
//! ```compile_fail,E0277
//! fn goes_to_another_thread<T: Send>() {}
//! goes_to_another_thread::<xdpfwd_xsk::XskPort>();
//! ```
//! ```
//! fn goes_to_another_thread<T: Send>() {}
//! goes_to_another_thread::<xdpfwd_xsk::Builder>(); // what opens ports, on the thread that will have them
//! ```
//!
//! # After its port was closed
//!
//! ```compile_fail,E0382
//! # use xdpfwd_xsk::Port;
//! # let (umem, mut pool) = xdpfwd_xsk::Umem::new(&xdpfwd_xsk::UmemConfig::default())?;
//! # let (mut port, _kernel) = xdpfwd_xsk::fake_kernel::FakeKernel::port(&umem, &mut pool, 0);
//! let mut batch = xdpfwd_xsk::Batch::new();
//! Box::new(port).close(&mut pool);
//! port.receive(&mut batch, &mut pool); // borrow of moved value
//! # Ok::<(), xdpfwd_xsk::UmemError>(())
//! ```
//! ```
//! # use xdpfwd_xsk::Port;
//! # let (umem, mut pool) = xdpfwd_xsk::Umem::new(&xdpfwd_xsk::UmemConfig::default())?;
//! # let (mut port, _kernel) = xdpfwd_xsk::fake_kernel::FakeKernel::port(&umem, &mut pool, 0);
//! let mut batch = xdpfwd_xsk::Batch::new();
//! port.receive(&mut batch, &mut pool);
//! Box::new(port).close(&mut pool);
//! # Ok::<(), xdpfwd_xsk::UmemError>(())
//! ```
