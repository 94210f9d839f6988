//! Loads the embedded BPF objects and reads their maps.

use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ObjectBuilder, OpenObject};

use crate::Error;

#[repr(C, align(16))]
struct Aligned<T: ?Sized>(T);

static GENERATOR: &Aligned<[u8]> =
    &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/generator.bpf.o")));
static SINK: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/sink.bpf.o")));

const HINT: &str = "needs root with CAP_BPF, and Linux 5.18 or later";

/// Loads the generator. `packets` is an array of `struct packet` for a
/// [flood](crate::Traffic::flood), otherwise empty.
pub(crate) fn load_generator(config: &[u8], packets: &[u8]) -> Result<Object, Error> {
    let description = "the generator's BPF program";
    let count = (packets.len() / PACKET_SIZE) as u32;
    let object = load(description, &GENERATOR.0, config, Some(("packets", count.max(1))))?;
    if count > 0 {
        let map = object
            .maps()
            .find(|map| map.name() == "packets")
            .ok_or(Error::Object("map packets"))?;
        let keys: Vec<u8> = (0..count).flat_map(u32::to_ne_bytes).collect();
        map.update_batch(&keys, packets, count, MapFlags::ANY, MapFlags::ANY)
            .map_err(Error::bpf(format!("configuring {description}"), HINT))?;
    }
    Ok(object)
}

pub(crate) fn load_sink(config: &[u8]) -> Result<Object, Error> {
    load("the sink's BPF program", &SINK.0, config, None)
}

/// `struct packet` in bpf/generator.bpf.c, in bytes.
const PACKET_SIZE: usize = 16;

/// Loads an object. `config` is its read-only data. `description` names the object in errors.
/// `map_size` is the name of a map and its number of entries.
fn load(
    description: &str,
    object: &[u8],
    config: &[u8],
    map_size: Option<(&'static str, u32)>,
) -> Result<Object, Error> {
    let mut open: OpenObject = ObjectBuilder::default()
        .open_memory(object)
        .map_err(Error::bpf(format!("opening {description}"), HINT))?;
    open.maps_mut()
        .find(|map| map.name() == ".rodata.config")
        .ok_or(Error::Object("map .rodata.config"))?
        .set_initial_value(config)
        .map_err(Error::bpf(
            format!("configuring {description}"),
            "bpf/ and src/ of crates/lab do not match",
        ))?;
    if let Some((name, entries)) = map_size {
        let mut map = open.maps_mut().find(|map| map.name() == name).ok_or(Error::Object(name))?;
        map.set_max_entries(entries)
            .map_err(Error::bpf(format!("configuring {description}"), HINT))?;
    }
    open.load().map_err(Error::bpf(format!("loading {description}"), HINT))
}

pub(crate) fn map_handle(object: &Object, name: &'static str) -> Result<MapHandle, Error> {
    let map = object.maps().find(|map| map.name() == name).ok_or(Error::Object(name))?;
    MapHandle::try_from(&map).map_err(Error::bpf(format!("opening the BPF map {name}"), HINT))
}

/// Reads the first `N` `u64`s of entry 0, summed over the cores if the map is per-CPU.
pub(crate) fn read<const N: usize>(
    map: &MapHandle,
    program: &'static str,
) -> Result<[u64; N], Error> {
    read_at(map, 0, program)
}

pub(crate) fn read_at<const N: usize>(
    map: &MapHandle,
    index: u32,
    program: &'static str,
) -> Result<[u64; N], Error> {
    let key = index.to_ne_bytes();
    let failed = || Error::bpf(format!("reading the {program}'s counters"), HINT);
    let values = if map.map_type().is_percpu() {
        map.lookup_percpu(&key, MapFlags::ANY).map_err(failed())?.unwrap_or_default()
    } else {
        map.lookup(&key, MapFlags::ANY).map_err(failed())?.into_iter().collect()
    };
    let mut sums = [0u64; N];
    for value in &values {
        for (sum, word) in sums.iter_mut().zip(value.as_chunks::<8>().0) {
            *sum += u64::from_ne_bytes(*word);
        }
    }
    Ok(sums)
}
