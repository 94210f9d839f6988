//! The maps of a stage in the XDP program; [`XdpImage`] describes their content, and `bpf/filter.h`
//! and `bpf/space.h` define those of the filter.

use std::io;

use libbpf_rs::{Map, MapCore as _, MapFlags, MapHandle, Object, OpenMapMut, OpenObject};
use xdpfwd_pipeline::{XdpImage, XdpTables};

fn missing_map(name: &str) -> libbpf_rs::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("the XDP program has no map {name}")).into()
}

/// Checks that a program was compiled with the constants of `image`, sizes its maps, and writes its
/// read-only data.
pub(crate) fn prepare(open: &mut OpenObject, image: &XdpImage) -> Result<(), libbpf_rs::Error> {
    for (name, expected) in &image.constants {
        change_map(open, name, |map| {
            if map.initial_value() == Some(expected) {
                return Ok(());
            }
            let message = "the XDP program and this binary were not built from the same source; \
                           run `cargo clean -p xdpfwd-engine` and build again";
            Err(io::Error::new(io::ErrorKind::InvalidData, message).into())
        })?;
    }
    prepare_tables(open, &image.tables)?;
    let (name, entries) = image.counters;
    change_map(open, name, |map| map.set_max_entries(entries))
}

/// Sizes the array maps of a program before loading, and writes its read-only data.
pub fn prepare_tables(open: &mut OpenObject, tables: &XdpTables) -> Result<(), libbpf_rs::Error> {
    for array in &tables.arrays {
        // A map needs at least one entry.
        change_map(open, &array.map, |map| map.set_max_entries(array.values.max(1)))?;
    }
    for (name, bytes) in &tables.read_only {
        change_map(open, name, |map| map.set_initial_value(bytes))?;
    }
    Ok(())
}

fn change_map(
    open: &mut OpenObject,
    name: &str,
    change: impl FnOnce(&mut OpenMapMut<'_>) -> Result<(), libbpf_rs::Error>,
) -> Result<(), libbpf_rs::Error> {
    let mut map =
        open.maps_mut().find(|map| *map.name() == *name).ok_or_else(|| missing_map(name))?;
    change(&mut map)
}

/// Fills the maps before attachment.
pub(crate) fn fill(object: &Object, image: &XdpImage) -> Result<RowCounterMap, libbpf_rs::Error> {
    fill_tables(object, &image.tables)?;
    let (name, entries) = image.counters;
    Ok(RowCounterMap { map: MapHandle::try_from(&find_map(object, name)?)?, entries })
}

/// Fills the array maps of a loaded program, before it is attached.
pub fn fill_tables(object: &Object, tables: &XdpTables) -> Result<(), libbpf_rs::Error> {
    for array in tables.arrays.iter().filter(|array| array.values > 0) {
        let keys: Vec<u8> = (0..array.values).flat_map(u32::to_ne_bytes).collect();
        find_map(object, &array.map)?.update_batch(
            &keys,
            &array.bytes,
            array.values,
            MapFlags::ANY,
            MapFlags::ANY,
        )?;
    }
    Ok(())
}

fn find_map<'o>(object: &'o Object, name: &str) -> Result<Map<'o>, libbpf_rs::Error> {
    object.maps().find(|map| map.name() == name).ok_or_else(|| missing_map(name))
}

/// The map of row counters (such as packets per filter rule), in the order of
/// [`Stage::row_counters`](xdpfwd_pipeline::Stage::row_counters).
pub(crate) struct RowCounterMap {
    map: MapHandle,
    entries: u32,
}

impl RowCounterMap {
    /// Returns each counter's sum over CPUs.
    fn read(&self) -> Result<Vec<u64>, libbpf_rs::Error> {
        let mut counters = Vec::with_capacity(self.entries as usize);
        for entry in 0..self.entries {
            let per_cpu =
                self.map.lookup_percpu(&entry.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
            let values = per_cpu
                .iter()
                .filter_map(|value| value.first_chunk().copied().map(u64::from_ne_bytes));
            counters.push(values.sum());
        }
        Ok(counters)
    }

    /// Logs a warning and returns `None` on an error.
    pub(crate) fn read_or_warn(&self) -> Option<Vec<u64>> {
        self.read()
            .inspect_err(
                |error| tracing::warn!(%error, "cannot read the row counters of the XDP program"),
            )
            .ok()
    }
}
