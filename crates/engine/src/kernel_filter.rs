//! A filter in the XDP program: its tables, and what its rules have matched. `bpf/filter.h` and `bpf/classify.h` read them.

use std::io;

use filter::{SpaceImage, Table, Verdict};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, OpenObject};
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
    let image = &filter.image;
    let tables = tables(&image.v4, "v4").into_iter().chain(tables(&image.v6, "v6"));
    let sizes = tables.map(|(name, table)| (name, table.values())).chain([("hits".to_owned(), filter.rules + 1)]);
    for (name, values) in sizes {
        let mut map = open.maps_mut().find(|map| *map.name() == *name).ok_or_else(|| missing(&name))?;
        map.set_max_entries(u32::try_from(values.max(1)).unwrap_or(u32::MAX))?;
    }
    for (section, bytes) in
        [(".rodata.v4", &image.v4.space), (".rodata.v6", &image.v6.space), (".rodata.filter", &read_only(filter))]
    {
        let mut map = open.maps_mut().find(|map| *map.name() == *section).ok_or_else(|| missing(section))?;
        map.set_initial_value(bytes)?;
    }
    Ok(())
}

/// Fills the maps of a program that is loaded, and not yet attached.
pub(crate) fn fill(object: &Object, filter: &KernelFilter) -> Result<Hits, libbpf_rs::Error> {
    let find = |name: &str| object.maps().find(|map| *map.name() == *name).ok_or_else(|| missing(name));
    for (name, table) in tables(&filter.image.v4, "v4").into_iter().chain(tables(&filter.image.v6, "v6")) {
        let count = u32::try_from(table.values()).unwrap_or(u32::MAX);
        if count == 0 {
            continue;
        }
        let keys: Vec<u8> = (0..count).flat_map(u32::to_ne_bytes).collect();
        find(&name)?.update_batch(&keys, &table.bytes, count, MapFlags::ANY, MapFlags::ANY)?;
    }
    Ok(Hits { map: MapHandle::try_from(&find("hits")?)?, rules: filter.rules })
}

/// The tables of one IP version, by the names of their maps.
fn tables<'a>(space: &'a SpaceImage, version: &str) -> [(String, &'a Table); 5] {
    let SpaceImage { space: _, first, parts, sets, groups, entries } = space;
    [("first", first), ("parts", parts), ("sets", sets), ("groups", groups), ("entries", entries)]
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
    let head = [filter.rules as u32, accepts, u32::from(filter.goes_on)];
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
