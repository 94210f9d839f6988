//! A filter in the XDP program: its tables, and what its rules have matched. `bpf/filter.h` and `bpf/classify.h` read them.

use std::io;

use filter::{Image, SpaceImage, Table, Verdict};
use libbpf_rs::{Map, MapCore as _, MapFlags, MapHandle, Object, OpenMapMut, OpenObject};
use pipeline::stages::filter::{KernelFilter, Unusual};
use pipeline::{Matched, Reason};

/// Why the program drops a packet, in the order of `enum reason` in `bpf/filter.h`.
pub(crate) const REASONS: [Reason; 7] = [
    Reason::Policy,
    Reason::NotIp,
    Reason::Malformed,
    Reason::VlanStack,
    Reason::ExtensionChain,
    Reason::IpOptions,
    Reason::LaterFragment,
];

/// What is wrong with a program that has other maps than this one knows of.
fn missing(name: &str) -> libbpf_rs::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("the XDP program has no map {name}")).into()
}

/// Gives the maps of a program that is not yet loaded the sizes that a filter needs, and writes the read-only data.
pub(crate) fn prepare(open: &mut OpenObject, filter: &KernelFilter) -> Result<(), libbpf_rs::Error> {
    map_mut(open, ".rodata.in_step", |map| {
        let ours: Vec<u8> = Image::IN_STEP.into_iter().flat_map(u32::to_ne_bytes).collect();
        if map.initial_value() == Some(&ours) {
            return Ok(());
        }
        let message = "the XDP program and this one were not built from the same source: `cargo clean -p engine`";
        Err(io::Error::new(io::ErrorKind::InvalidData, message).into())
    })?;
    prepare_tables(open, &filter.image)?;
    map_mut(open, "hits", |map| map.set_max_entries(filter.rules() as u32 + 1))?;
    map_mut(open, ".rodata.filter", |map| map.set_initial_value(&read_only(filter)))
}

/// The same with the tables of `bpf/classify.h` alone, for another program that has them.
pub fn prepare_tables(open: &mut OpenObject, image: &Image) -> Result<(), libbpf_rs::Error> {
    for (name, table) in tables(&image.v4, "v4").into_iter().chain(tables(&image.v6, "v6")) {
        map_mut(open, &name, |map| map.set_max_entries(entries(table).max(1)))?;
    }
    map_mut(open, ".rodata.v4", |map| map.set_initial_value(&image.v4.space))?;
    map_mut(open, ".rodata.v6", |map| map.set_initial_value(&image.v6.space))
}

fn map_mut(
    open: &mut OpenObject,
    name: &str,
    set: impl FnOnce(&mut OpenMapMut<'_>) -> Result<(), libbpf_rs::Error>,
) -> Result<(), libbpf_rs::Error> {
    let mut map = open.maps_mut().find(|map| *map.name() == *name).ok_or_else(|| missing(name))?;
    set(&mut map)
}

fn entries(table: &Table) -> u32 {
    u32::try_from(table.values()).unwrap_or(u32::MAX)
}

/// Fills the maps of a program that is loaded, and not yet attached.
pub(crate) fn fill(object: &Object, filter: &KernelFilter) -> Result<Hits, libbpf_rs::Error> {
    fill_tables(object, &filter.image)?;
    Ok(Hits { map: MapHandle::try_from(&find(object, "hits")?)?, rules: filter.rules() })
}

/// The same with the tables of `bpf/classify.h` alone.
pub fn fill_tables(object: &Object, image: &Image) -> Result<(), libbpf_rs::Error> {
    for (name, table) in tables(&image.v4, "v4").into_iter().chain(tables(&image.v6, "v6")) {
        let count = entries(table);
        if count > 0 {
            let keys: Vec<u8> = (0..count).flat_map(u32::to_ne_bytes).collect();
            find(object, &name)?.update_batch(&keys, &table.bytes, count, MapFlags::ANY, MapFlags::ANY)?;
        }
    }
    Ok(())
}

fn find<'o>(object: &'o Object, name: &str) -> Result<Map<'o>, libbpf_rs::Error> {
    object.maps().find(|map| *map.name() == *name).ok_or_else(|| missing(name))
}

/// The tables of one IP version, by the names of their maps.
fn tables<'a>(space: &'a SpaceImage, version: &str) -> [(String, &'a Table); 6] {
    let SpaceImage { space: _, first, parts, sets, tags, firsts, entries } = space;
    [("first", first), ("parts", parts), ("sets", sets), ("tags", tags), ("firsts", firsts), ("entries", entries)]
        .map(|(name, table)| (format!("{name}_{version}"), table))
}

/// `struct filter`.
fn read_only(filter: &KernelFilter) -> Vec<u8> {
    let manner = |reason: &Reason| {
        let unusual = Unusual::ALL.into_iter().find(|unusual| unusual.reason() == *reason);
        match unusual.and_then(|unusual| filter.manner(unusual)) {
            None => 0,
            Some(Verdict::Accept) => 1,
            Some(Verdict::Drop) => 2,
        }
    };
    let accepts = u32::from(filter.default == Verdict::Accept);
    let head = [filter.rules() as u32, accepts, u32::from(filter.goes_on)];
    let all = head.into_iter().chain(REASONS.iter().map(manner));
    all.flat_map(u32::to_ne_bytes).collect()
}

/// What the rules of a program have matched.
pub(crate) struct Hits {
    map: MapHandle,
    rules: usize,
}

impl Hits {
    /// Over all processors.
    fn read(&self) -> Result<Matched, libbpf_rs::Error> {
        let mut counts = Vec::with_capacity(self.rules + 1);
        for rule in 0..=self.rules as u32 {
            let per_cpu = self.map.lookup_percpu(&rule.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
            let values = per_cpu.iter().filter_map(|value| value.first_chunk().copied().map(u64::from_ne_bytes));
            counts.push(values.sum());
        }
        let default = counts.pop().unwrap_or_default();
        Ok(Matched { rules: counts, default })
    }

    /// The same; what cannot be read is not known.
    pub(crate) fn read_or_complain(&self) -> Option<Matched> {
        self.read()
            .inspect_err(|error| tracing::warn!(%error, "what the XDP program's rules have matched cannot be read"))
            .ok()
    }
}
