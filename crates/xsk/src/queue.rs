//! The egress queue: frames on their way to a port.

use std::collections::VecDeque;
use std::fmt;

use crate::abi::ETH_HLEN;
use crate::frame::Frame;
use crate::umem::Umem;

/// A bounded queue of frames on their way to a port. It never grows: what does not fit is handed back to be dropped and
/// counted, because waiting would hold up everything else.
///
/// A frame that was put into the queue is on its way to the kernel. To touch it then does not compile:
///
/// ```compile_fail,E0382
/// use xsk::{EgressQueue, Umem, UmemConfig};
/// let (umem, mut pool) = Umem::new(&UmemConfig::default())?;
/// let mut queue = EgressQueue::new(&umem, 64);
/// let mut frame = pool.alloc().unwrap();
/// frame.append(60).unwrap().fill(0);
/// queue.push(frame).unwrap();
/// frame[0] = 1; // borrow of moved value
/// # Ok::<(), xsk::UmemError>(())
/// ```
///
/// The same without the offending line does:
///
/// ```
/// use xsk::{EgressQueue, Umem, UmemConfig};
/// let (umem, mut pool) = Umem::new(&UmemConfig::default())?;
/// let mut queue = EgressQueue::new(&umem, 64);
/// let mut frame = pool.alloc().unwrap();
/// frame.append(60).unwrap().fill(0);
/// queue.push(frame).unwrap();
/// # Ok::<(), xsk::UmemError>(())
/// ```
pub struct EgressQueue {
    // Before the handle of their UMEM: if that is the last one, it finds no frame left that it would have to stay for.
    frames: VecDeque<Frame>,
    capacity: usize,
    umem: Umem,
}

/// Why a queue refused a frame; here it is back.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The queue is full.
    #[error("the egress queue is full")]
    Full(Frame),
    /// The frame is too short to be an Ethernet frame. The kernel would swallow the descriptor without ever completing it.
    #[error("{0:?} is shorter than an Ethernet header")]
    Runt(Frame),
    /// The frame is of another UMEM: the port could not transmit it.
    #[error("{0:?} is of another UMEM")]
    Foreign(Frame),
}

impl EgressQueue {
    /// A queue for at most `capacity` frames of this UMEM.
    pub fn new(umem: &Umem, capacity: usize) -> Self {
        Self { frames: VecDeque::with_capacity(capacity), capacity, umem: umem.clone() }
    }

    /// Adds a frame at the end.
    ///
    /// ```
    /// # use xsk::{EgressQueue, Refused, Umem, UmemConfig};
    /// let (umem, mut pool) = Umem::new(&UmemConfig::default())?;
    /// let (_other_umem, mut other_pool) = Umem::new(&UmemConfig::default())?;
    /// let mut queue = EgressQueue::new(&umem, 64);
    /// let mut frame = other_pool.alloc().unwrap();
    /// frame.append(60).unwrap().fill(0);
    /// let Err(Refused::Foreign(frame)) = queue.push(frame) else { unreachable!() }; // of another UMEM: handed back
    /// other_pool.free(frame).unwrap();
    /// let Err(Refused::Runt(frame)) = queue.push(pool.alloc().unwrap()) else { unreachable!() }; // nothing in it
    /// pool.free(frame).unwrap();
    /// # Ok::<(), xsk::UmemError>(())
    /// ```
    #[inline]
    pub fn push(&mut self, frame: Frame) -> Result<(), Refused> {
        if self.frames.len() >= self.capacity {
            return Err(Refused::Full(frame));
        }
        if frame.len() < ETH_HLEN {
            return Err(Refused::Runt(frame));
        }
        if !self.umem.is_region(frame.region()) {
            return Err(Refused::Foreign(frame));
        }
        self.frames.push_back(frame);
        Ok(())
    }

    /// Takes the frame at the front.
    #[inline]
    pub fn pop(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }

    /// The frames that wait, from the front: to be read, not to be touched.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &Frame> {
        self.frames.iter()
    }

    /// Takes the `n` frames at the front (all, if there are fewer).
    #[inline]
    pub fn drain(&mut self, n: usize) -> impl Iterator<Item = Frame> {
        self.frames.drain(..n.min(self.frames.len()))
    }

    /// The UMEM whose frames it takes.
    #[inline]
    pub fn umem(&self) -> &Umem {
        &self.umem
    }

    /// Frames that may still be added.
    #[inline]
    pub fn room(&self) -> usize {
        self.capacity - self.frames.len()
    }

    /// Frames waiting.
    #[inline]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether none is waiting.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

impl fmt::Debug for EgressQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EgressQueue").field("len", &self.len()).field("capacity", &self.capacity).finish()
    }
}
