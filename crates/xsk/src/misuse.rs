//! Misuse of frames and ports that must not compile. The last example under each heading is similar
//! and compiles, which shows that the errors have the intended cause.
//!
//! # Using a dropped frame
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
//! # Using a frame after pushing it into a batch
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
//! # Using the bytes of a frame after transmitting it
//!
//! While a slice is in use, its frame cannot be moved.
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
//! # Copying a frame, or freeing it twice
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
//! # Using a frame on another thread
//!
//! Frames, batches, queues, pools, UMEMs and ports cannot be used on another thread. Builders of
//! ports and copies of bytes can.
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
//! std::thread::scope(|scope| scope.spawn(|| frame.len()).join()).unwrap(); // cannot be shared
//! # Ok::<(), xdpfwd_xsk::UmemError>(())
//! ```
//! ```
//! # let (_umem, mut pool) = xdpfwd_xsk::Umem::new(&xdpfwd_xsk::UmemConfig::default())?;
//! let frame = pool.alloc().unwrap();
//! let copied = frame.to_vec(); // a copy of the bytes can be sent
//! std::thread::spawn(move || copied.len()).join().unwrap();
//! pool.free(frame).unwrap();
//! # Ok::<(), xdpfwd_xsk::UmemError>(())
//! ```
//! ```compile_fail,E0277
//! fn assert_send<T: Send>() {}
//! assert_send::<xdpfwd_xsk::Batch>();
//! ```
//! ```compile_fail,E0277
//! fn assert_send<T: Send>() {}
//! assert_send::<xdpfwd_xsk::EgressQueue>();
//! ```
//! ```compile_fail,E0277
//! fn assert_send<T: Send>() {}
//! assert_send::<xdpfwd_xsk::Pool>();
//! ```
//! ```compile_fail,E0277
//! fn assert_send<T: Send>() {}
//! assert_send::<xdpfwd_xsk::Umem>();
//! ```
//! ```compile_fail,E0277
//! fn assert_send<T: Send>() {}
//! assert_send::<xdpfwd_xsk::XskPort>();
//! ```
//! ```
//! fn assert_send<T: Send>() {}
//! assert_send::<xdpfwd_xsk::Builder>(); // opens the ports on the thread to which it was sent
//! ```
//!
//! # Using a port after closing it
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
